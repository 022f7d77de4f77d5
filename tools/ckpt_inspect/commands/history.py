"""`ckpt-inspect history`: the metrics of a run by step."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ckpt_inspect.output.screen import Screen

DESCRIPTION = """\
Show the metrics of a run by step, as a table and as charts: those of its
checkpoints, and those that were logged between them. Long tables are thinned;
charts are not, a spike of one step is seen in them."""

EXAMPLES = """\
examples:
  ckpt-inspect history runs/exp1                            everything
  ckpt-inspect history runs/exp1 --metric val.loss          one metric
  ckpt-inspect history runs/exp1 --plot loss.svg            drawn into a file
  ckpt-inspect history runs/exp1 --json | jq '.rows[-1]'    for programs"""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("run", metavar="RUN", help="the directory of a run")
    parser.add_argument("--metric", metavar="M", action="append", default=[], help="only this metric; may be given several times")
    parser.add_argument("--plot", metavar="FILE", help="draw into FILE.svg or FILE.html; FILE.png needs cairosvg")


def run(arguments: Namespace, screen: Screen) -> int:
    """Show the history of RUN."""
    from ckpt_inspect.histories import show_history

    return show_history(arguments.run, arguments.metric, arguments.plot, screen)
