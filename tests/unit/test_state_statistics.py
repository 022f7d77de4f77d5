"""Statistics of tensors agree with what numpy and ml_dtypes say of the same bytes, for every element type."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from ckptfmt.format.dtypes import SIZES, itemsize_bytes
from ckptfmt.state import statistics
from ckptfmt.state.statistics import TensorStats, tensor_statistics

FLOATS = ("float16", "float32", "float64")
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
ML_FLOATS = (
    *("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "float8_e3m4"),
    *("float8_e4m3", "float8_e4m3b11fnuz", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn"),
)


def stats_of(array, dtype=None):
    return tensor_statistics(dtype or array.dtype.name, memoryview(array.tobytes()))


def expected_of(values):
    """The same statistics, computed at once from float64."""
    finite = values[np.isfinite(values)]
    return TensorStats(
        element_count=values.size,
        minimum=finite.min() if finite.size else None,
        maximum=finite.max() if finite.size else None,
        mean=pytest.approx(finite.mean()) if finite.size else None,
        nan_count=int(np.isnan(values).sum()),
        inf_count=int(np.isinf(values).sum()),
    )


@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_are_described_by_their_finite_elements(dtype):
    values = np.array([1.5, -2.0, np.nan, np.inf, -np.inf, 0.25, np.nan], dtype=dtype)

    assert stats_of(values) == TensorStats(7, -2.0, 1.5, pytest.approx(-0.25 / 3), nan_count=2, inf_count=2)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_keep_their_exact_extremes(dtype):
    limits = np.iinfo(dtype)
    stats = stats_of(np.array([limits.min, limits.max], dtype=dtype))

    assert (stats.minimum, stats.maximum) == (limits.min, limits.max)
    assert isinstance(stats.maximum, int)


@pytest.mark.parametrize("dtype", ML_FLOATS)
def test_every_code_of_a_small_float_is_read_as_ml_dtypes_reads_it(dtype):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    kind = np.dtype(getattr(ml_dtypes, dtype))
    bits = kind.itemsize * 8 if dtype[5] not in "46" else int(dtype[5])
    codes = np.arange(2**bits, dtype=f"u{kind.itemsize}")

    with np.errstate(all="ignore"):
        for code in codes if kind.itemsize == 1 else codes[::97]:
            one = np.array([code], dtype=codes.dtype)
            assert stats_of(one, dtype) == expected_of(one.view(kind).astype(np.float64)), hex(code)
        assert stats_of(codes, dtype) == expected_of(codes.view(kind).astype(np.float64))


def test_no_bit_pattern_makes_numpy_warn():
    codes = np.arange(2**16, dtype=np.uint16)

    assert stats_of(codes, "float16").nan_count == 2046
    assert stats_of(codes, "bfloat16").nan_count == 254


def test_true_counts_as_one():
    assert stats_of(np.array([True, False, True, True])) == TensorStats(4, 0, 1, 0.75)


def test_two_packed_elements_of_a_byte_are_two_elements():
    assert stats_of(np.array([0x21], dtype=np.uint8), "float4_e2m1fn_x2") == TensorStats(2, 0.5, 1.0, 0.75)


@pytest.mark.parametrize(("dtype", "code", "value"), [("int4", 0x0F, -1), ("uint4", 0xFF, 15), ("int2", 0x02, -2), ("uint1", 0x01, 1)])
def test_narrow_integers_are_read_from_the_low_bits(dtype, code, value):
    assert stats_of(np.array([code], dtype=np.uint8), dtype) == TensorStats(1, value, value, value)


def test_complex_extremes_are_absolute_values():
    values = np.array([3 + 4j, -1j, complex(np.nan, 0), complex(0, np.inf)], dtype=np.complex64)

    assert stats_of(values) == TensorStats(4, 1.0, 5.0, 1.5 + 1.5j, nan_count=1, inf_count=1)


def test_complex_of_two_halves_is_read_in_pairs():
    assert stats_of(np.array([3, 4, 0, 1], dtype=np.float16), "complex32") == TensorStats(2, 1.0, 5.0, 1.5 + 2.5j)


def test_sums_beyond_the_largest_float_do_not_overflow():
    largest = sys.float_info.max
    stats = stats_of(np.array([largest, largest, largest]))

    assert stats.mean == pytest.approx(largest)
    assert math.isfinite(stats.mean)
    assert stats_of(np.array([complex(largest, largest)])).maximum == largest


def test_an_empty_tensor_has_no_extremes():
    assert stats_of(np.zeros((3, 0), dtype=np.float32)) == TensorStats(0)


def test_only_nan_leaves_nothing_to_describe():
    assert stats_of(np.full(3, np.nan)) == TensorStats(3, nan_count=3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex32", "int64", "float8_e5m2", "float16"])
def test_blocks_give_what_the_whole_gives(dtype, monkeypatch):
    data = np.random.default_rng(0).integers(0, 2**16, size=4800, dtype=np.uint16).tobytes()
    whole = tensor_statistics(dtype, memoryview(data))
    monkeypatch.setattr(statistics, "_BLOCK_BYTES", 96)
    parts = tensor_statistics(dtype, memoryview(data))

    assert (parts.element_count, parts.minimum, parts.maximum) == (whole.element_count, whole.minimum, whole.maximum)
    assert (parts.nan_count, parts.inf_count) == (whole.nan_count, whole.inf_count)
    assert parts.mean == pytest.approx(whole.mean)


@pytest.mark.parametrize(
    "dtype", ["bits8", "bits16", "numpy:<U5", "numpy:<M8[ns]", "numpy:|S3", 'numpy:{"fields":[["a","int8",0]],"size":1}']
)
def test_what_is_no_number_is_only_counted(dtype):
    data = memoryview(bytes(itemsize_bytes(dtype) * 3))

    assert tensor_statistics(dtype, data) == TensorStats(3, is_numeric=False)


def test_foreign_byte_order_is_read():
    assert stats_of(np.array([1.0, -3.0], dtype=">f4"), "numpy:>f4") == TensorStats(2, -3.0, 1.0, -1.0)


@pytest.mark.parametrize("dtype", sorted(SIZES))
def test_every_element_type_of_the_format_is_handled(dtype):
    stats = tensor_statistics(dtype, memoryview(bytes(48)))

    assert stats.element_count == 48 // SIZES[dtype] * (2 if dtype.endswith("_x2") else 1)


def test_bytes_may_lie_at_any_address():
    data = memoryview(b"\0" + np.array([2.0, 4.0]).tobytes())[1:]

    assert tensor_statistics("float64", data) == TensorStats(2, 2.0, 4.0, 3.0)


def test_half_an_element_is_refused():
    with pytest.raises(ValueError, match="whole number of elements"):
        tensor_statistics("float32", memoryview(bytes(6)))


def test_an_unknown_element_type_is_refused():
    with pytest.raises(KeyError):
        tensor_statistics("float12", memoryview(bytes(6)))
