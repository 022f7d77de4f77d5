"""What a command is, and the parser of its arguments. The registry lists them, the completion of shells is made from their parsers."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from typing import NamedTuple, NoReturn, Protocol

from ckpt_inspect.output.exit_status import COULD_NOT_RUN
from ckpt_inspect.output.messages import PROGRAM, report_error
from ckpt_inspect.output.screen import Screen


class CommandModule(Protocol):
    """What a file in `commands/` offers."""

    DESCRIPTION: str
    EXAMPLES: str

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the command's own arguments."""

    def run(self, arguments: Namespace, screen: Screen) -> int:
        """Do it, and return the exit status. `arguments.commands` are all commands."""


class Command(NamedTuple):
    """A command as the overview shows it."""

    name: str
    synonyms: tuple[str, ...]
    operands: str
    summary: str
    load: Callable[[], CommandModule]


class _Parser(ArgumentParser):
    """A parser whose messages are safe to print: what is wrong may be a file name that a glob has put there."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        report_error(message)
        self.exit(COULD_NOT_RUN)


def make_parser(command: Command) -> ArgumentParser:
    """Return the parser of a command, with the options of every command."""
    module = command.load()
    parser = _Parser(
        prog=f"{PROGRAM} {command.name}",
        description=module.DESCRIPTION,
        epilog=module.EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    group = parser.add_argument_group("options of every command")
    group.add_argument("--json", action="store_true", help="one JSON document on standard output")
    group.add_argument("-q", "--quiet", action="store_true", help="nothing but errors: the exit status tells")
    group.add_argument("-v", "--verbose", action="count", default=0, help="exact sizes, whole digests, long lists in full")
    group.add_argument("--debug", action="store_true", help="errors with their traceback")
    return parser
