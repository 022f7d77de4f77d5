"""`ckpt-inspect doctor`: what a file system can promise."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ckpt_inspect.output.screen import Screen

DESCRIPTION = """\
Find out what the file system under DIR can promise, by trying: renames, links,
locks between processes, fsync of files and directories, direct writing, names,
clocks and space. It happens in a scratch directory inside DIR that is removed
afterwards, and takes about a second. Each answer is told with what it means."""

EXAMPLES = """\
examples:
  ckpt-inspect doctor runs                      before a long training
  ckpt-inspect doctor /mnt/drive                a mounted drive
  ckpt-inspect doctor -q . || echo "not here"   for scripts
  ckpt-inspect doctor . --json | jq .broken_promises

exit status: 0 every promise can be kept, 1 not every one (P1 to P8 stand in the
README), 2 could not run, 10 not found."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("directory", metavar="DIR", help="a directory in which something can be written")


def run(arguments: Namespace, screen: Screen) -> int:
    """Try out DIR."""
    from ckpt_inspect.diagnosis import diagnose

    return diagnose(arguments.directory, screen)
