"""Which run of a tensor's first dimension an index needs: what has to be decoded of an encoded tensor for a slice. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class LeadingRun:
    """The elements `begin` to `end` of the first dimension, and the index that gives of them what was asked of the whole."""

    begin: int
    end: int
    index: Any


def find_leading_run(index: Any, length: int) -> LeadingRun | None:
    """Return the run that an index needs of a first dimension of this length; None where that takes knowing more."""
    first, *rest = index if isinstance(index, tuple) and index else (index,)
    if isinstance(first, slice):
        try:
            chosen = range(*first.indices(length))
        except TypeError:
            return None
        ends = sorted((chosen[0], chosen[-1])) if chosen else (0, -1)
        return LeadingRun(ends[0], ends[1] + 1, (slice(None, None, chosen.step), *rest))
    if type(first) is int and -length <= first < length:
        begin = first % length
        return LeadingRun(begin, begin + 1, (0, *rest))
    return None
