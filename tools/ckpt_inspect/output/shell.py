"""Text as a shell takes it: what is copied from a page or a screen into a terminal means exactly the path that it shows."""

from __future__ import annotations

import shlex


def shell_quoted(text: str) -> str:
    """Return a text as one word of a shell; what is not printable as an escape that bash, zsh and fish's `printf` know."""
    if text.isprintable():
        return shlex.quote(text)
    escaped = "".join(_escaped(character) for character in text)
    return f"$'{escaped}'"


def _escaped(character: str) -> str:
    if character in "'\\":
        return f"\\{character}"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def command_line(*words: str) -> str:
    """Return words as one line for a shell."""
    return " ".join(map(shell_quoted, words))
