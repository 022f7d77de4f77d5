"""Any state that can be stored comes back exactly: encode, pack, unpack, decode."""

from __future__ import annotations

import argparse
import random
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import timedelta, timezone
from pathlib import PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import ml_dtypes
import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ckptfmt.format.packed import pack
from ckptfmt.format.tree_walk import iter_leaves, tensor_ids
from ckptfmt.state.tree import encode_state
from tests.unit.test_state_exactness import Stored, assert_same

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
integers = st.integers() | st.integers(-(2**70), 2**70) | st.sampled_from([2**63, 2**64, -(2**63), -(2**63) - 1])
offsets = st.timedeltas(timedelta(hours=-23), timedelta(hours=23))
zones = st.none() | offsets.map(timezone) | st.builds(timezone, offsets, text) | st.timezone_keys(allow_prefix=False).map(ZoneInfo)
keys = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        integers,
        st.floats(allow_nan=False),
        text,
        st.binary(max_size=5),
        st.complex_numbers(allow_nan=False),
        st.decimals(allow_nan=False),
        st.uuids(),
        st.dates(),
        st.timedeltas(),
        text.map(PurePosixPath),
        st.sampled_from([PureWindowsPath("C:/x"), range(3), torch.float32, torch.device("cpu"), torch.Size([2])]),
    ),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
plain = st.one_of(
    keys,
    st.floats(),
    st.complex_numbers(),
    st.decimals(),
    st.binary(max_size=9).map(bytearray),
    st.datetimes(timezones=zones, allow_imaginary=True),
    st.times(),
    offsets.map(timezone),
    st.integers(0, 99).map(random.Random),
)


def has_titles(dtype: np.dtype[Any]) -> bool:
    if dtype.subdtype is not None:
        return has_titles(dtype.subdtype[0])
    return any(len(member) > 2 or has_titles(member[0]) for member in (dtype.fields or {}).values())


dtypes = st.one_of(
    hnp.scalar_dtypes(),
    hnp.array_dtypes(max_size=3).map(np.dtype).filter(lambda dtype: not has_titles(dtype)),
    hnp.nested_dtypes(max_leaves=4, max_itemsize=64).filter(lambda dtype: dtype.subdtype is None and not has_titles(dtype)),
    st.sampled_from([np.dtype(t) for t in (ml_dtypes.bfloat16, ml_dtypes.int4, ml_dtypes.float8_e4m3, np.longdouble)]),
)


@st.composite
def arrays(draw: Any) -> np.ndarray[Any, Any]:
    dtype = draw(dtypes)
    shape = draw(hnp.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=4))
    array = np.zeros(shape, dtype)
    if dtype.kind in "iufc" and array.size:
        array.reshape(-1).view(np.uint8)[:] = draw(st.integers(0, 255))
    if array.ndim:
        index = tuple(slice(None, None, draw(st.sampled_from([1, -1, 2]))) for _ in shape)
        array = array[index].transpose(draw(st.permutations(range(array.ndim))))
    return array


@st.composite
def tensors(draw: Any) -> torch.Tensor:
    dtype = draw(
        st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.int4])
    )
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    count = torch.Size(shape).numel()
    size = torch.empty(0, dtype=dtype).element_size()
    data = bytearray(draw(st.binary(min_size=count * size, max_size=count * size)))
    if dtype is torch.bool:
        data = bytearray(byte % 2 for byte in data)
    tensor = torch.frombuffer(data, dtype=dtype).view(shape) if count else torch.empty(shape, dtype=dtype)
    for axis, length in enumerate(shape):
        tensor = tensor.narrow(axis, 0, draw(st.integers(0, length)))
    tensor = tensor.permute(draw(st.permutations(range(tensor.dim()))))
    return torch.nn.Parameter(tensor, requires_grad=False) if draw(st.booleans()) else tensor


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    mapping = st.dictionaries(keys, inner, max_size=4)
    items = st.lists(inner, max_size=4)
    attributes = st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3)
    return st.one_of(
        items,
        items.map(tuple),
        mapping,
        st.dictionaries(text, inner, max_size=4),
        mapping.map(OrderedDict),
        mapping.map(lambda pairs: defaultdict(list, pairs)),
        st.lists(keys, max_size=4).map(Counter),
        st.sets(keys, max_size=4),
        st.builds(deque, items, st.none() | st.integers(4, 9)),
        st.builds(slice, inner, inner, inner),
        attributes.map(lambda pairs: SimpleNamespace(**pairs)),
        attributes.map(lambda pairs: argparse.Namespace(**pairs)),
        st.builds(state_dict, mapping, plain),
    )


def state_dict(pairs: dict[Any, Any], metadata: Any) -> Any:
    value: Any = OrderedDict(pairs)
    value._metadata = metadata
    return value


states = st.recursive(plain | arrays() | tensors(), containers, max_leaves=12)


@given(states)
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_generated_state_comes_back_exactly(state: Any) -> None:
    stored = Stored(state, block_bytes=10)
    assert_same(state, stored.load())


@given(states)
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_state_has_one_packed_form(state: Any) -> None:
    assert pack(encode_state(state).tree) == pack(encode_state(state).tree)


@given(states)
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_paths_of_tensors_are_those_that_a_walk_over_the_tree_finds(state: Any) -> None:
    encoded = encode_state(state)
    found: dict[int, list[tuple[str, ...]]] = {}
    for path, node in iter_leaves(encoded.tree):
        for number in tensor_ids(node):
            found.setdefault(number, []).append(path)
    for number, source in enumerate(encoded.tensors):
        for path in (source.keys, *source.aliases):
            assert any(path[: len(leaf)] == leaf for leaf in found[number]) or path[-1] == "__storage__"


@st.composite
def families(draw: Any) -> tuple[Any, list[Any]]:
    """A buffer and views of it, of torch or of numpy."""
    is_torch = draw(st.booleans())
    base: Any = torch.arange(64, dtype=torch.uint8) if is_torch else np.arange(64, dtype="u1")
    views = [base] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.sampled_from([1, 2, 4]))
        start = draw(st.integers(0, 15)) * size
        stop = draw(st.integers(start // size, 64 // size)) * size
        part = base[start:stop].view({1: torch.uint8, 2: torch.int16, 4: torch.float32}[size] if is_torch else f"V{size}")
        step = draw(st.sampled_from([1, 1, 2] if is_torch else [1, 2, -1]))
        part = part[::step]
        if len(part) % 2 == 0 and draw(st.booleans()):
            part = part.reshape(2, -1) if step == 1 else part
            part = part.T if part.ndim == 2 else part
        views.append(part)
    return base, draw(st.permutations(views))


@given(families())
def test_bytes_that_were_shared_are_shared_again(family: tuple[Any, list[Any]]) -> None:
    _, views = family
    loaded = Stored(views, block_bytes=7).load()
    assert_same(views, loaded)
    for one in range(len(views)):
        for other in range(len(views)):
            assert shares(views[one], views[other]) == shares(loaded[one], loaded[other]) or not intersect(views[one], views[other])


def addresses(view: Any) -> tuple[int, int]:
    if isinstance(view, torch.Tensor):
        view = view.view(torch.uint8) if view.element_size() == 1 else view.view({2: torch.int16, 4: torch.int32}[view.element_size()])
        view = view.numpy()
    low, high = np.lib.array_utils.byte_bounds(view)
    return (low, high) if view.size else (0, 0)


def intersect(one: Any, other: Any) -> bool:
    (low, high), (start, stop) = addresses(one), addresses(other)
    return low < stop and start < high


def shares(one: Any, other: Any) -> int | None:
    """Return how far two views are apart in shared memory, None if they do not share any."""
    return addresses(one)[0] - addresses(other)[0] if intersect(one, other) else None
