"""What "the same" means for a loaded state: the comparison that all tests of the state floor use, and its own tests."""

from __future__ import annotations

import argparse
import random
import struct
import sys
from collections import OrderedDict, defaultdict, deque
from datetime import datetime, time, tzinfo
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from ckptfmt.format.packed import pack, unpack
from ckptfmt.state.tensors import TensorMemory, TensorSource
from ckptfmt.state.tree import EncodedState, decode_state, encode_state


def bytes_of(source: TensorSource, block_bytes: int = 64) -> bytes:
    """Return a source's bytes by its pieces, which must be those of its memory where it has one."""
    gathered = b"".join(bytes(block) for block in source.blocks(block_bytes))
    memory = source.memory()
    if memory is not None:
        assert memory.format == "B"
        assert memory.ndim == 1
        assert bytes(memory) == gathered
    assert len(gathered) == source.size_bytes
    return gathered


class Stored:
    """A state after encoding: its packed bytes, and the rows as another process would find them."""

    def __init__(self, state: Any, block_bytes: int = 64) -> None:
        self.encoded: EncodedState = encode_state(state)
        self.packed = pack(self.encoded.tree)
        self.rows = [(source.dtype, source.shape, bytes_of(source, block_bytes)) for source in self.encoded.tensors]
        self.asked: list[int] = []

    @property
    def tree(self) -> Any:
        return unpack(self.packed, where="test")

    def tensor_of(self, number: int) -> TensorMemory:
        assert number not in self.asked, "a row was asked for twice"
        self.asked.append(number)
        dtype, shape, data = self.rows[number]
        return TensorMemory(dtype, shape, memoryview(bytearray(data)))

    def load(self, **options: Any) -> Any:
        self.asked = []
        loaded = decode_state(self.tree, self.tensor_of, **options)
        assert sorted(self.asked) == list(range(len(self.rows)))
        return loaded


def round_trip(state: Any, **options: Any) -> Any:
    return Stored(state).load(**options)


def assert_same(one: Any, other: Any, where: str = "state") -> None:
    """Assert that two states are equal in every respect that saving promises to keep."""
    assert type(one) is type(other), f"{where}: {type(one)} is not {type(other)}"
    library = type(one).__module__.partition(".")[0]
    if library == "torch":
        _assert_same_torch(one, other, where)
    elif library in ("numpy", "ml_dtypes"):
        _assert_same_numpy(one, other, where)
    elif library in ("jax", "jaxlib"):
        _assert_same_jax(one, other, where)
    elif isinstance(one, dict):
        _assert_same_mapping(one, other, where)
    elif isinstance(one, (list, tuple, deque)):
        assert getattr(one, "maxlen", None) == getattr(other, "maxlen", None), where
        assert len(one) == len(other), where
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_same(left, right, f"{where}[{index}]")
    elif isinstance(one, (set, frozenset)):
        assert sorted(map(fingerprint, one)) == sorted(map(fingerprint, other)), where
    elif isinstance(one, (argparse.Namespace, SimpleNamespace)):
        assert_same(vars(one), vars(other), where)
    elif isinstance(one, slice):
        assert_same([one.start, one.stop, one.step], [other.start, other.stop, other.step], where)
    elif isinstance(one, range):
        assert (one.start, one.stop, one.step) == (other.start, other.stop, other.step), where
    elif isinstance(one, random.Random):
        assert one.getstate() == other.getstate(), where
    else:
        assert fingerprint(one) == fingerprint(other), f"{where}: {one!r} is not {other!r}"


def fingerprint(value: Any) -> str:
    """Return a text that two plain values share only if they are the same in type and in every bit."""
    if type(value) is float:
        return f"float {struct.pack('<d', value).hex()}"
    if type(value) is complex:
        return f"complex {struct.pack('<dd', value.real, value.imag).hex()}"
    if type(value) in (tuple, list):
        return f"{type(value)} ({', '.join(map(fingerprint, value))})"
    if type(value) is frozenset:
        return f"frozenset {sorted(map(fingerprint, value))}"
    if type(value) is Decimal:
        return f"decimal {value.as_tuple()}"
    if isinstance(value, (datetime, time)):
        zone: tzinfo | None = value.tzinfo
        return f"{value!r} {type(zone)} {value.fold}"
    if type(value).__module__.partition(".")[0] in ("numpy", "ml_dtypes"):
        return f"{type(value)} {value.dtype} {value.tobytes().hex()}"
    return f"{type(value)} {value!r}"


def _assert_same_mapping(one: Any, other: Any, where: str) -> None:
    assert list(map(fingerprint, one)) == list(map(fingerprint, other)), where
    if isinstance(one, defaultdict):
        assert one.default_factory is other.default_factory, where
    if isinstance(one, OrderedDict):
        assert_same(vars(one).get("_metadata"), vars(other).get("_metadata"), f"{where}._metadata")
    for key, (left, right) in zip(one, zip(one.values(), other.values(), strict=True), strict=True):
        assert_same(left, right, f"{where}[{key!r}]")


def tensor_bytes(tensor: Any) -> bytes:
    """Return a dense tensor's elements in C order, without kernels of its element type."""
    torch = sys.modules["torch"]
    plain = tensor.detach().resolve_conj().resolve_neg()
    carrier = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}[plain.element_size()]
    return bytes(plain.view(carrier).reshape(-1).clone(memory_format=torch.contiguous_format).view(torch.uint8).tolist())


def _assert_same_torch(one: Any, other: Any, where: str) -> None:
    torch = sys.modules["torch"]
    if isinstance(one, torch.Generator):
        assert one.device == other.device, where
        assert torch.equal(one.get_state(), other.get_state()), where
    elif not isinstance(one, torch.Tensor):
        assert one == other, where
    else:
        assert (one.dtype, one.shape, one.layout) == (other.dtype, other.shape, other.layout), where
        assert one.requires_grad == other.requires_grad, where
        assert getattr(one, "_is_buffer", False) == getattr(other, "_is_buffer", False), where
        if one.layout is torch.strided:
            assert tensor_bytes(one) == tensor_bytes(other), where
        else:
            assert str(one) == str(other), where
            assert torch.equal(one.to_dense(), other.to_dense()), where


def _assert_same_numpy(one: Any, other: Any, where: str) -> None:
    numpy = sys.modules["numpy"]
    if isinstance(one, numpy.random.Generator):
        assert repr(one.bit_generator.state) == repr(other.bit_generator.state), where
        assert repr(one.bit_generator.seed_seq) == repr(other.bit_generator.seed_seq), where
    elif isinstance(one, numpy.random.RandomState):
        assert repr(one.get_state(legacy=False)) == repr(other.get_state(legacy=False)), where
    elif isinstance(one, numpy.dtype):
        assert one == other, where
        assert one.isalignedstruct == other.isalignedstruct, where
    elif isinstance(one, (numpy.str_, numpy.bytes_)):
        assert one == other, where
        assert len(one) == len(other), where
    else:
        assert one.dtype == other.dtype, where
        assert one.dtype.isalignedstruct == other.dtype.isalignedstruct, where
        assert one.shape == other.shape, where
        assert one.tobytes() == other.tobytes(), where


def _assert_same_jax(one: Any, other: Any, where: str) -> None:
    import jax
    import numpy

    assert one.dtype == other.dtype, where
    assert one.shape == other.shape, where
    if jax.dtypes.issubdtype(one.dtype, jax.dtypes.prng_key):
        assert str(jax.random.key_impl(one)) == str(jax.random.key_impl(other)), where
        one, other = jax.random.key_data(one), jax.random.key_data(other)
    assert numpy.asarray(one).tobytes() == numpy.asarray(other).tobytes(), where


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        ([1], (1,)),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (OrderedDict(a=1), {"a": 1}),
        ({1}, {1.0}),
        (deque([1], 3), deque([1])),
        (range(0, 3, 2), range(0, 4, 2)),
        (Decimal("1.0"), Decimal("1.00")),
    ],
)
def test_comparison_tells_apart_what_equality_does_not(one: Any, other: Any) -> None:
    with pytest.raises(AssertionError):
        assert_same(one, other)
