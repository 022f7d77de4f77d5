"""Small states with many shards, made from a number; two states are the same if every bit is.

No tensor of one number has the content of another's, except those that `shared` names: a save with a base links these.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ckptfmt.state.tree import EncodedState, encode_state

State = dict[str, Any]


@cache
def make_state(number: int, *, tensor_count: int = 3, shared: int | None = None, tiled: int = 1) -> State:
    """Return a state of two sections and a value; the model's even tensors are those of the state `shared`, if one is given.

    With `tiled` each tensor repeats its numbers, so that it is worth compressing.
    """

    def array(name: int, dtype: str, *, is_shared: bool) -> Any:
        origin = shared if is_shared and shared is not None else number
        return np.tile(np.random.default_rng([origin, name]).integers(1, 100, size=12 + name).astype(dtype), tiled)

    model = {f"w{name}": array(name, "<f8", is_shared=name % 2 == 0) for name in range(tensor_count)}
    model["tied"] = model["w0"]
    return {"model": model, "optimizer": {"momentum": array(tensor_count, "<f4", is_shared=False)}, "epoch": number}


@cache
def encoded(number: int, *, tensor_count: int = 3, shared: int | None = None, tiled: int = 1) -> EncodedState:
    """Return such a state as the writer takes it."""
    return encode_state(make_state(number, tensor_count=tensor_count, shared=shared, tiled=tiled))


def is_same(found: Any, expected: Any) -> bool:
    """Tell whether two states are equal to the bit."""
    if type(found) is not type(expected):
        return False
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(is_same(found[key], expected[key]) for key in expected)
    if isinstance(expected, np.ndarray):
        return found.dtype == expected.dtype and found.shape == expected.shape and found.tobytes() == expected.tobytes()
    return bool(found == expected)
