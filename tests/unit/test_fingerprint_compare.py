"""What differs between two fingerprints, how much it matters, and how it is said."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from ckptfmt.errors import CorruptError, FingerprintMismatchError, UnsupportedVersionError
from ckptfmt.format import canonical_json
from ckptfmt.format.fingerprint import Difference, Field, show_value
from ckptfmt.run.fingerprint import Fingerprint, compare, mismatch_error


def fingerprint(config=None, *, seed=1, code="v1", **options):
    return Fingerprint(seed=seed, config=config, code=code, environment=False, **options)


def differences(stored, current, **options):
    return [(d.field, d.expected, d.found, d.severity) for d in compare(stored.to_document(), current, **options)]


def test_the_same_experiment_has_no_differences_and_the_same_digest():
    one, other = fingerprint({"a": 1, "b": {"c": 2}}), fingerprint({"b": {"c": 2}, "a": 1})
    assert compare(one.to_document(), other) == ()
    assert one == other
    assert one.digest == other.digest
    assert hash(one) == hash(other)
    assert one.to_document() == other.to_document()


def test_changed_missing_and_added_fields_are_errors_in_the_order_of_their_names():
    stored, current = fingerprint({"a": 1, "gone": "x"}), fingerprint({"a": 1.0, "new": [1, "y"]}, seed=2)
    assert differences(stored, current) == [
        ("config.a", 1, 1.0, "error"),
        ("config.gone", "x", None, "error"),
        ("config.new", None, "[1, 'y']", "error"),
        ("seed", 1, 2, "error"),
    ]
    assert stored != current
    assert stored.digest != current.digest


def test_code_and_environment_warn_by_default():
    assert differences(fingerprint(), fingerprint(code="v2")) == [("code", "v1", "v2", "warning")]
    assert fingerprint().digest == fingerprint(code="v2").digest
    assert fingerprint() != fingerprint(code="v2")


def test_errors_come_first():
    found = compare(fingerprint({"z": 1}).to_document(), fingerprint({"z": 2}, code="v2"))
    assert [difference.severity for difference in found] == ["error", "warning"]


def test_code_that_one_side_does_not_know_is_only_told():
    assert differences(fingerprint(), fingerprint(code=False)) == [("code", "v1", None, "info")]
    assert differences(fingerprint(code=False), fingerprint()) == [("code", None, "v1", "info")]
    assert differences(fingerprint(), fingerprint(code=False, must="code")) == [("code", "v1", None, "error")]


def test_globs_decide_what_a_difference_means_and_the_longest_one_counts():
    stored = fingerprint({"logging": {"level": 1, "file": "a"}, "lr": 1})
    current = fingerprint(
        {"logging": {"level": 2, "file": "b"}, "lr": 2}, code="v2", warn=["config.*"], free=["config.logging.*"], must=["config.lr", "code"]
    )
    assert [(field, severity) for field, _, _, severity in differences(stored, current)] == [
        ("code", "error"),
        ("config.lr", "error"),
        ("config.logging.file", "info"),
        ("config.logging.level", "info"),
    ]


def test_a_field_that_is_gone_has_the_class_that_the_current_program_gives_it():
    assert differences(fingerprint({"log": 1}), fingerprint({}, free="config.log"))[-1] == ("config.log", 1, None, "info")


def test_free_fields_do_not_count_for_the_digest():
    assert fingerprint({"verbose": 1}, free="config.verbose").digest == fingerprint({"verbose": 2}, free="config.verbose").digest


def test_allowed_changes_are_said_to_be_allowed():
    stored, current = fingerprint({"n_trials": 20, "optimizer": {"lr": 1}}), fingerprint({"n_trials": 30, "optimizer": {"lr": 2}})
    allowed = differences(stored, current, allow=["config.n_trials", "config.optimizer.*"])
    assert [severity for *_, severity in allowed] == ["allowed", "allowed"]
    assert [severity for *_, severity in differences(stored, current, allow="config.n_trials")] == ["error", "allowed"]


def test_a_name_with_wildcards_in_it_can_be_allowed_as_it_is_shown():
    stored, current = fingerprint({"a[0]*": 1}), fingerprint({"a[0]*": 2})
    (difference,) = compare(stored.to_document(), current)
    assert [severity for *_, severity in differences(stored, current, allow=[difference.field])] == ["allowed"]


def test_nan_equals_nan_and_zero_keeps_its_sign():
    assert not differences(fingerprint({"a": float("nan")}), fingerprint({"a": float("nan")}))
    assert differences(fingerprint({"a": 0.0}), fingerprint({"a": -0.0}))


def test_types_are_named_when_values_look_the_same():
    assert differences(fingerprint({"a": "file"}), fingerprint({"a": b"\xf1"})) == [("config.a", "file", "f1", "error")]
    assert differences(fingerprint({"a": {1}}), fingerprint({"a": frozenset({1})})) == [
        ("config.a", "set {1}", "frozenset {1}", "error"),
    ]


def test_the_message_names_fields_values_and_what_to_do():
    stored, current = fingerprint({"lr": 0.001, "b": 1}), fingerprint({"lr": 0.0003, "b": 1})
    error = mismatch_error(stored.to_document(), compare(stored.to_document(), current), where="runs/exp1")
    assert isinstance(error, FingerprintMismatchError)
    assert str(error) == (
        "runs/exp1: fingerprint differs in 1 of 4 fields: config.lr 0.001 -> 0.0003\n"
        'This is a sound checkpoint of another experiment. Allow it with allow_changes=["config.lr"] if the change is meant.'
    )
    assert error.differences == (Difference("config.lr", 0.001, 0.0003, "error"),)
    assert pickle.loads(pickle.dumps(error)).differences == error.differences


def test_the_message_shows_ten_differences_and_counts_the_rest():
    stored, current = fingerprint({f"k{i:02}": 0 for i in range(25)}), fingerprint({f"k{i:02}": 1 for i in range(25)}, code="v2")
    error = mismatch_error(stored, compare(stored, current))
    lines = str(error).split("\n")
    assert lines[0] == "fingerprint differs in 25 of 27 fields:"
    assert lines[1] == "  config.k00 0 -> 1"
    assert lines[11] == "  and 15 more (.differences has all)"
    assert lines[12].endswith('"config.k03", "config.k04", ...] if the change is meant.')
    assert len(error.differences) == 26


def test_differences_that_only_warn_are_worded_as_such():
    found = compare(fingerprint().to_document(), fingerprint(code="v2"))
    assert str(mismatch_error(fingerprint().to_document(), found)) == (
        "fingerprint differs in 1 of 2 fields: code v1 -> v2\nResults may differ from those of an uninterrupted run."
    )


def test_long_values_are_cut_and_control_characters_escaped():
    stored, current = fingerprint({"a": "x" * 500, "b\x1b": "\x1b[31m"}), fingerprint({"a": "y" * 500, "b\x1b": "\u202e"})
    text = str(mismatch_error(stored, compare(stored, current)))
    assert "x" * 57 + "... -> yyy" in text
    assert "config.b%1B \\x1b[31m -> \\u202e" in text
    assert all(line.isprintable() for line in text.split("\n"))


def test_hostile_documents_are_shown_without_control_characters():
    for field in (
        Field("must", "list", '["str \\u001b[2J", {"list": [{"x\\u0007": 3}]}]'),
        Field("must", "list", "[" * 10_000),
        Field("must", "set", "\x1b{}"),
        Field("must", "tuple", '{"a\\u001b": 1}'),
        Field("must", "what-is-this", "\x9b\u202e"),
        Field("must", "str-digest", "\n"),
    ):
        assert show_value(field).isprintable()


def test_a_document_is_plain_json_that_fits_a_manifest_and_comes_back():
    made = fingerprint({"a": float("inf"), "b": 1 << 70, "c": "ä\x00\U0001f600", "password": "x", "d": [{"e": None}]})
    data = canonical_json.encode(made.to_document())
    document = canonical_json.decode(data, where="test", rule="E008", max_depth=4)
    stored = Fingerprint.from_document(document)
    assert stored == made
    assert made == stored
    assert stored.digest == made.digest
    assert stored.to_document() == document
    assert stored.fields == made.fields
    assert compare(document, made) == ()


def test_a_stored_fingerprint_can_be_compared_with_another_one():
    stored, current = (Fingerprint.from_document(fingerprint({"lr": lr}, free=["seed"]).to_document()) for lr in (1, 2))
    assert [(d.field, d.severity) for d in compare(stored, current)] == [("config.lr", "error")]
    gone = Fingerprint.from_document(fingerprint({"lr": 1}, seed=None).to_document())
    assert [(d.field, d.severity) for d in compare(stored, gone)] == [("seed", "info")]


def test_a_changed_document_is_refused():
    document = fingerprint({"lr": 1}).to_document()
    changes = [
        ({"fields": {**document["fields"], "config.lr": "must int 2"}}, "digest differs"),
        ({"fields": {**document["fields"], "config.lr": "should int 1"}}, "config.lr"),
        ({"fields": {**document["fields"], "config.lr": 1}}, "config.lr"),
        ({"fields": {**document["fields"], "config.\ud800": "must int 1"}}, "is wrong"),
        ({"fields": {**document["fields"], "config.lr": "must secret 1"}}, "config.lr"),
        ({"fields": {**document["fields"], "config.lr": "must secret " + "0" * 64}}, "salt"),
        ({"fields": []}, "fields"),
        ({"digest": "blake3:1"}, "digest"),
        ({"salt": "x"}, "salt"),
        ({"version": 1}, "version"),
        ({"version": None}, "version"),
    ]
    for change, said in changes:
        with pytest.raises(CorruptError, match=said) as caught:
            Fingerprint.from_document({**document, **change}, where="run.json")
        assert str(caught.value).startswith("run.json: ")
    with pytest.raises(CorruptError, match="not a fingerprint"):
        compare({"my own": 1}, fingerprint())


def test_a_newer_major_version_is_refused_and_a_newer_minor_read():
    document = fingerprint({"lr": 1}).to_document()
    with pytest.raises(UnsupportedVersionError, match="Update ckptfmt"):
        Fingerprint.from_document({**document, "version": [2, 0]})
    assert Fingerprint.from_document({**document, "version": [1, 7], "more": 1}).digest == document["digest"]


def test_a_fingerprint_can_be_copied_and_sent_to_another_process():
    made = fingerprint({"a": 1, "token": "abc"})
    for same in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert same == made
        assert same.to_document() == made.to_document()


def test_the_representation_is_short():
    assert repr(fingerprint({"a": 1})).startswith("<Fingerprint blake3:")
    assert json.dumps(fingerprint({"a": 1}).to_document())


def test_options_are_checked():
    with pytest.raises(ValueError, match="data_mode='fast': expected 'full' or 'sampled'"):
        Fingerprint(data_mode="fast")
