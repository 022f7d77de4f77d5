"""One command with its arguments: parsing, running, and what to report when it fails."""

from __future__ import annotations

import sys
import traceback
from argparse import Namespace
from collections.abc import Sequence

from ckpt_inspect.command import Command, make_parser
from ckpt_inspect.output.exit_status import COULD_NOT_RUN, FINE
from ckpt_inspect.output.messages import PROGRAM, report_error
from ckpt_inspect.output.screen import standard_screen
from ckpt_inspect.output.visible import visible
from ckpt_inspect.registry import COMMANDS


def run_command(command: Command, words: Sequence[str]) -> int:
    """Run a command with the words of the command line that are its own, and return the exit status."""
    module, parser = command.load(), make_parser(command)
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
