"""Text from files, made safe to print and measured in columns.

Names in a checkpoint may hold any character that the format allows, names in a foreign file any at all. Whatever a
terminal could act on (control characters, escape sequences) or that would change how its surroundings read
(bidirectional marks, invisible characters, line separators) is shown as an escape. Spec 14.
"""

from __future__ import annotations

import unicodedata

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_CUT = "..."


def visible(text: str) -> str:
    """Return the text with everything but printable characters as an escape: `\\n`, `\\x1b`, `\\u202e`."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x100:
        return _SHORT.get(character, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def columns(text: str) -> int:
    """Return how many columns of a terminal a visible text takes."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


def _columns_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def cut_end(text: str, width: int) -> str:
    """Return a visible text, its end left out where it takes more columns than `width`."""
    if columns(text) <= width:
        return text
    return _first(text, width - len(_CUT)) + _CUT[: max(width, 0)]


def cut_middle(text: str, width: int) -> str:
    """Return a visible text, its middle left out where it is too wide: the ends of a path tell more."""
    if columns(text) <= width:
        return text
    kept = width - len(_CUT)
    if kept < 2:
        return cut_end(text, width)
    tail = _first(text[::-1], kept - kept // 3)[::-1]
    return _first(text, kept // 3) + _CUT + tail


def _first(text: str, width: int) -> str:
    taken = 0
    for index, character in enumerate(text):
        taken += 1 if character.isascii() else _columns_of(character)
        if taken > width:
            return text[:index]
    return text


def padded(text: str, width: int, *, align: str = "<") -> str:
    """Return a visible text filled with spaces to `width` columns, at its left if `align` is ">"."""
    filling = " " * max(width - columns(text), 0)
    return filling + text if align == ">" else text + filling
