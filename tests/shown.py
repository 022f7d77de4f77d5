"""Names for parametrised values: their repr, without the addresses that differ from process to process."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def shown(value: object) -> str:
    """Return a name that is the same in every process that collects the tests; members of sets are in no order, so they are left out."""
    text = _ADDRESS.sub("", repr(value))
    return type(value).__name__ if isinstance(value, (set, frozenset)) else text[:120]
