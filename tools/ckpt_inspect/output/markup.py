"""HTML and SVG, built so that no text can become markup: whatever is not `Markup` already is escaped.

Characters that act on what surrounds them (control characters, bidirectional marks) are made visible first, as on a terminal.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from ckpt_inspect.output.visible import cut_middle, visible

_MAX_NAME = 48
_VOID = frozenset({"br", "input", "meta"})


class Markup(str):
    """Text that is HTML. Only this module makes it from other text."""

    __slots__ = ()


Content = str | Markup | Iterable["Content"] | None


def text(value: str) -> Markup:
    """Return a text of any origin as HTML."""
    return value if isinstance(value, Markup) else Markup(html.escape(visible(value), quote=True))


def trusted(value: str) -> Markup:
    """Return text of this program, never of a file, as HTML that it already is."""
    return Markup(value)


def join(content: Content) -> Markup:
    """Return everything in order as one piece of HTML."""
    if content is None:
        return Markup("")
    if isinstance(content, str):
        return text(content)
    return Markup("".join(map(join, content)))


def element(tag: str, /, *content: Content, **attributes: str | int | float | bool | None) -> Markup:
    """Return an element. An attribute that is a keyword of Python ends with `_`; `_` within a name is `-`; None and False are left out."""
    written = "".join(
        f" {_attribute_name(key)}" if value is True else f' {_attribute_name(key)}="{_attribute_value(value)}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{join(content)}</{tag}>")


def _attribute_name(key: str) -> str:
    return key.removesuffix("_").replace("_", "-")


def _attribute_value(value: str | int | float) -> str:
    return text(value) if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


def named(value: str) -> Markup:
    """Return a text from a file: its direction of writing stays its own."""
    return element("bdi", value)


def short_named(value: str) -> Markup:
    """Return a name from a file, without its middle where it is long; it is there whole when pointed at."""
    shown = visible(value)
    short = cut_middle(shown, _MAX_NAME)
    return element("bdi", short, title=shown if short != shown else None)
