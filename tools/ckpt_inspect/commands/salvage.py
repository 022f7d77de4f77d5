"""`ckpt-inspect salvage`: go on with the sound records of a damaged journal, and keep the damaged files."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ckpt_inspect.output.screen import Screen

DESCRIPTION = """\
Make damaged journals usable again: of a run's history, progress and studies.
The records before the damage become a new journal, and every damaged file
stays beside it as set-aside-*. Of a progress also the records behind the
damage are taken that are sound by themselves: a unit is a unit wherever it
stands. Sound journals stay as they are. Nothing is done unasked."""

EXAMPLES = """\
examples:
  ckpt-inspect verify runs/exp1                   what is damaged, and where
  ckpt-inspect salvage runs/exp1/history -n       what would be kept
  ckpt-inspect salvage runs/exp1/history          asks first
  ckpt-inspect salvage runs/exp1/progress/calls -y

exit status: 0 all journals are sound now, 1 damaged ones are left (with -n or
after a no), 2 could not run, 10 not found, 11 somebody writes to it."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("path", metavar="PATH", help="a journal, a progress, a study or a run")
    parser.add_argument("-n", "--dry-run", action="store_true", help="only show what would be kept")
    parser.add_argument("-y", "--yes", action="store_true", help="do it without asking")


def run(arguments: Namespace, screen: Screen) -> int:
    """Salvage what is damaged under PATH."""
    from ckpt_inspect.cleaning import Answer
    from ckpt_inspect.salvaging import salvage_journals
    from ckpt_inspect.sources.location import without_final_slash

    answer = Answer.ONLY_SHOW if arguments.dry_run else Answer.YES if arguments.yes else Answer.ASK
    return salvage_journals(without_final_slash(arguments.path), answer, screen)
