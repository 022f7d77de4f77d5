"""Comparing tensors element by element: every element type, distances against what numpy and ml_dtypes say, tolerances, blocks."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from ckptfmt.checkpoint import tensor_diff
from ckptfmt.checkpoint.tensor_diff import ElementDifferences, compare_elements
from ckptfmt.format.dtypes import SIZES
from ckptfmt.state.tensors import TensorMemory

ML_FLOATS = """bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu float8_e3m4 float8_e4m3
float8_e4m3b11fnuz float4_e2m1fn float6_e2m3fn float6_e3m2fn""".split()
FLOATS = ["float16", "float32", "float64", *ML_FLOATS]
INTEGERS = ["bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), "int4", "uint4", "int2", "uint2"]


def dtype_of(name):
    return np.dtype(getattr(ml_dtypes, name)) if name in ML_FLOATS or name in ("int4", "uint4", "int2", "uint2") else np.dtype(name)


def memory(array, dtype=None):
    array = np.asarray(array)
    return TensorMemory(dtype or array.dtype.name, array.shape, memoryview(bytearray(array.tobytes())))


def compared(before, after, dtype=None, **tolerance):
    return compare_elements(memory(before, dtype), memory(after, dtype), **tolerance)


@pytest.mark.parametrize("name", FLOATS)
def test_distances_of_random_bits_are_those_of_their_values(name):
    dtype = dtype_of(name)
    generator = np.random.default_rng(1)
    raw = generator.integers(0, 256, (2, 500 * dtype.itemsize), dtype=np.uint8)
    raw &= {"4": 0x0F, "6": 0x3F}.get(name.removeprefix("float")[:1], 0xFF) if "_e" in name else 0xFF
    before, after = raw[0].view(dtype), raw[1].view(dtype)
    found = compared(before, after, name)

    with np.errstate(all="ignore"):
        a, b = before.astype(np.float64), after.astype(np.float64)
        distance = np.abs(a - b)
        unequal = ~((a == b) | (np.isnan(a) & np.isnan(b)))
        assert found.element_count == 500
        assert found.differing_count == unequal.sum()
        assert found.max_abs == np.nanmax(distance[unequal])
        assert found.nan_counts == (np.isnan(a).sum(), np.isnan(b).sum())


@pytest.mark.parametrize("name", ["float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float6_e2m3fn"])
def test_neighbours_are_one_ulp_apart_also_across_zero(name):
    dtype = dtype_of(name)
    width = dtype.itemsize * 8 if "6_e" not in name else 6
    bits = np.array([1, 2, 5, 1, 9], f"u{dtype.itemsize}")
    other = np.array([2, 4, 5, (1 << (width - 1)) + 1, 6], f"u{dtype.itemsize}")

    assert [compared(bits[[i]].view(dtype), other[[i]].view(dtype), name).max_ulp for i in range(5)] == [1, 2, None, 2, 3]


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_are_compared_exactly(name):
    info = {"bool": (0, 1), "int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1), "uint2": (0, 3)}.get(name)
    low, high = info or (np.iinfo(name).min, np.iinfo(name).max)
    found = compared(*(np.array(values, dtype_of(name)) for values in ([low, high, high], [high, high, low])), name)

    assert (found.differing_count, found.max_abs, found.max_ulp) == (2, high - low, None)


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "complex32"])
def test_complex_numbers_are_compared_by_the_size_of_their_difference(dtype):
    before, after = np.array([0, 1 + 1j, complex(math.nan, 1)]), np.array([3 + 4j, 1 + 1j, complex(math.nan, 2)])
    if dtype == "complex32":
        halves = [TensorMemory(dtype, (3,), memoryview(array.view(np.float64).astype(np.float16).tobytes())) for array in (before, after)]
        found = compare_elements(*halves)
    else:
        found = compared(before.astype(dtype), after.astype(dtype))

    assert (found.differing_count, found.max_abs, found.max_relative, found.nan_counts) == (1, 5.0, 1.0, (1, 1))
    assert found.max_ulp > 1000


def test_two_numbers_in_one_byte_are_two_elements():
    before = TensorMemory("float4_e2m1fn_x2", (2,), memoryview(bytes([0x10, 0x77])))
    after = TensorMemory("float4_e2m1fn_x2", (2,), memoryview(bytes([0x20, 0x77])))

    assert compare_elements(before, after) == ElementDifferences(4, 1, 0.5, 0.5, 1)


def test_nan_equals_nan_and_zeros_are_equal():
    found = compared(np.array([math.nan, 0.0, -0.0, 1.0]), np.array([math.nan, -0.0, 0.0, 1.0]))

    assert (found.differing_count, found.max_abs, found.nan_counts) == (0, 0, (1, 1))


def test_nan_on_one_side_is_counted_and_has_no_distance():
    found = compared(np.array([math.nan, 1.0]), np.array([2.0, 1.0]))

    assert (found.differing_count, found.max_abs, found.max_relative, found.max_ulp, found.nan_counts) == (1, None, None, None, (1, 0))


def test_infinities_are_infinitely_far_from_everything_else_whatever_the_tolerance():
    found = compared(np.array([math.inf, math.inf]), np.array([math.inf, 5.0]), rtol=0.5)

    assert (found.differing_count, found.max_abs, found.max_relative, found.max_ulp) == (1, math.inf, math.inf, None)


def test_numbers_within_the_tolerance_do_not_differ_but_have_their_distance():
    found = compared(np.array([1.0, 100.0, 0.0]), np.array([1.01, 101.0, 0.001]), rtol=0.01, atol=0.0005)

    assert (found.differing_count, found.max_abs) == (1, 1.0)


def test_different_types_are_compared_by_their_values():
    found = compare_elements(memory(np.array([1.0, 0.1], np.float32)), memory(np.array([1.0, 0.1]).astype(ml_dtypes.bfloat16), "bfloat16"))

    assert found.differing_count == 1
    assert found.max_abs == pytest.approx(0.0000976, abs=1e-6)
    assert found.max_ulp is None


def test_texts_times_and_records_are_compared_byte_by_byte():
    for before, after, dtype in (
        (np.array(["a", "b"]), np.array(["a", "c"]), "numpy:<U1"),
        (np.array(["2020", "2021"], "M8[Y]"), np.array(["2020", "2022"], "M8[Y]"), "numpy:<M8[Y]"),
        (np.array([1, 2], np.uint16), np.array([1, 3], np.uint16), "bits16"),
    ):
        assert compared(before, after, dtype) == ElementDifferences(2, 1)


def test_big_endian_numbers_are_numbers():
    found = compared(np.array([1.0, 2.0], ">f4"), np.array([1.0, 2.5], ">f4"), "numpy:>f4")

    assert (found.differing_count, found.max_abs, found.max_ulp) == (1, 0.5, 2**21)


def test_blocks_make_no_difference(monkeypatch):
    generator = np.random.default_rng(2)
    pairs = [
        (generator.standard_normal(100).astype(np.float32), generator.standard_normal(100).astype(np.float32)),
        (np.arange(100), np.arange(100)[::-1].copy()),
        (np.array(list("abcdefghij")), np.array(list("abcxefghiy"))),
    ]
    whole = [compared(a, b, f"numpy:{a.dtype.str}" if a.dtype.kind == "U" else None) for a, b in pairs]
    monkeypatch.setattr(tensor_diff, "_BLOCK_ELEMENTS", 7)

    assert [compared(a, b, f"numpy:{a.dtype.str}" if a.dtype.kind == "U" else None) for a, b in pairs] == whole


@pytest.mark.parametrize("dtype", [*SIZES, "numpy:<f4", "numpy:|V0", "numpy:<f16", 'numpy:{"fields":[],"size":4,"align":false}'])
def test_every_element_type_can_be_compared(dtype):
    size = SIZES.get(dtype, {"numpy:|V0": 0, "numpy:<f16": 16}.get(dtype, 4))
    one, other = (TensorMemory(dtype, (2,), memoryview(bytes([value] * (2 * size)))) for value in (0, 1))

    assert compare_elements(one, one).differing_count == 0
    assert (compare_elements(one, other).differing_count > 0) is (size > 0)


def test_empty_tensors_are_equal():
    assert compared(np.zeros((0, 3)), np.zeros((0, 3))) == ElementDifferences(0, 0)
