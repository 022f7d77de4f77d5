"""JSON as the format writes it, and the strict subset that it reads. Spec 4."""

import json

import pytest

from ckptfmt.errors import CorruptError
from ckptfmt.format import canonical_json


def decoded(data, *, max_depth=64, **options):
    return canonical_json.decode(data, where="m", rule="E003", max_depth=max_depth, **options)


def test_equal_values_are_equal_bytes():
    data = canonical_json.encode({"b": 1, "a": [1.5, None, "ü"]})
    assert data == b'{\n "a": [\n  1.5,\n  null,\n  "\\u00fc"\n ],\n "b": 1\n}\n'
    assert data == canonical_json.encode({"a": [1.5, None, "ü"], "b": 1})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_not_written(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json.encode(value)


@pytest.mark.parametrize("value", [0, -(2**63), 2**63 - 1, -0.0, 1e308, 5e-324, "🙂", '"\\\n', [], {}, {"a": {"b": [True, None]}}])
def test_what_is_written_is_read(value):
    read = decoded(canonical_json.encode(value))
    assert (read, type(read), repr(read)) == (value, type(value), repr(value))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "Expecting value"),
        (b"{} {}", "Extra data"),
        (b"{'a': 1}", "property name"),
        (b'{"a": 1, "a": 1}', "key 'a' stands twice"),
        (b'{"b": {"a": 1, "x": 2, "a": 1}}', "key 'a' stands twice"),
        (b"NaN", "NaN is not a number"),
        (b"[Infinity]", "Infinity is not a number"),
        (b"-Infinity", "-Infinity is not a number"),
        (b"1e999", "number 1e999 is out of range"),
        (b"9223372036854775808", "out of range"),
        (b"-9223372036854775809", "out of range"),
        (b"1" * 5000, "out of range"),
        (b'"\xff"', "byte 1 is not ASCII"),
        (b'"\xc3\xa4"', "byte 1 is not ASCII"),
        (b'"\n"', "control character"),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\uDfff": 1}', "surrogate"),
        (b"[" * 66 + b"]" * 66, "nested deeper than 64"),
        (b"[" * 100_000, "nested deeper than 64"),
    ],
    ids=lambda value: value.decode("latin1")[:20] if isinstance(value, bytes) else "",
)
def test_other_json_is_refused(data, reason):
    with pytest.raises(CorruptError, match="not strict JSON") as caught:
        decoded(data)
    assert caught.value.rule == "E003"
    assert reason in str(caught.value)


def test_a_surrogate_pair_is_one_character():
    assert decoded(b'"\\ud83d\\ude42 \\u00fc"') == "🙂 ü"


def test_utf_8_is_read_where_it_is_allowed():
    assert decoded('"ü"'.encode(), ascii_only=False) == "ü"
    with pytest.raises(CorruptError, match="byte 1 is not UTF-8"):
        decoded(b'"\xff"', ascii_only=False)


def test_depth_counts_values_and_not_only_containers():
    deepest = json.dumps([[[1]]]).encode()
    assert decoded(deepest, max_depth=3) == [[[1]]]
    with pytest.raises(CorruptError, match="deeper than 2"):
        decoded(deepest, max_depth=2)
    assert decoded(b'{"a": {"b": []}}', max_depth=2) == {"a": {"b": []}}


def test_a_repeated_key_is_cut_in_the_message():
    key = b'"' + b"k" * 10_000 + b'": 1'
    with pytest.raises(CorruptError) as caught:
        decoded(b"{" + key + b", " + key + b"}")
    assert len(str(caught.value)) < 200
