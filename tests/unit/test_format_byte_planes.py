"""Streams of planes: whatever goes in comes out, block by block; what is no such stream is refused before it costs memory. Spec 11.1."""

import math
import random
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.format.byte_planes import PlanesEncoder, decode_planes, encode_planes, open_planes
from ckptfmt.format.dtypes import SIZES
from ckptfmt.format.plane_fit import plan_planes, take_sample
from ckptfmt.format.plane_words import FOLD_ROTATED, FOLD_ZIGZAG
from tests.conformance import naive_codecs

FLOATS = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4", "float64": "<f8", "complex64": "<c8", "complex128": "<c16"}


def encoded(raw, dtype, shape, *, level=3):
    return encode_planes(memoryview(raw), dtype, shape, level=level)


def assert_round_trip(raw, dtype, shape, *, level=3):
    stream = encoded(raw, dtype, shape, level=level)
    assert decode_planes(memoryview(stream), len(raw)) == raw
    assert naive_codecs.decode_planes(stream) == raw
    assert len(stream) % 16 == 0
    return stream


def weights(shape, *, seed=0, dtype="<f4"):
    return (np.random.default_rng(seed).standard_normal(shape) * 0.02).astype(dtype)


def moments(rows, columns, *, seed=0):
    """Numbers whose size depends on their row and their column, as the squares that an optimizer keeps."""
    generator = np.random.default_rng(seed)
    size = np.exp(2 * generator.standard_normal((rows, 1)) + 2 * generator.standard_normal((1, columns)) - 12)
    return (size * np.exp(0.3 * generator.standard_normal((rows, columns)))).astype("<f4")


@pytest.mark.parametrize("dtype", sorted(SIZES))
@pytest.mark.parametrize("count", [0, 1, 7, 700])
def test_random_bytes_of_every_element_type_come_back(dtype, count):
    raw = random.Random(count).randbytes(count * SIZES[dtype])
    assert_round_trip(raw, dtype, (count,))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(70_000,), (300, 257), (3, 100, 90), (1, 65_537), (65_537, 1), (200_000, 2), (2, 200_000)], ids=str)
def test_floats_of_every_shape_come_back(dtype, shape):
    values = weights(shape, dtype="<f4").view("<u4") >> 16 if dtype == "bfloat16" else weights(shape, dtype="<f8")
    with np.errstate(over="ignore"):
        raw = values.astype(FLOATS[dtype]).tobytes()
    assert_round_trip(raw, dtype, shape)


@pytest.mark.parametrize("special", [0.0, -0.0, float("inf"), float("nan"), 1e-45, 3e38], ids=str)
def test_special_values_among_others_come_back(special):
    values = weights((500, 300))
    values[::7, 3] = special
    assert_round_trip(values.tobytes(), "float32", values.shape)
    values[:] = special
    assert len(assert_round_trip(values.tobytes(), "float32", values.shape)) < 200


@given(st.binary(max_size=3_000), st.sampled_from(sorted(SIZES)), st.integers(1, 19))
def test_any_bytes_come_back_at_any_level(raw, dtype, level):
    raw = raw[: len(raw) // SIZES[dtype] * SIZES[dtype]]
    assert_round_trip(raw, dtype, (len(raw) // SIZES[dtype],), level=level)


@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=300), st.sampled_from(["<i4", "<i8", "<u4"]))
def test_integers_come_back(values, dtype):
    array = np.array(values, "<i8").astype(dtype)
    assert_round_trip(array.tobytes(), {"<i4": "int32", "<i8": "int64", "<u4": "uint32"}[dtype], array.shape)


def test_booleans_take_a_bit_each_and_other_bytes_come_back_all_the_same():
    mask = np.random.default_rng(0).random(80_001) < 0.5
    assert len(assert_round_trip(mask.tobytes(), "bool", mask.shape)) < 80_001 / 8 * 1.1
    assert_round_trip(mask.tobytes() + b"\2", "bool", (80_002,))


def test_weights_take_what_their_exponents_have_to_tell():
    values = weights((1024, 1024))
    assert len(encoded(values.tobytes(), "float32", values.shape)) < 0.835 * values.nbytes
    halves = (values.view("<u4") >> 16).astype("<u2")
    assert len(encoded(halves.tobytes(), "bfloat16", halves.shape)) < 0.67 * halves.nbytes


def test_rows_and_columns_are_taken_off_where_they_tell_something():
    values = moments(600, 500)
    with_rows = encoded(values.tobytes(), "float32", values.shape)
    without = encoded(values.tobytes(), "float32", (values.size,))
    assert len(with_rows) < 0.9 * len(without)
    assert plan_of(values, "float32").row_length == 500
    assert plan_of(weights((600, 500)), "float32").row_length == 0


def plan_of(values, dtype):
    raw = memoryview(values.tobytes())
    return plan_planes(take_sample(raw, dtype, values.shape), dtype, values.shape, len(raw), level=3)


def test_only_integers_of_both_signs_are_folded():
    assert plan_of(np.arange(-50, 50, dtype="<i4"), "int32").fold == FOLD_ZIGZAG
    assert plan_of(np.arange(100, dtype="<i4"), "int32").fold == 0
    assert plan_of(weights((9, 9)), "float32").fold == FOLD_ROTATED


def test_blocks_are_encoded_and_decoded_in_any_order():
    values = moments(700, 900)
    raw = memoryview(values.tobytes())
    encoder = PlanesEncoder(plan_of(values, "float32"), len(raw))
    count, step = encoder.head.block_count, encoder.head.block_bytes
    assert count > 4
    blocks = {block: encoder.encode_block(block, raw[block * step : (block + 1) * step]) for block in reversed(range(count))}
    data = encoder.encode_head() + b"".join(blocks[block] for block in range(count))
    data = memoryview(data + encoder.encode_table(len(data)))
    assert data == encode_planes(raw, "float32", values.shape, level=3)
    stream = open_planes(lambda begin, end: data[begin:end], len(data), len(raw))
    for block in (count - 1, 0, 2):
        size = min(step, len(raw) - block * step)
        out = memoryview(bytearray(size))
        stream.decode_block(block, data[stream.offsets[block] : stream.offsets[block + 1]], out)
        assert out == raw[block * step : block * step + size]


@given(st.data())
def test_a_damaged_stream_is_refused_or_decodes_to_as_many_bytes(data):
    values = moments(70, 80)
    stream = bytearray(encoded(values.tobytes(), "float32", values.shape))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(stream) - 1))
        stream[at] = data.draw(st.integers(0, 255))
    with suppress(ValueError):
        assert len(decode_planes(memoryview(stream), values.nbytes)) == values.nbytes


@pytest.mark.parametrize("size", [0, 1, 47, 48, 63, 100])
def test_the_start_of_a_stream_is_none(size):
    stream = encoded(weights((50, 50)).tobytes(), "float32", (50, 50))
    with pytest.raises(ValueError, match="stream"):
        decode_planes(memoryview(stream[:size]), 10_000)


def test_a_stream_that_declares_a_terabyte_is_refused_for_what_it_is():
    stream = bytearray(encoded(bytes(2**20), "uint8", (2**20,)))
    stream[16:24] = (2**40).to_bytes(8, "little")
    with pytest.raises(ValueError, match="too short for its head and table"):
        decode_planes(memoryview(stream), 2**40)


def test_equal_words_cost_next_to_nothing():
    for dtype, raw in (("float32", np.full(10**6, 1.5, "<f4").tobytes()), ("int64", bytes(8 * 10**6)), ("bool", bytes(10**6))):
        assert len(encoded(raw, dtype, (10**6,))) < max(len(raw) / 5_000, 200)


def test_a_higher_level_never_makes_much_more_of_it():
    text = (b"the quick brown fox jumps over the lazy dog; " * 3_000)[: 2**17]
    sizes = [len(encoded(text, "uint8", (len(text),), level=level)) for level in (1, 3, 19)]
    assert sizes[2] <= sizes[1] * 1.01 <= sizes[0] * 1.02
    assert math.isfinite(sum(sizes))
