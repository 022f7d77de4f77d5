"""Where a value stands in the state: its path for people, its path in the format, its depth.

A place is a link to the place above and one step; texts are made only when somebody asks, because most places are never
named. For people a path reads like Python (`optimizer.state[0]['hook']`); in the format it is a tuple of texts (spec 8),
made after the tree is encoded, when every mapping key has its packed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ckptfmt.errors import FormatError, UnsupportedTypeError
from ckptfmt.format.layout import MAX_RANK, MAX_STATE_DEPTH
from ckptfmt.format.rules import violation
from ckptfmt.format.tree_walk import key_text

ROOT_TEXT: Final = "state"
MAX_SHOWN_KEY = 60
MAX_SHOWN_PATH = 100

SAME: Final[Any] = object()
"""The step of a value that has the path of what holds it: a key, an element of a set, the content of a registered value."""


class PackedKey:
    """The step to the value of a mapping key whose packed form is not known yet: `pairs[index]`, once all is encoded."""

    __slots__ = ("index", "key", "pairs")

    def __init__(self, key: Any, pairs: list[Any], index: int) -> None:
        self.key = key
        self.pairs = pairs
        self.index = index


class Place:
    """One value's position. `level` counts from 0 at the root; `is_key` says that it must be hashable and hold no tensor."""

    __slots__ = ("_names", "above", "is_key", "level", "step")

    def __init__(self, above: Place | None, step: Any, level: int, is_key: bool) -> None:  # noqa: FBT001  Made for every value.
        self.above = above
        self.step = step
        self.level = level
        self.is_key = is_key
        self._names: tuple[str, ...] | None = None

    def names(self) -> tuple[str, ...]:
        """Return the path of the format: keys as text, positions as decimal numbers. Only valid after encoding."""
        return () if self.above is None else names_below(self.above, self.step)

    def text(self) -> str:
        """Return the path as people write it: `model['layer.0.weight']`; the root is `state`."""
        steps = []
        place: Place | None = self
        while place is not None and place.above is not None:
            if place.step is not SAME and not place.is_key:
                steps.append(place.step)
            place = place.above
        text = ""
        is_dotted = True
        for step in reversed(steps):
            is_dotted = is_dotted and type(step) is str and step.isidentifier()
            if is_dotted:
                text += f".{step}" if text else step
            else:
                text = (text or ROOT_TEXT) + f"[{_shown(step)}]"
        return text or ROOT_TEXT


def names_below(above: Place, step: Any) -> tuple[str, ...]:
    """Return the path of the format of what is one step below a place. Only valid after encoding."""
    names = above._names
    if names is None:
        names = above._names = above.names()
    if step is SAME:
        return names
    if type(step) is not str:
        step = _key_text(step.pairs[step.index] if type(step) is PackedKey else step)
    return (*names, step)


def names_below_all(aboves: Sequence[Place | None], steps: Sequence[Any]) -> list[tuple[str, ...]]:
    """Return the paths of the format of many places, of which neighbours often stand below the same one."""
    paths = []
    last: Place | None = None
    names: tuple[str, ...] = ()
    for above, step in zip(aboves, steps, strict=True):
        if above is not last and above is not None:
            last, names = above, names_below(above, SAME)
        paths.append((*names, step) if type(step) is str or last is None else names_below(last, step))
    return paths


def root_place() -> Place:
    """Return the place of the state itself."""
    return Place(None, None, 0, False)


def too_deep(place: Place) -> FormatError:
    """Return the error for a value that is nested too deeply."""
    text = place.text()
    advice = "A structure that contains itself has no end."
    error = violation("E026", cut_path(text), expected=f"at most {MAX_STATE_DEPTH} levels", advice=advice)
    error.path = text
    return error


def too_large(shape: tuple[int, ...], place: Place) -> FormatError:
    """Return the error for a tensor of more or longer axes than the format allows."""
    text = place.text()
    error = violation("E036", cut_path(text), expected=f"at most {MAX_RANK} axes of less than 2^48", found=f"{len(shape)} axes")
    error.path = text
    return error


def refuse(place: Place, what: str, advice: str) -> UnsupportedTypeError:
    """Return the error for a value that cannot be stored or rebuilt, ready to be raised."""
    text = place.text()
    return UnsupportedTypeError(f"{cut_path(text)}: {what}\n{advice}", path=text)


def wrong(place: Place, what: str, *, expected: Any = None, found: Any = None, rule: str = "E027") -> FormatError:
    """Return the error for packed values that break a rule of spec 8 or 9, ready to be raised."""
    text = place.text()
    error = violation(rule, cut_path(text), what, expected=expected, found=found if found is None else _described(found))
    error.path = text
    return error


def cut(text: str, limit: int = MAX_SHOWN_KEY) -> str:
    """Return the text, shortened to fit a message."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def cut_path(text: str) -> str:
    """Return the path, shortened in its middle to fit the first line of a message."""
    return text if len(text) <= MAX_SHOWN_PATH else text[:60] + " ... " + text[-35:]


def _described(found: Any) -> str:
    if type(found) in (str, bytes):
        return cut(repr(found[:MAX_SHOWN_KEY]))
    if found is None or type(found) in (bool, float) or (type(found) is int and found.bit_length() <= 64):
        return repr(found)
    if type(found) in (list, dict):
        return f"{type(found).__name__} of {len(found)}"
    return type(found).__name__


def _shown(step: Any) -> str:
    key = step.key if type(step) is PackedKey else step
    if type(key) is int and key.bit_length() > 1024:
        return f"<int of {key.bit_length()} bits>"
    if key is None or type(key) in (bool, int, float, str, bytes):
        return cut(repr(key))
    if type(key) is dict:
        return cut(_key_text(key))
    return f"<{type(key).__name__}>"


def _key_text(packed: Any) -> str:
    try:
        return key_text(packed)
    except RecursionError:
        return "key"
