"""`ckpt-inspect watch`: a run while it goes on."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ckpt_inspect.output.screen import Screen

DESCRIPTION = """\
Show a run while it goes on: who writes, the last and the best checkpoint, when
the next one is due, sizes, free space, and how far each progress is. Nothing is
locked; what has not changed is not read again. A run that is not there yet is
waited for. Where the output is no terminal each change is a line, with --json a
document on a line. Ctrl-C ends."""

EXAMPLES = """\
examples:
  ckpt-inspect watch runs/exp1
  ckpt-inspect watch runs/exp1 --until 4000           how long to step 4,000
  ckpt-inspect watch RUN --metric val.loss --mode min
  ckpt-inspect watch RUN --once                       one look, for scripts
  ckpt-inspect watch RUN --json | jq -c .message_type
  ckpt-inspect watch RUN >> run.log &                 a line for each change

exit status: 130 interrupted (Ctrl-C), with --once 0; 2 could not run, 10 with
--once: not found."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("run", metavar="RUN", help="the directory of a run, which need not exist yet")
    parser.add_argument("--interval", metavar="SECONDS", type=float, default=2.0, help="how long to wait between two looks (default 2)")
    parser.add_argument("--once", action="store_true", help="look once")
    parser.add_argument("--metric", metavar="M", help="the metric that says which checkpoint is best")
    parser.add_argument("--mode", choices=("min", "max"), help="whether its lowest or its highest value is")
    parser.add_argument("--until", metavar="STEP", type=int, help="the step at which the run will be finished")


def run(arguments: Namespace, screen: Screen) -> int:
    """Watch RUN."""
    from ckpt_inspect.views.watch_lines import Wanted
    from ckpt_inspect.watching import Watching, watch

    wanted = Wanted(arguments.metric, arguments.mode, arguments.until)
    return watch(arguments.run, Watching(wanted, arguments.interval, arguments.once), screen)
