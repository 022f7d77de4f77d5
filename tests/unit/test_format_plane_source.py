"""Tensors as what is to be added to another, in the order of its exponents: whatever goes in comes out, and it is smaller. Spec 11.4."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.format.byte_planes import decode_planes, encode_whole
from ckptfmt.format.plane_fit import FLOATS, plan_differences
from ckptfmt.format.plane_words import FOLD_SOURCE, FOLD_ZIGZAG
from tests.conformance import naive_codecs


def plans_of(raw, source, dtype):
    return {plan.fold: plan for plan in plan_differences(memoryview(raw), memoryview(source), dtype, level=3)}


def assert_round_trips(raw, source, dtype):
    """Encode as every kind of difference, and return the sizes by fold."""
    sizes = {}
    for plan in plans_of(raw, source, dtype).values():
        stream = encode_whole(plan, memoryview(raw), memoryview(source))
        assert decode_planes(memoryview(stream), len(raw), memoryview(source), plan.word_bytes) == raw
        assert naive_codecs.decode_planes(stream, source, plan.word_bytes) == raw
        sizes[plan.fold] = len(stream)
    return sizes


def trained(count, *, seed=0):
    """Weights, and what they have become after some steps."""
    generator = np.random.default_rng(seed)
    before = (generator.standard_normal(count) * 0.02).astype("<f4")
    return before, (before + generator.standard_normal(count) * 0.001).astype("<f4")


@pytest.mark.parametrize("dtype", FLOATS)
@given(words=st.lists(st.integers(0, 2**64 - 1), max_size=40), seed=st.integers(0, 9), how=st.sampled_from(["equal", "near", "any"]))
def test_differences_of_any_words_come_back(dtype, words, seed, how):
    size = FLOATS[dtype][0]
    source = np.array(words, "<u8").astype(f"<u{size}")
    moves = np.random.default_rng(seed).integers(0, {"equal": 1, "near": 9, "any": 2**15}[how], len(words))
    assert_round_trips((source + moves.astype(source.dtype)).tobytes(), source.tobytes(), dtype)


@pytest.mark.parametrize("count", [1, 4_095, 131_071, 300_001])
def test_weights_after_some_steps_come_back_and_are_smaller_in_the_order_of_their_exponents(count):
    before, after = trained(count)
    sizes = assert_round_trips(after.tobytes(), before.tobytes(), "float32")
    assert count < 100_000 or sizes[FOLD_SOURCE] < 0.98 * sizes[FOLD_ZIGZAG]


def test_halves_after_some_steps_are_a_twentieth_smaller_in_the_order_of_their_exponents():
    before, after = ((tensor.view("<u4") >> 16).astype("<u2").tobytes() for tensor in trained(300_000))
    sizes = assert_round_trips(after, before, "bfloat16")
    assert sizes[FOLD_SOURCE] < 0.95 * sizes[FOLD_ZIGZAG]


@pytest.mark.parametrize("special", [0.0, -0.0, float("inf"), float("nan"), 1e-45, 3e38], ids=str)
def test_special_values_come_from_others_and_become_others(special):
    before, after = trained(5_000)
    before[::7] = special
    after[::11] = special
    assert_round_trips(after.tobytes(), before.tobytes(), "float32")


def test_integers_are_not_sorted():
    raw = np.arange(5_000, dtype="<i4").tobytes()
    assert set(plans_of(raw, raw, "int32")) == {0}


def test_words_of_another_size_than_those_that_are_added_are_refused():
    before, after = (tensor.tobytes() for tensor in trained(100))
    stream = encode_whole(plans_of(after, before, "float32")[FOLD_SOURCE], memoryview(after), memoryview(before))
    for added_bytes in (0, 2, 8):
        with pytest.raises(ValueError, match="added to a source"):
            decode_planes(memoryview(stream), len(after), memoryview(before), added_bytes)
