"""One command with its arguments: parsing, running, and what to report when it fails."""

from __future__ import annotations

import sys
import traceback
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence

from ckpt_inspect.output.exit_status import COULD_NOT_RUN
from ckpt_inspect.output.messages import PROGRAM, report_error
from ckpt_inspect.output.screen import standard_screen
from ckpt_inspect.registry import Command


def run_command(command: Command, words: Sequence[str]) -> int:
    """Run a command with the words that follow it on the command line.

    Raises:
        SystemExit: help was asked for, or the arguments are wrong (status 2).
    """
    module = command.load()
    parser = ArgumentParser(
        prog=f"{PROGRAM} {command.name}",
        description=module.DESCRIPTION,
        epilog=module.EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    _add_global_arguments(parser)
    arguments = parser.parse_args(words)
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
        traceback.print_exception(error, file=sys.stderr)
        return status_of(error)
    if is_expected(error):
        report_error(message_of(error))
        return status_of(error)
    report_error(f"{type(error).__name__}: {message_of(error)}\nThis is a defect of {PROGRAM}; --debug shows where.")
    return COULD_NOT_RUN
