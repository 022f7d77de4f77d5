"""A little colour: only on a terminal that shows it, never when NO_COLOR is set. https://no-color.org"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TextIO


class Style:
    """Wraps text in colours, or leaves it as it is."""

    def __init__(self, *, is_enabled: bool) -> None:
        self.is_enabled = is_enabled

    def _wrapped(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.is_enabled and text else text

    def bold(self, text: str) -> str:
        """Titles."""
        return self._wrapped(text, "1")

    def dim(self, text: str) -> str:
        """Labels, and what is there for completeness."""
        return self._wrapped(text, "2")

    def red(self, text: str) -> str:
        """Damage."""
        return self._wrapped(text, "31")

    def yellow(self, text: str) -> str:
        """Warnings."""
        return self._wrapped(text, "33")

    def green(self, text: str) -> str:
        """What was checked and is sound."""
        return self._wrapped(text, "32")


PLAIN = Style(is_enabled=False)


def style_for(stream: TextIO, environment: Mapping[str, str] = os.environ) -> Style:
    """Return the style for what is written to a stream."""
    is_dumb = environment.get("TERM", "") in ("dumb", "")
    return Style(is_enabled=stream.isatty() and not environment.get("NO_COLOR") and not is_dumb)
