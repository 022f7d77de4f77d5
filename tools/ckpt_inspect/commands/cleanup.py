"""`ckpt-inspect cleanup`: delete the checkpoints that no rule keeps."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ckpt_inspect.output.screen import Screen

DESCRIPTION = """\
Delete checkpoints of a run. A checkpoint stays if any of the rules keeps it,
and is shown with the rules that do. The newest sound one always stays, what a
newer version wrote too, and a damaged one counts for no rule. What was set
aside (aside-*) is never touched."""

EXAMPLES = """\
examples:
  ckpt-inspect cleanup runs/exp1 --keep-last 3 -n          only show it
  ckpt-inspect cleanup runs/exp1 --keep-last 3 --keep-every 1000
  ckpt-inspect cleanup RUN --keep-best 2 --metric val.loss --mode min -y
  ckpt-inspect cleanup RUN --keep-within 7d -y --json      for programs

exit status: 0 done, 2 could not run (no rule, no such metric, nobody to ask),
10 not found, 11 another process is writing to the run."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("run", metavar="RUN", help="the directory of a run")
    parser.add_argument("--keep-last", metavar="N", type=int, help="the newest N")
    parser.add_argument("--keep-best", metavar="N", type=int, help="the best N by --metric and --mode")
    parser.add_argument("--keep-every", metavar="N", type=int, help="steps that N divides")
    parser.add_argument("--keep-within", metavar="TIME", help="those of the last 7d, 36h, 1w2d, ...")
    parser.add_argument("--metric", metavar="M", help="the metric of --keep-best")
    parser.add_argument("--mode", choices=("min", "max"), help="whether its lowest or its highest values are best")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-n", "--dry-run", action="store_true", help="only show what would be deleted")
    group.add_argument("-y", "--yes", action="store_true", help="do not ask")


def run(arguments: Namespace, screen: Screen) -> int:
    """Clean RUN up."""
    from ckpt_inspect.cleaning import Answer, clean_up

    rules = {
        "keep_last": arguments.keep_last,
        "keep_best": arguments.keep_best,
        "keep_every": arguments.keep_every,
        "keep_within": arguments.keep_within,
        "monitor": arguments.metric,
        "mode": arguments.mode,
    }
    answer = Answer.ONLY_SHOW if arguments.dry_run else Answer.YES if arguments.yes else Answer.ASK
    return clean_up(arguments.run, rules, answer, screen)
