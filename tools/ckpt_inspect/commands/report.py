"""`ckpt-inspect report`: a run on one page."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ckpt_inspect.output.screen import Screen

DESCRIPTION = """\
Write a page on a run: where it stands, charts of its metrics, its checkpoints
with their sizes, studies and units of work, what verifying found, its
fingerprint, and the commands to go on from there. The page is one file that
needs no network and runs no script. It can be mailed, archived and printed."""

EXAMPLES = """\
examples:
  ckpt-inspect report runs/exp1 -o exp1.html
  ckpt-inspect report runs/exp1 -o exp1.html --verify full   every byte
  ckpt-inspect report runs/exp1 -o - | gzip > exp1.html.gz

A report replaces an older report; any other file only with --force.

exit status: 0 written, 2 could not run, 10 not found."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("run", metavar="RUN", help="the directory of a run")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="where to write it; - is standard output")
    parser.add_argument("--verify", choices=("quick", "full", "none"), default="quick", help="how to verify it first (default quick)")
    parser.add_argument("--force", action="store_true", help="replace a file that is no report")


def run(arguments: Namespace, screen: Screen) -> int:
    """Write the report of RUN."""
    from ckpt_inspect.reporting import write_report

    names = [command.name for command in arguments.commands]
    return write_report(arguments.run, arguments.output, arguments.verify, names, screen, overwrite=arguments.force)
