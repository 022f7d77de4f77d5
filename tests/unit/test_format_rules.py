"""How a broken rule becomes an error."""

import pickle

import pytest

from ckptfmt.errors import CorruptError, FormatError, LimitError, UnsupportedVersionError
from ckptfmt.format.rules import TITLES, shown, violation, visible


def test_the_message_says_where_what_expected_found_and_the_rule():
    error = violation("E031", "c/model.safetensors", expected="a", found="b", advice="Use another copy.")
    assert str(error) == "c/model.safetensors: digest differs: expected a, found b [E031]\nUse another copy."
    assert (error.rule, error.path, error.expected, error.found, error.tensor) == ("E031", "c/model.safetensors", "a", "b", None)


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({}, "f: file is missing [E012]"),
        ({"expected": 1}, "f: file is missing: expected 1 [E012]"),
        ({"found": 0}, "f: file is missing: found 0 [E012]"),
        ({"expected": 0, "found": 0}, "f: file is missing: expected 0, found 0 [E012]"),
        ({"what": "size"}, "f: size [E012]"),
    ],
)
def test_facts_that_are_not_given_are_left_out(facts, text):
    assert str(violation("E012", "f", **facts)) == text


@pytest.mark.parametrize(
    ("rule", "kind"), [("E006", UnsupportedVersionError), ("E007", UnsupportedVersionError), ("E002", LimitError), ("E004", CorruptError)]
)
def test_the_class_says_who_must_act(rule, kind):
    assert type(violation(rule, "f")) is kind


@pytest.mark.parametrize(
    ("text", "seen"),
    [("plain ü 🙂", "plain ü 🙂"), ("a\nb\t", "a\\nb\\t"), ("\x1b[31m", "\\x1b[31m"), ("\u202e", "\\u202e"), ("\U000e0001", "\\U000e0001")],
)
def test_what_cannot_be_seen_is_escaped(text, seen):
    assert visible(text) == seen


def test_values_in_messages_have_an_end():
    nested = []
    for _ in range(10_000):
        nested = [nested]
    for value in ("x" * 1000, [1] * 1000, nested, {"a": "y" * 1000}):
        assert len(shown(value)) <= 120


def test_violations_survive_pickling():
    error = violation("E040", "f", expected="a", found="b", tensor="w")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_every_code_makes_an_error():
    for rule in TITLES:
        assert isinstance(violation(rule, "f"), FormatError)
        assert isinstance(violation(rule, "f"), ValueError)
