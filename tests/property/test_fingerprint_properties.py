"""What holds for every fingerprint: order does not count, types do, names never collide, documents come back, secrets stay out."""

from __future__ import annotations

import json
import math
import string

from hypothesis import assume, given
from hypothesis import strategies as st

from ckptfmt.errors import UnsupportedTypeError
from ckptfmt.format import canonical_json
from ckptfmt.format.fingerprint import Field, escape_name, escape_segment, show_value, typed_segment
from ckptfmt.run.fingerprint import Fingerprint, compare, mismatch_error
from ckptfmt.run.fingerprint_values import plain_fields

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
AWKWARD = st.text(st.sampled_from(string.digits + '.%*?[]()\\"/ \n\x1b~aé'), max_size=6)
KEYS = st.one_of(TEXT, AWKWARD, st.integers(-3, 3), st.booleans(), st.none(), st.floats(), st.tuples(st.integers(0, 2), AWKWARD))
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(0, 2),
    st.floats(),
    st.sampled_from([0.0, -0.0, 1.0, "1", "True", "None", b"1", 1 + 0j]),
    TEXT,
    st.binary(max_size=4),
)
HASHABLE = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=3).map(tuple), st.frozensets(inner, max_size=3)), max_leaves=5
)
VALUES = st.recursive(
    st.one_of(LEAVES, st.sets(HASHABLE, max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
    ),
    max_leaves=15,
)


def canonical(value):
    """What two values must share to be the same config, written without looking at how fingerprints are made."""
    if isinstance(value, dict):
        return ("mapping", frozenset((canonical(key), canonical(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return (type(value).__name__, tuple(map(canonical, value)))
    if isinstance(value, set | frozenset):
        return (type(value).__name__, frozenset(map(canonical, value)))
    if isinstance(value, float):
        return ("float", "nan" if math.isnan(value) else value.hex())
    if isinstance(value, complex):
        return ("complex", canonical(value.real), canonical(value.imag))
    return (type(value).__name__, value)


def shuffled(value, random):
    """The same value with the members of every mapping and set put in another order."""
    if isinstance(value, dict):
        items = [(key, shuffled(item, random)) for key, item in value.items()]
        random.shuffle(items)
        return dict(items)
    if isinstance(value, list | tuple):
        return type(value)(shuffled(item, random) for item in value)
    return value


def fields_of(value):
    """The fields of a config; values whose keys meet in one field are refused and left out."""
    try:
        return plain_fields("config", value, skip_none=False)
    except UnsupportedTypeError as error:
        assume("two keys" not in str(error))
        raise


@given(VALUES, st.randoms(use_true_random=False))
def test_the_order_of_mappings_does_not_count(value, random):
    fields_of(value)
    one, other = (Fingerprint(config=config, environment=False, code=False) for config in (value, shuffled(value, random)))
    assert one == other
    assert one.digest == other.digest
    assert compare(one.to_document(), other) == ()


@given(VALUES, VALUES)
def test_two_configs_have_the_same_fields_only_if_they_are_the_same(one, other):
    assert (fields_of(one) == fields_of(other)) is (canonical(one) == canonical(other))


@given(LEAVES, LEAVES)
def test_values_of_different_types_are_different(one, other):
    same = canonical(one) == canonical(other)
    assert (fields_of({"a": one}) == fields_of({"a": other})) is same
    assert (fields_of({"a": [0, one]}) == fields_of({"a": [0, other]})) is same
    assert (fields_of({"a": {one}}) == fields_of({"a": {other}})) is same
    assert (fields_of({one: 0}) == fields_of({other: 0})) is same


@given(st.floats())
def test_floats_are_exact(number):
    (leaf,) = plain_fields("x", number).values()
    assert canonical(float(leaf.value)) == canonical(number)


@given(st.lists(st.one_of(TEXT, AWKWARD), max_size=4), st.lists(st.one_of(TEXT, AWKWARD), max_size=4))
def test_paths_of_keys_and_field_names_are_one_to_one(one, other):
    names = [".".join(map(escape_segment, keys)) for keys in (one or [""], other or [""])]
    assert (names[0] == names[1]) is ((one or [""]) == (other or [""]))


@given(st.one_of(TEXT, AWKWARD), st.one_of(TEXT, AWKWARD))
def test_segments_hold_no_dots_wildcards_or_control_characters(one, other):
    for segment in (escape_segment(one), typed_segment("path", one)):
        assert not set(segment) & set(".*?[]\n\x1b")
    assert not set(escape_name(one)) & set("*?[]\n\x1b")
    assert escape_segment(one) != typed_segment("path", other)
    assert (escape_name(one) == escape_name(other)) is (one == other)


@given(VALUES)
def test_a_document_survives_json_and_has_the_same_digest(value):
    fields_of(value)
    made = Fingerprint(seed=value, config=value, environment=False, code="x")
    data = canonical_json.encode(made.to_document())
    stored = Fingerprint.from_document(canonical_json.decode(data, where="x", rule="E008", max_depth=4))
    assert stored == made
    assert stored.digest == made.digest
    assert canonical_json.encode(stored.to_document()) == data
    assert all(show_value(field).isprintable() for field in stored.fields.values())


@given(VALUES, VALUES)
def test_differences_name_exactly_the_fields_that_differ(one, other):
    one_fields, other_fields = fields_of(one), fields_of(other)
    assume(one is not None and other is not None)
    stored, current = (Fingerprint(config=config, environment=False, code=False) for config in (one, other))
    found = compare(stored.to_document(), current)
    expected = {name for name in one_fields.keys() | other_fields.keys() if one_fields.get(name) != other_fields.get(name)}
    assert {difference.field for difference in found} == expected
    assert (stored == current) is (not expected)
    if found:
        lines = str(mismatch_error(stored, found)).split("\n")
        assert len(lines) <= 13
        assert all(line.isprintable() for line in lines)


@given(
    secret=st.text(string.ascii_letters + string.digits + "!#/+-_", min_size=4, max_size=40).map("Zq9#".__add__),
    name=st.sampled_from(["password", "API_KEY", "hfToken", "client_secret", "aws_access_key_id", "credentials"]),
    wrap=st.sampled_from([lambda x: x, lambda x: [x], lambda x: {"user": x}, lambda x: [{"a": (x,)}, 1], lambda x: {x}, str.encode]),
)
def test_secrets_are_nowhere_in_a_document(secret, name, wrap):
    config = {"outer": {name: wrap(secret)}}
    made, other = (Fingerprint(config=config, environment=False, code=False) for _ in range(2))
    data = canonical_json.encode(made.to_document()).decode()
    for text in (secret, secret.encode().hex()):
        assert text not in data
        assert text not in json.dumps(Fingerprint.from_document(made.to_document()).to_document())
        assert text not in str(compare(made.to_document(), Fingerprint(config={"outer": {name: wrap("something else")}})))
    assert compare(made.to_document(), other) == ()


@given(st.text(), st.text(max_size=30), st.text())
def test_no_document_can_put_control_characters_on_a_terminal(name, kind, value):
    assert show_value(Field("must", kind, value)).isprintable()
