"""Where a command writes: the stream, how wide it is, and what the global options ask for."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TextIO

from ckpt_inspect.output.style import PLAIN, Style, style_for

SCHEMA_VERSION = 1
DEFAULT_WIDTH = 80
_MIN_WIDTH = 40
_WHOLE_WIDTH = 100_000


@dataclass(frozen=True, slots=True)
class Screen:
    """`width` is None where nobody sees a right edge (a pipe or a file): lines are laid out for 80 columns, names are not cut."""

    stream: TextIO
    width: int | None = None
    style: Style = PLAIN
    is_json: bool = False
    is_quiet: bool = False
    verbosity: int = 0
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def layout_width(self) -> int:
        """The columns to break text in."""
        return self.width or DEFAULT_WIDTH

    @property
    def cut_width(self) -> int:
        """The columns after which text is cut: with -v nothing is."""
        return _WHOLE_WIDTH if self.verbosity else self.layout_width

    @property
    def is_ascii(self) -> bool:
        """Whether the stream has no characters but those of ASCII for sure."""
        return not (self.stream.encoding or "").lower().startswith("utf")

    def write_lines(self, lines: Iterable[str]) -> None:
        """Write lines for people. With -q they are made, because that may check something, and not written."""
        for line in lines:
            if not self.is_quiet:
                self.stream.write(line.rstrip() + "\n")

    def write_document(self, document: Mapping[str, Any]) -> None:
        """Write the one JSON document of a command, indented where people see it.

        ASCII only, so that no name can act on a terminal; and as a whole, so that a failure leaves no half of one.
        """
        self._write_json(document, indent=2 if self.stream.isatty() else None)

    def write_line_document(self, document: Mapping[str, Any]) -> None:
        """Write one of several JSON documents, each on a line; `message_type` says what it is about."""
        self._write_json(document, indent=None)

    def _write_json(self, document: Mapping[str, Any], *, indent: int | None) -> None:
        text = json.dumps({"schema_version": SCHEMA_VERSION, **document}, indent=indent, ensure_ascii=True, allow_nan=False)
        self.stream.write(text + "\n")


def standard_screen(*, is_json: bool, is_quiet: bool, verbosity: int) -> Screen:
    """Return the screen of standard output. COLUMNS sets the width also where it is no terminal."""
    stream = sys.stdout
    return Screen(stream, _width_of(stream), style_for(stream), is_json, is_quiet, verbosity)


def _width_of(stream: TextIO) -> int | None:
    width = os.environ.get("COLUMNS", "")
    if width.isascii() and width.isdigit() and int(width[:6]) > 0:
        return max(int(width[:6]), _MIN_WIDTH)
    if not stream.isatty():
        return None
    try:
        found = os.get_terminal_size(stream.fileno()).columns
    except OSError:
        return None
    return max(found, _MIN_WIDTH) if found else None
