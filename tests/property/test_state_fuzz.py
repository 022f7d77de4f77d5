"""A hostile or damaged tree gives an error of ckptfmt, whatever was changed in it; nothing else escapes."""

from __future__ import annotations

import argparse
import copy
import enum
import random
from collections import Counter, OrderedDict, defaultdict, deque
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptfmt.errors import CheckpointError
from ckptfmt.state import codecs
from ckptfmt.state.codecs import register_codec
from ckptfmt.state.tensors import TensorMemory
from ckptfmt.state.tree import decode_leaf, decode_state, outline_state
from tests.unit.test_state_exactness import Stored

pytestmark = pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta:UserWarning")


class Color(enum.Enum):
    RED = 1


def rich_state() -> dict[str, Any]:
    base = torch.arange(24.0).view(4, 6)
    array = np.arange(12.0).reshape(3, 4)
    metadata: Any = OrderedDict(w=base)
    metadata._metadata = {"version": 1}
    return {
        "plain": [None, True, 2**70, 1.5, "x", b"y", 1j, bytearray(b"z"), range(3), slice(1, 2), Decimal("1.5"), UUID(int=1)],
        "times": [
            date(2020, 1, 1),
            time(1, tzinfo=UTC),
            datetime(2020, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")),
            timedelta(1, 2, 3),
            UTC,
        ],
        "containers": [(1, 2), {1, "a"}, frozenset({2}), deque([1], 3), defaultdict(list, a=1), Counter("ab"), OrderedDict(a=1), {1: 2}],
        "more": [metadata, SimpleNamespace(a=1), argparse.Namespace(b=2), PurePosixPath("a/b"), Color.RED, {Color.RED: 1, (1, 2): 3}],
        "torch": [
            base,
            base[1],
            base.t(),
            torch.nn.Parameter(base[:, 2]),
            torch.nn.Buffer(torch.ones(2)),
            torch.ones(2, requires_grad=True),
        ],
        "layouts": [torch.rand(2, 3, 2, 2).to(memory_format=torch.channels_last), torch.empty(0), torch.tensor(1), base[:, ::2].clone()],
        "sparse": [torch.eye(3).to_sparse(), torch.eye(4).to_sparse_csr(), torch.eye(4).to_sparse_bsc((2, 2))],
        "values": [torch.Size([1, 2]), torch.float32, torch.strided, torch.channels_last, torch.device("cuda", 1), torch.Generator()],
        "numpy": [array, array[::-1], array.T, np.zeros(2, [("a", "i4"), ("b", "f8")]), np.zeros(2, "M8[ns]")],
        "small": [np.ones(2, ml_dtypes.int4)],
        "scalars": [
            np.float32(1),
            np.str_("x"),
            np.bytes_(b"y"),
            np.datetime64("NaT"),
            ml_dtypes.bfloat16(1),
            np.dtype("f4"),
            np.dtype("S3"),
        ],
        "random": [random.Random(1), np.random.default_rng(1), np.random.Generator(np.random.MT19937(1)), np.random.RandomState(1)],
        "jax": [jnp.ones(3), jax.random.key(1)],
    }


@pytest.fixture(scope="module")
def stored() -> Stored:
    if codecs.find_codec(Color) is None:
        register_codec(Color, name="test.fuzz.Color")
    made = Stored(rich_state())
    made.load()
    return made


def places(tree: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    pending = [tree]
    while pending:
        node = pending.pop()
        slots = node.items() if type(node) is dict else enumerate(node)
        for slot, child in slots:
            found.append((node, slot))
            if type(child) in (dict, list):
                pending.append(child)
    return found


small = st.integers(-3, 70) | st.sampled_from([2**31, 2**32, 2**47, 2**48, 2**62, 2**63 - 1, 2**64 - 1, -(2**63)])
words = st.sampled_from(
    "torch parameter buffer numpy jax coo csr float32 int64 uint8 bool bits8 numpy:<M8[ns] numpy:|V0 numpy:|S3 float6_e2m3fn int4 cpu cuda "
    "meta MT19937 PCG64 rbg simple posix UTC view strides grad coalesced $tuple $tensor $dict $set $registered test.fuzz.Color".split()
)
values = st.recursive(
    st.none() | st.booleans() | small | st.floats() | words | st.text(max_size=4) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


def mutate(draw: Any, tree: Any) -> None:
    for _ in range(draw(st.integers(1, 3))):
        slots = places(tree)
        node, slot = slots[draw(st.integers(0, len(slots) - 1))]
        action = draw(st.sampled_from(["replace", "number", "swap", "remove", "wrap", "retag"]))
        if action == "replace":
            node[slot] = draw(values)
        elif action == "number":
            node[slot] = draw(small)
        elif action == "swap":
            other, position = slots[draw(st.integers(0, len(slots) - 1))]
            node[slot] = copy.deepcopy(other[position])
        elif action == "remove":
            del node[slot]
        elif action == "wrap":
            node[slot] = {draw(words): node[slot]}
        elif type(node) is dict:
            node[draw(words)] = node.pop(slot)
        if not tree:
            return


@given(st.data())
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large])
def test_a_changed_tree_decodes_or_is_refused(stored: Stored, data: st.DataObject) -> None:
    whole = stored.tree
    section = data.draw(st.sampled_from(sorted(whole)))
    tree = {section: copy.deepcopy(whole[section])}
    mutate(data.draw, tree)
    rows = list(stored.rows)
    if data.draw(st.booleans()):
        number = data.draw(st.integers(0, len(rows) - 1))
        dtype, shape, content = rows[number]
        rows[number] = (dtype, shape, data.draw(st.binary(min_size=len(content), max_size=len(content))) if len(content) < 200 else content)

    def tensor_of(number: int) -> TensorMemory:
        dtype, shape, content = rows[number]
        return TensorMemory(dtype, shape, memoryview(bytearray(content)))

    for decode in (decode_state, decode_leaf):
        with suppress(CheckpointError):
            decode(tree, tensor_of)
    with suppress(CheckpointError):
        outline_state(tree, rows.__getitem__)


@given(values)
@settings(max_examples=300)
def test_any_packed_value_decodes_or_is_refused(tree: Any) -> None:
    rows = [TensorMemory("float32", (2, 3), memoryview(bytearray(24)))]
    for decode in (decode_state, outline_state):
        with suppress(CheckpointError):
            decode(tree, rows.__getitem__)


tagged = st.sampled_from(
    "$dict $odict $state_dict $defaultdict $counter $tuple $set $frozenset $deque $int $complex $bytearray $range $slice $decimal $uuid "
    "$path $datetime $date $time $timedelta $timezone $namespace $tensor $sparse $numpy_scalar $numpy_dtype $torch_size $torch_dtype "
    "$torch_layout $torch_memory_format $torch_device $torch_generator $jax_key $numpy_generator $numpy_random_state $python_random "
    "$registered".split()
)


@given(tagged, values)
@settings(max_examples=1500)
def test_any_payload_of_any_tag_decodes_or_is_refused(tag: str, payload: Any) -> None:
    rows = [TensorMemory("float32", (2, 3), memoryview(bytearray(24)))]
    for decode in (decode_state, outline_state):
        with suppress(CheckpointError):
            decode([{tag: payload}], rows.__getitem__)


@given(small, st.lists(small, max_size=3), st.lists(small, max_size=3), st.sampled_from(["torch", "numpy", "parameter"]), words)
@settings(max_examples=800)
def test_any_view_stays_inside_its_row_or_is_refused(offset: int, shape: Any, strides: Any, kind: str, dtype: str) -> None:
    rows = [TensorMemory("float32", (2, 3), memoryview(bytearray(24)))]
    try:
        view = decode_state({"$tensor": [0, kind, {"view": [offset, dtype, shape, strides]}]}, rows.__getitem__)
    except CheckpointError:
        return
    if kind == "numpy":
        start = np.frombuffer(rows[0].data, "u1").__array_interface__["data"][0]
        low, high = np.lib.array_utils.byte_bounds(view) if view.nbytes else (start, start)
        assert start <= low <= high <= start + 24
    elif view.numel():
        reach = view.storage_offset() + sum((size - 1) * stride for size, stride in zip(view.shape, view.stride(), strict=True))
        assert (reach + 1) * view.element_size() <= 24
