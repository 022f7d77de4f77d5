"""Random generators of numpy: Generator with its bit generator and seed sequence, and RandomState. Spec 8.

A state is checked against a table before numpy sees it, because numpy takes positions as they are and would read
beyond its own words. The bit generators are a closed table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptfmt.state.decode_walk import DecodeWalk, Later, check_integer, check_items, check_kind
from ckptfmt.state.encode_walk import EncodeWalk
from ckptfmt.state.numpy_dtypes import require_numpy
from ckptfmt.state.places import SAME, Place, refuse, wrong

if TYPE_CHECKING:
    import numpy as np

MAX_POOL_SIZE = 1024

_MERSENNE_WORDS = 624
_WORD = (0, 2**32 - 1)
_WIDE = (0, 2**128 - 1)
_HALF_WORD = {"has_uint32": (0, 1), "uinteger": _WORD}
_STATES: dict[str, dict[str, Any]] = {
    "MT19937": {"state": {"key": ("uint32", _MERSENNE_WORDS), "pos": (0, _MERSENNE_WORDS)}},
    "PCG64": {"state": {"state": _WIDE, "inc": _WIDE}, **_HALF_WORD},
    "PCG64DXSM": {"state": {"state": _WIDE, "inc": _WIDE}, **_HALF_WORD},
    "Philox": {"state": {"counter": ("uint64", 4), "key": ("uint64", 2)}, "buffer": ("uint64", 4), "buffer_pos": (0, 4), **_HALF_WORD},
    "SFC64": {"state": {"state": ("uint64", 4)}, **_HALF_WORD},
}

# Seeding takes time that grows with the square of a number's length.
_MAX_ENTROPY_BITS = 2**16


def encode_generator(walk: EncodeWalk, generator: np.random.Generator, place: Place) -> dict[str, Any]:
    """Encode a Generator: name and state of its bit generator, and the seed sequence from which it can spawn."""
    import numpy

    bits = generator.bit_generator
    name = type(bits).__name__
    if name not in _STATES or type(bits) is not getattr(numpy.random, name):
        raise refuse(place, f"the bit generator {type(bits).__name__} cannot be stored", "Use one of " + ", ".join(_STATES) + ".")
    seeds: Any = bits.seed_seq
    payload = walk.content(bits.state, place, name)
    if seeds is None:
        payload.append(None)
    elif type(seeds) is not numpy.random.SeedSequence or seeds.pool_size > MAX_POOL_SIZE:
        raise refuse(place, f"the seed sequence {type(seeds).__name__} cannot be stored", "Use numpy.random.SeedSequence.")
    else:
        payload.append(_encode_seeds(walk, seeds, place))
    return {"$numpy_generator": payload}


def _encode_seeds(walk: EncodeWalk, seeds: Any, place: Place) -> list[Any]:
    encoded = walk.content(seeds.entropy, place)
    encoded.append(walk.array(seeds.spawn_key, place, step=SAME))
    encoded += (seeds.pool_size, seeds.n_children_spawned)
    return encoded


def decode_generator(walk: DecodeWalk, payload: Any, place: Place) -> Later:
    """Rebuild a Generator."""
    numpy = require_numpy(place)
    name, state, seeds = check_items(payload, 3, place)
    if check_kind(name, str, place) not in _STATES:
        raise wrong(place, "bit generator is wrong", expected=", ".join(_STATES), found=name)
    members = walk.content(state, place)
    entropy: list[Any] = []
    spawn_key: list[Any] = []
    pool_size = children = 0
    if seeds is not None:
        entropy = walk.content(check_items(seeds, 4, place)[0], place)
        spawn_key = walk.array(seeds[1], place, step=SAME)
        pool_size = check_integer(seeds[2], 4, MAX_POOL_SIZE, place)
        children = check_integer(seeds[3], 0, 2**32 - 1, place)

    def build(_: list[Any]) -> Any:
        bits = getattr(numpy.random, name)()
        if seeds is None and name == "MT19937":
            bits._legacy_seeding(0)
        elif seeds is not None:
            if not _is_entropy(entropy[0]) or not all(type(word) is int for word in spawn_key):
                raise wrong(place, "seed sequence is wrong", expected="integers")
            seed_sequence = numpy.random.SeedSequence(
                entropy[0], spawn_key=tuple(spawn_key), pool_size=pool_size, n_children_spawned=children
            )
            bits = getattr(numpy.random, name)(seed_sequence)
        check_state(members[0], place, name=name)
        bits.state = members[0]
        return numpy.random.Generator(bits)

    return Later([], build)


def encode_random_state(walk: EncodeWalk, generator: np.random.RandomState, place: Place) -> dict[str, Any]:
    """Encode a RandomState, which must be of the Mersenne twister."""
    name = generator.get_state(legacy=False)["bit_generator"]
    if name != "MT19937":
        raise refuse(place, f"a RandomState of {name} cannot be stored", "Use numpy.random.Generator.")
    return {"$numpy_random_state": walk.array(generator.get_state(), place)}


def decode_random_state(walk: DecodeWalk, payload: Any, place: Place) -> Later:
    """Rebuild a RandomState."""
    numpy = require_numpy(place)

    def build(members: list[Any]) -> Any:
        name, key, position, has_gauss, gauss = members
        state = {"bit_generator": name, "state": {"key": key, "pos": position}, "has_gauss": has_gauss, "gauss": gauss}
        check_state(state, place, name="MT19937", is_legacy=True)
        generator = numpy.random.RandomState(0)
        generator.set_state(tuple(members))
        return generator

    return Later(walk.array(check_items(payload, 5, place), place), build)


def check_state(state: Any, place: Place, *, name: str | None = None, is_legacy: bool = False) -> None:
    """Check the state of a bit generator, as `bit_generator.state` gives it, or as `get_state(legacy=False)` does."""
    found = state.get("bit_generator") if type(state) is dict else None
    if type(found) is not str or found not in _STATES or (name is not None and found != name):
        raise wrong(place, "bit generator is wrong", expected=name or ", ".join(_STATES), found=found)
    schema = {"bit_generator": str, **_STATES[found], **({"has_gauss": (0, 1), "gauss": float} if is_legacy else {})}
    _check_members(state, schema, place)


def _check_members(state: Any, schema: dict[str, Any], place: Place) -> None:
    import numpy

    if type(state) is not dict or state.keys() != schema.keys():
        raise wrong(place, "state of a generator is wrong", expected="members " + ", ".join(schema))
    for member, expected in schema.items():
        value = state[member]
        if type(expected) is dict:
            _check_members(value, expected, place)
        elif type(expected) is type:
            is_right = type(value) is expected
            if not is_right:
                raise wrong(place, f"{member} of a generator is wrong", expected=expected.__name__, found=value)
        elif type(expected[0]) is int:
            check_integer(value, expected[0], expected[1], place)
        elif type(value) is not numpy.ndarray or value.dtype != expected[0] or value.shape != (expected[1],):
            raise wrong(place, f"{member} of a generator is wrong", expected=f"{expected[1]} words of {expected[0]}")


def _is_entropy(entropy: Any) -> bool:
    import numpy

    if type(entropy) in (list, tuple):
        return all(type(word) is int or isinstance(word, numpy.integer) for word in entropy)
    if type(entropy) is int:
        return entropy.bit_length() <= _MAX_ENTROPY_BITS
    return type(entropy) is numpy.ndarray and entropy.dtype.kind in "iu"
