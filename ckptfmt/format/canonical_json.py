"""JSON as this format writes it, and the strict subset that it reads. Spec 4.

Written: ASCII, sorted keys, one space of indentation, so that equal values are equal bytes. Read: no duplicate
keys, no NaN or Infinity, no number that a double or 64-bit integer cannot hold, no half of a surrogate pair, bounded nesting.
"""

from __future__ import annotations

import json
import math
from typing import Any

from ckptfmt.format.layout import MAX_INTEGER
from ckptfmt.format.rules import violation


def encode(value: Any) -> bytes:
    """Encode with sorted keys, one space of indentation and a final newline."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")


def decode(data: bytes, *, where: str, rule: str, max_depth: int, ascii_only: bool = True) -> Any:
    """Decode one strict JSON document; anything else is a violation of `rule`."""

    def refuse(what: str) -> Exception:
        return violation(rule, where, what)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise refuse(f"not strict JSON: key {twice[:80]!r} stands twice in one object")
        return members

    def constant(text: str) -> Any:
        raise refuse(f"not strict JSON: {text} is not a number of JSON")

    def floating(text: str) -> float:
        number = float(text)
        if not math.isfinite(number):
            raise refuse(f"not strict JSON: number {text[:40]} is out of range")
        return number

    def integer(text: str) -> int:
        number = int(text) if len(text) <= 20 else MAX_INTEGER
        if not -MAX_INTEGER <= number < MAX_INTEGER:
            raise refuse(f"not strict JSON: number {text[:40]} is out of range")
        return number

    try:
        text = data.decode("ascii" if ascii_only else "utf-8")
        value = json.loads(text, object_pairs_hook=unique, parse_constant=constant, parse_float=floating, parse_int=integer)
    except UnicodeDecodeError as error:
        raise refuse(f"not strict JSON: byte {error.start} is not {'ASCII' if ascii_only else 'UTF-8'}") from None
    except json.JSONDecodeError as error:
        raise refuse(f"not strict JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise refuse(f"not strict JSON: nested deeper than {max_depth}") from None
    if is_deeper(value, max_depth):
        raise refuse(f"not strict JSON: nested deeper than {max_depth}")
    if has_lone_surrogate(text, value):
        raise refuse("not strict JSON: a string holds half of a surrogate pair")
    return value


def has_lone_surrogate(text: str, value: Any) -> bool:
    """Tell whether a string in `value`, decoded from `text`, is no Unicode text; `\\ud800` is legal JSON all the same."""
    if "\\ud" not in text and "\\uD" not in text:
        return False
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def is_deeper(value: Any, max_depth: int) -> bool:
    """Tell whether a value of dicts and lists has members on more levels; the value itself is level 0."""
    level = [value]
    for _ in range(max_depth + 1):
        below: list[Any] = []
        for item in level:
            if type(item) is dict:
                below.extend(item.values())
            elif type(item) is list:
                below.extend(item)
        if not below:
            return False
        level = below
    return True
