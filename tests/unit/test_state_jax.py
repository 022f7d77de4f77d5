"""Arrays and typed random keys of JAX."""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from ckptfmt.errors import CorruptError, UnsupportedTypeError
from ckptfmt.state.jax_arrays import JaxSource
from ckptfmt.state.tensors import TensorMemory
from ckptfmt.state.tree import decode_state, encode_state
from tests.unit.test_state_exactness import Stored, assert_same, round_trip

DTYPES = [
    *"bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64 complex64 complex128".split(),
    ml_dtypes.bfloat16,
    *(getattr(ml_dtypes, name) for name in ("float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float4_e2m1fn", "int4", "uint2")),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_array_of_every_element_type_comes_back_whatever_x64_says(dtype: Any) -> None:
    for shape in [(), (0,), (3,), (2, 3)]:
        with jax.enable_x64(True):
            array = jax.device_put(np.ones(shape, dtype))
        loaded = round_trip({"a": array})["a"]
        assert_same(array, loaded)
        assert isinstance(loaded, jax.Array)


def test_arrays_on_the_processor_lend_their_memory() -> None:
    array = jnp.arange(8.0)
    memory = encode_state(array).tensors[0].memory()
    assert memory is not None
    assert np.frombuffer(memory, "f4").tolist() == list(range(8))


def test_arrays_elsewhere_are_brought_over_in_pieces() -> None:
    array = jnp.arange(24, dtype="int16").reshape(4, 6)
    source = JaxSource("int16", array, is_direct=False)
    blocks = [bytes(block) for block in source.blocks(8)]
    assert max(map(len, blocks)) <= 8
    assert b"".join(blocks) == np.asarray(array).tobytes()


def test_the_same_array_twice_is_stored_once() -> None:
    array = jnp.ones(3)
    stored = Stored([array, array, jnp.ones(3)])
    assert [(source.keys, list(source.aliases)) for source in stored.encoded.tensors] == [(("0",), [("1",)]), (("2",), [])]
    loaded = stored.load()
    assert loaded[0] is loaded[1]


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_random_keys_come_back(implementation: str) -> None:
    keys = [jax.random.key(3, impl=implementation), jax.random.split(jax.random.key(3, impl=implementation), 3)]
    loaded = round_trip(keys)
    assert_same(keys, loaded)
    assert jax.random.normal(loaded[0]) == jax.random.normal(keys[0])


def test_what_has_no_data_is_refused() -> None:
    refused: list[Exception] = []

    def traced(value: Any) -> Any:
        with pytest.raises(UnsupportedTypeError, match="transform") as caught:
            encode_state({"a": value})
        refused.append(caught.value)
        return value

    jax.jit(traced)(jnp.ones(2))
    assert [error.path for error in refused] == ["a"]  # type: ignore[attr-defined]
    deleted = jnp.ones(2)
    deleted.delete()
    with pytest.raises(UnsupportedTypeError, match="deleted"):
        encode_state(deleted)


def memory_of(dtype: str, shape: tuple[int, ...], size: int) -> Any:
    return lambda number: [TensorMemory(dtype, shape, memoryview(bytearray(size)))][number]


def test_wrong_payloads_are_refused() -> None:
    reference = {"$tensor": [0, "jax", {}]}
    words = memory_of("uint32", (2,), 8)
    for tree in (
        {"$tensor": [0, "jax", {"view": [0, "uint8", [1], [1]]}]},
        {"$jax_key": ["what", reference]},
        {"$jax_key": ["rbg", reference]},
        {"$jax_key": ["rbg", 5]},
        {"$jax_key": ["threefry2x32", {"$tensor": [0, "numpy", {}]}]},
    ):
        with pytest.raises(CorruptError):
            decode_state(tree, words)
    with pytest.raises(CorruptError):
        decode_state({"$jax_key": ["threefry2x32", reference]}, memory_of("float32", (2,), 8))


@pytest.mark.parametrize(
    ("library", "tree", "dtype"),
    [
        ("jax", {"$tensor": [0, "jax", {}]}, "uint8"),
        ("jax", {"$jax_key": ["rbg", None]}, "uint8"),
        ("torch", {"$tensor": [0, "torch", {}]}, "uint8"),
        ("torch", {"$torch_dtype": "float32"}, "uint8"),
        ("torch", {"$torch_device": ["cpu", None]}, "uint8"),
        ("numpy", {"$numpy_dtype": "float32"}, "uint8"),
        ("ml_dtypes", {"$tensor": [0, "numpy", {}]}, "int4"),
    ],
)
def test_a_missing_library_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch, library: str, tree: Any, dtype: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UnsupportedTypeError, match=f"{library}, which is not installed\nInstall it with: pip install {library}") as caught:
        decode_state({"a": tree}, memory_of(dtype, (1,), 1))
    assert caught.value.path == "a"


def test_element_types_that_jax_lacks_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedTypeError, match="float6_e2m3fn"):
        decode_state({"$tensor": [0, "jax", {}]}, memory_of("float6_e2m3fn", (1,), 1))
