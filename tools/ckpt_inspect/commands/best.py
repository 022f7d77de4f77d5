"""`ckpt-inspect best`: the checkpoint with the best value of a metric."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ckpt_inspect.output.screen import Screen

DESCRIPTION = """\
Show the checkpoint with the best value of a metric. NaN is never best, of equal
values the newer one counts, and damaged checkpoints are passed over. Only
checkpoints are looked at; `history` shows what was logged between them."""

EXAMPLES = """\
examples:
  ckpt-inspect best runs/exp1 --metric val.loss --mode min
  ckpt-inspect best runs/exp1 --metric val.accuracy --mode max
  STEP=$(ckpt-inspect best RUN --metric M --mode min --json | jq -r .path)

exit status: 0 found, 2 no such metric, 10 no checkpoint has a value of it."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("run", metavar="RUN", help="the directory of a run")
    parser.add_argument("--metric", metavar="M", required=True, help="the metric that says which checkpoint is best")
    parser.add_argument("--mode", choices=("min", "max"), required=True, help="whether its lowest or its highest value is")


def run(arguments: Namespace, screen: Screen) -> int:
    """Show the best checkpoint of RUN."""
    from ckpt_inspect.ranking import show_best

    return show_best(arguments.run, arguments.metric, arguments.mode, screen)
