"""The entry: finds the command, parses its arguments, turns what happens into an exit status.

Nothing of ckptfmt is imported before a command is chosen, so that help comes at once.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

from ckpt_inspect.command import Command
from ckpt_inspect.output.exit_status import COULD_NOT_RUN, FINE, INTERRUPTED, PIPE_CLOSED
from ckpt_inspect.registry import COMMANDS, find_command

_GLOBAL_FLAGS = ("--json", "-q", "--quiet", "-v", "-vv", "--verbose", "--debug")

_HELP_OPTIONS = """\
options of every command:
  --json          one JSON document with "schema_version" on standard output;
                  members may be added, none changes its meaning
  -q, --quiet     nothing but errors: the exit status tells
  -v, --verbose   exact sizes, whole digests, long lists in full
  --debug         errors with their traceback
  --version       the version, and the format that it reads
  -h, --help      this, or `ckpt-inspect COMMAND --help`
"""

_HELP_EXAMPLES = """\
examples:
  ckpt-inspect runs/exp1                      the checkpoints of a run
  ckpt-inspect runs/exp1/step-00001200        one of them
  ckpt-inspect model.safetensors              a file from anywhere
  ckpt-inspect verify runs/exp1               is every byte as it was written?

exit status: 0 fine, 1 the check found something, 2 could not run,
10 not found, 11 locked, 130 interrupted. Anything else is a failure.
A COLUMNS variable sets the width, NO_COLOR turns colours off.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit status."""
    if argv is None:
        # One command, and the process ends. Walking an index of 50,000 tensors again and again while it grows would take
        # half of the time that it takes to read it.
        gc.disable()
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        # A name that the output's encoding lacks is shown as an escape; nothing that can be looked at is an error.
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        status = _dispatch(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes standard output once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def _dispatch(words: list[str]) -> int:
    first = next((index for index, word in enumerate(words) if word not in _GLOBAL_FLAGS), None)
    if first is None:
        sys.stderr.write(_help())
        return COULD_NOT_RUN
    word = words[first]
    if word in ("-h", "--help", "help"):
        named = find_command(words[first + 1]) if len(words) > first + 1 else None
        if named is None:
            sys.stdout.write(_help())
            return FINE
        return _run(named, ["--help"])
    if word == "--version":
        return _show_version()
    command = find_command(word)
    if command is not None:
        return _run(command, words[:first] + words[first + 1 :])
    if _is_like_a_command(word):
        _report_unknown(word)
        return COULD_NOT_RUN
    return _run(COMMANDS[0], words)


def _is_like_a_command(word: str) -> bool:
    """Tell whether a word that is no command was meant as one: plain letters, and nothing of that name."""
    return word.isascii() and word.replace("-", "").isalpha() and not word.startswith("-") and not os.path.lexists(word)


def _report_unknown(word: str) -> None:
    from difflib import get_close_matches

    from ckpt_inspect.output.messages import report_error

    names = [name for command in COMMANDS for name in (command.name, *command.synonyms)]
    near = get_close_matches(word, names, n=1)
    advice = f"Did you mean {near[0]}?" if near else f"Commands are {', '.join(command.name for command in COMMANDS)}; see --help."
    report_error(f"{word!r} is neither a command nor an existing path\n{advice}")


def _run(command: Command, words: list[str]) -> int:
    from ckpt_inspect.command_line import run_command

    return run_command(command, words)


def _show_version() -> int:
    from ckptfmt._version import __version__
    from ckptfmt.format.layout import VERSION

    sys.stdout.write(f"ckpt-inspect {__version__} (format {VERSION[0]}.{VERSION[1]})\n")
    return FINE


def _help() -> str:
    calls = [(f"{command.name} {command.operands}", command.summary, command.synonyms) for command in COMMANDS]
    width = max(len(call) for call, _, _ in calls)
    lines = [f"  {call:{width}}  {summary}" + (f" ({', '.join(synonyms)})" if synonyms else "") for call, summary, synonyms in calls]
    return (
        "usage: ckpt-inspect [COMMAND] PATH [options]\n\n"
        "Look at checkpoints and verify them. PATH alone means `inspect PATH`.\n\n"
        "commands (and synonyms):\n" + "\n".join(lines) + "\n\n" + _HELP_OPTIONS + "\n" + _HELP_EXAMPLES
    )
