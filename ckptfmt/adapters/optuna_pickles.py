"""Optuna's CMA-ES keeps its optimizer as a pickle in attributes of trials, and unpickles it when it suggests.

Nothing is unpickled here. Before such an attribute that comes from a file is handed to Optuna, its instructions are read: every name
that it would import must be on a list of what an optimizer is made of. Anything else is left out, with a warning, and CMA-ES goes on
from an earlier optimizer or begins a new one. Instructions: https://docs.python.org/3/library/pickletools.html
"""

from __future__ import annotations

import pickletools
import re
from typing import Any

from ckptfmt.run.notices import warn

_KEY = re.compile(r"(cma|sepcma|cmawm):optimizer:(\d+)")
_ALLOWED = frozenset(
    {
        ("cmaes._cma", "CMA"),
        ("cmaes._cmawm", "CMAwM"),
        ("cmaes._sepcma", "SepCMA"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
    }
)
# Instructions that import in other ways, or hand something to the application.
_REFUSED = frozenset({"GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER"})
_TEXTS = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"})


def without_foreign_pickles(attributes: dict[str, Any], number: int) -> dict[str, Any]:
    """Return the system attributes of a trial without optimizers that hold anything but an optimizer."""
    texts: dict[str, dict[int, Any]] = {}
    for key, value in attributes.items():
        if found := _KEY.fullmatch(key):
            texts.setdefault(found[1], {})[int(found[2])] = value
    kept = attributes
    for prefix, pieces in texts.items():
        problem = _find_problem([pieces[place] for place in sorted(pieces)])
        if problem is not None:
            warn(f"trial {number}: its stored {prefix} optimizer is left out, and begins anew: {problem}")
            kept = {key: value for key, value in kept.items() if not key.startswith(f"{prefix}:optimizer:")}
    return kept


def _find_problem(pieces: list[Any]) -> str | None:
    try:
        data = bytes.fromhex("".join(pieces))
        return find_foreign_name(data)
    except (TypeError, ValueError) as error:
        return f"not the pickle of an optimizer ({error})"


def find_foreign_name(data: bytes) -> str | None:
    """Return what a pickle would import that is no part of an optimizer, None where there is no such thing.

    A name is accepted only where it is pushed, as two texts, right before the import, so that the stack need not be followed.
    """
    memory: list[str | None] = []
    pushed: list[str | None] = []
    for instruction, argument, _ in pickletools.genops(data):
        name = instruction.name
        if name == "MEMOIZE":
            memory.append(pushed[-1] if pushed else None)
            continue
        if name in _REFUSED or name.endswith("PUT"):
            return f"instruction {name}"
        if name == "STACK_GLOBAL":
            imported = tuple(pushed[-2:])
            if imported not in _ALLOWED:
                return f"it imports {'.'.join(str(part) for part in imported)}"
        if name in _TEXTS:
            pushed.append(argument)
        elif name in ("BINGET", "LONG_BINGET"):
            pushed.append(memory[argument] if type(argument) is int and argument < len(memory) else None)
        elif name != "FRAME":
            pushed = [None]
    return None
