"""One command with its arguments: parsing, running, and what to report when it fails."""

from __future__ import annotations

import sys
import traceback
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import NoReturn

from ckpt_inspect.output.exit_status import COULD_NOT_RUN, FINE
from ckpt_inspect.output.messages import PROGRAM, report_error
from ckpt_inspect.output.screen import standard_screen
from ckpt_inspect.output.visible import visible
from ckpt_inspect.registry import COMMANDS, Command


class _Parser(ArgumentParser):
    """A parser whose messages are safe to print: what is wrong may be a file name that a glob has put there."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        report_error(message)
        self.exit(COULD_NOT_RUN)


def run_command(command: Command, words: Sequence[str]) -> int:
    """Run a command with the words of the command line that are its own, and return the exit status."""
    module = command.load()
    parser = _Parser(
        prog=f"{PROGRAM} {command.name}",
        description=module.DESCRIPTION,
        epilog=module.EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    _add_global_arguments(parser)
    # For those that tell about the others: a command cannot import the registry that imports it.
    parser.set_defaults(commands=COMMANDS)
    try:
        arguments = parser.parse_args(words)
    except SystemExit as exited:
        # Help was asked for and shown, or the arguments are wrong and argparse has said so.
        return int(exited.code or FINE)
    screen = standard_screen(is_json=arguments.json, is_quiet=arguments.quiet, verbosity=arguments.verbose)
    try:
        return module.run(arguments, screen)
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except Exception as error:  # noqa: BLE001 - the one place where any failure becomes a message and never the status of a finding
        return _report(error, arguments)


def _add_global_arguments(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("options of every command")
    group.add_argument("--json", action="store_true", help="one JSON document on standard output")
    group.add_argument("-q", "--quiet", action="store_true", help="nothing but errors: the exit status tells")
    group.add_argument("-v", "--verbose", action="count", default=0, help="exact sizes, whole digests, long lists in full")
    group.add_argument("--debug", action="store_true", help="errors with their traceback")


def _report(error: Exception, arguments: Namespace) -> int:
    from ckpt_inspect.failures import is_expected, message_of, status_of

    if arguments.debug:
        text = "".join(traceback.format_exception(error))
        sys.stderr.write("".join(f"{visible(line)}\n" for line in text.splitlines()))
        return status_of(error)
    if is_expected(error):
        report_error(message_of(error))
        return status_of(error)
    report_error(f"{type(error).__name__}: {message_of(error)}\nThis is a defect of {PROGRAM}; --debug shows where.")
    return COULD_NOT_RUN
