"""Pickles are followed and never run: what they describe comes out equal, what is no plain data is refused by name."""

from __future__ import annotations

import io
import pickle
from collections import Counter, OrderedDict, defaultdict, deque
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.adapters.pickle_reader import Instance, read_pickle
from ckptfmt.adapters.pickle_values import PLAIN_FINISHERS, PLAIN_NAMES, finish_values

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20) | st.binary(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=5)
        | st.sets(st.integers(), max_size=5)
    ),
    max_leaves=30,
)


def read(data: bytes, *, allow_unknown: bool = False) -> Any:
    value = read_pickle(io.BytesIO(data), PLAIN_NAMES, where="file", allow_unknown=allow_unknown)
    return finish_values(value, PLAIN_FINISHERS, where="file")


@given(value=PLAIN, protocol=st.integers(0, 5))
def test_plain_values_come_out_equal_in_every_protocol(value: Any, protocol: int) -> None:
    assert read(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        OrderedDict(b=1, a=2),
        defaultdict(list, {1: [2]}),
        Counter("hello"),
        deque([1, 2], maxlen=3),
        frozenset({1, 2}),
        bytearray(b"\x00\xff"),
        complex(1, -2),
        slice(1, 2, None),
        range(0, 10, 3),
        datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
        date(2026, 1, 2),
        timedelta(days=1, microseconds=3),
        Decimal("1.50"),
        10**100,
        -(2**31),
        "\udcff half a surrogate",
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_of_the_standard_library_come_out_equal(value: Any, protocol: int) -> None:
    found = read(pickle.dumps(value, protocol))
    assert found == value
    assert type(found) is type(value)


def test_what_is_shared_stays_shared() -> None:
    inner = [1]
    found = read(pickle.dumps([inner, inner, {"a": inner}], 4))
    assert found[0] is found[1] is found[2]["a"]


class Unknown:
    def __init__(self) -> None:
        self.rate = 0.1


def test_all_names_that_are_no_plain_data_are_refused_at_once_and_nothing_is_run(capfd: pytest.CaptureFixture[str]) -> None:
    data = b"\x80\x02](cos\nsystem\nX\x09\x00\x00\x00echo ran!\x85Rcbuiltins\neval\nX\x01\x00\x00\x001\x85Re."
    with pytest.raises(ckptfmt.UnsupportedTypeError, match=r"file: asks for 2 names that are no plain data: os\.system, builtins\.eval\n"):
        read(data)
    assert "ran!" not in capfd.readouterr().out


def test_even_where_unknown_names_are_allowed_nothing_is_run(capfd: pytest.CaptureFixture[str]) -> None:
    found = read(b"\x80\x02cos\nsystem\nX\x09\x00\x00\x00echo ran!\x85R.", allow_unknown=True)
    assert found == {"__class__": "os.system", "__arguments__": ["echo ran!"]}
    assert "ran!" not in capfd.readouterr().out


@pytest.mark.parametrize("protocol", range(6))
def test_an_object_of_an_unknown_class_becomes_a_mapping_where_that_is_asked_for(protocol: int) -> None:
    found = read(pickle.dumps({"config": Unknown()}, protocol), allow_unknown=True)
    assert found == {"config": {"__class__": f"{__name__}.Unknown", "rate": 0.1}}


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "exhausted before seeing STOP"),
        (b"garbage", "no newline found"),
        (b"\x80\x02N", "exhausted before seeing STOP"),
        (b"\x80\x02.", "pop from empty list"),
        (b"\x80\x02K\x01R.", "call: expected a tuple, found int"),
        (b"\x80\x02K\x01)R.", "pop from empty list|calls a value of type int"),
        (b"\x80\x02K\x01K\x02)R0.", "it calls a value of type int"),
        (b"\x80\x02](K\x01", "exhausted"),
        (b"\x80\x02N(K\x01.", "it ends in the middle|pop from"),
        (b"\x80\x02}K\x01s.", "list index out of range"),
        (b"\x80\x02}(K\x01u.", "a key without a value"),
        (b"\x80\x02}(]K\x01u.", "unhashable"),
        (b"\x80\x02h\x05.", "5"),
        (b"\x80\x02N\x82\x01.", "instruction EXT1 is not read"),
        (b"\x80\x05\x97.", "instruction NEXT_BUFFER is not read"),
        (b"\x80\x02NQ.", "it refers to something outside"),
        (b"\x80\x02K\x01Nb.", "gives attributes to a value of type int"),
        (b"cbuiltins\nset\n(cbuiltins\nrange\n(J\xff\xff\xff\x7ftRtR.", "set: expected items, found range"),
        (b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR.", "a bytearray is made from a number"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.", "expected|exceeds"),
    ],
    ids=lambda value: value.hex()[:24] if isinstance(value, bytes) else value[:24],
)
def test_an_unsound_pickle_is_named_damaged(data: bytes, what: str) -> None:
    with pytest.raises(ckptfmt.CorruptError, match=rf"(?s)file: not a sound pickle: .*({what})"):
        read(data)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with_header = b"\x80\x04" + data + b"."
    with suppress(ckptfmt.FormatError, ckptfmt.UnsupportedTypeError):
        read(with_header, allow_unknown=True)


def test_a_value_that_holds_itself_is_refused() -> None:
    items: list[Any] = []
    items.append(items)
    with pytest.raises(ckptfmt.CorruptError, match="a list holds itself"):
        read(pickle.dumps(items, 4))


def test_a_few_lists_that_hold_each_other_a_billion_times_are_refused() -> None:
    items: list[Any] = []
    for _ in range(40):
        items = [items, items]
    with pytest.raises(ckptfmt.LimitError, match="more than 50,000,000 values, counting what is shared each time"):
        read(pickle.dumps(items, 4))


def test_values_nested_too_deeply_are_refused() -> None:
    with pytest.raises(ckptfmt.LimitError, match="nested more than 128 deep"):
        read(b"\x80\x02" + b"]" * 1000 + b"a" * 999 + b".")


def test_an_instance_survives_where_only_reading_is_asked_for() -> None:
    found = read_pickle(io.BytesIO(pickle.dumps(Unknown(), 2)), {}, where="file", allow_unknown=True)
    assert isinstance(found, Instance)
    assert found.name.endswith(".Unknown")
