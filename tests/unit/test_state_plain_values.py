"""Every row of the table of values in spec 8 that Python itself provides: exact type, exact value, exact order."""

from __future__ import annotations

import argparse
import math
import random
import struct
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PosixPath, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from ckptfmt.errors import CorruptError
from ckptfmt.state.tree import decode_state, encode_state
from tests.unit.test_state_exactness import Stored, assert_same, round_trip


def float_of(bits: int) -> float:
    value: float = struct.unpack("<d", struct.pack("<Q", bits))[0]
    return value


NAN_WITH_PAYLOAD = float_of(0x7FF8_0000_DEAD_BEEF)
NEGATIVE_NAN = float_of(0xFFF8_0000_0000_0001)
SIGNALING_NAN = float_of(0x7FF0_0000_0000_0001)
KOLKATA = timezone(timedelta(hours=5, minutes=30))

VALUES = [
    None,
    True,
    False,
    0,
    -1,
    2**63 - 1,
    2**64 - 1,
    -(2**63),
    2**64,
    -(2**63) - 1,
    2**127,
    2**128,
    -(2**127),
    10**400,
    -(10**400),
    0.0,
    -0.0,
    1.5,
    math.inf,
    -math.inf,
    NAN_WITH_PAYLOAD,
    NEGATIVE_NAN,
    SIGNALING_NAN,
    5e-324,
    complex(1, -0.0),
    complex(NAN_WITH_PAYLOAD, -math.inf),
    "",
    "text",
    "käse 😀 \x00 \n",
    b"",
    b"\x00\xff",
    bytearray(b"abc"),
    [],
    [1, [2, [3, "x"]]],
    (),
    (1, (2.0, "a"), [3]),
    {},
    {"a": 1, "b": {"c": None}},
    {"b": 1, "a": 2},
    {1: "one", "1": "text", 2.5: "float", None: "none", (1, 2): "tuple", b"x": "bytes", frozenset({1}): "set"},
    {"$tuple": [1]},
    {"$a": 1, "b": 2},
    {"": 0},
    {2**70: "big", -(2**70): "negative"},
    {date(2020, 1, 2): 1, Decimal("1.5"): 2, UUID(int=5): 3, timedelta(1): 4, (1, (2, frozenset({3}))): 5, 1j: 6},
    OrderedDict([("b", 1), ("a", 2)]),
    OrderedDict([(1, "x")]),
    defaultdict(list, a=[1]),
    defaultdict(None, {1: 2}),
    defaultdict(int),
    Counter("hello"),
    Counter({"a": -1, 2: 0.5}),
    set(),
    {1, 2, "a", None, (1, 2), 2.5, b"z"},
    {frozenset({1, frozenset({2})}), frozenset()},
    frozenset({"x", 3}),
    deque([1, 2, 3]),
    deque([1, 2, 3], maxlen=5),
    deque(maxlen=0),
    range(10),
    range(5, -7, -3),
    range(10**30, 10**31, 7),
    slice(None),
    slice(1, "x", (2, 3)),
    Decimal("1.10"),
    Decimal("-0"),
    Decimal("NaN123"),
    Decimal("sNaN"),
    Decimal("-Infinity"),
    Decimal("1E+999"),
    Decimal(3) / Decimal(7),
    UUID("12345678-1234-5678-1234-567812345678"),
    PosixPath("/a/b"),
    Path("."),
    PurePosixPath("a/b.txt"),
    PureWindowsPath("C:/x/y"),
    date(2024, 2, 29),
    date.min,
    time(12, 30),
    time(1, 2, 3, 4, fold=1),
    time(1, tzinfo=UTC),
    time(1, tzinfo=ZoneInfo("Europe/Berlin")),
    datetime(2024, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001  A naive value is one of the cases.
    datetime(2024, 1, 2, tzinfo=UTC),
    datetime(2024, 1, 2, tzinfo=KOLKATA),
    datetime(2024, 1, 2, tzinfo=timezone(timedelta(seconds=-1), "odd")),
    datetime(2023, 10, 29, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    datetime.max.replace(tzinfo=ZoneInfo("Asia/Tokyo")),
    timedelta(days=-1, microseconds=1),
    timedelta.min,
    timedelta.max,
    UTC,
    KOLKATA,
    timezone(timedelta(hours=1), "CET"),
    argparse.Namespace(lr=0.1, layers=[1, 2]),
    SimpleNamespace(a=1, b=SimpleNamespace()),
    random.Random(5),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_value_comes_back_exactly(value: Any) -> None:
    assert_same(value, round_trip(value))
    assert_same([value, {"x": value}], round_trip([value, {"x": value}]))


def test_a_generator_continues_where_it_was() -> None:
    generator = random.Random(3)
    generator.gauss(0, 1)
    loaded = round_trip(generator)
    assert [loaded.gauss(0, 1) for _ in range(5)] == [generator.gauss(0, 1) for _ in range(5)]


def test_ordered_dict_keeps_its_metadata_attribute() -> None:
    state: Any = OrderedDict(weight=1)
    state._metadata = OrderedDict({"": {"version": 1}})
    stored = Stored(state)
    assert "$state_dict" in stored.tree
    assert_same(state, stored.load())


def test_plain_mapping_is_written_as_a_map_and_others_as_pairs() -> None:
    assert encode_state({"a": 1}).tree == {"a": 1}
    assert encode_state({1: 2}).tree == {"$dict": [1, 2]}
    assert encode_state({"$x": 2}).tree == {"$dict": ["$x", 2]}


def test_set_has_one_packed_form_whatever_its_order() -> None:
    words = [f"word{number}" for number in range(50)] + [(number, frozenset({number, "x"})) for number in range(20)]
    forms = set()
    for seed in range(5):
        random.Random(seed).shuffle(words)
        forms.add(Stored(set(words)).packed)
    assert len(forms) == 1


def test_path_of_another_system_becomes_its_pure_class() -> None:
    loaded = decode_state({"$path": ["windows", "C:\\x"]}, lambda number: None)  # type: ignore[arg-type,return-value]
    assert_same(PureWindowsPath("C:/x"), loaded)


def test_shared_containers_are_stored_once_for_each_reference() -> None:
    shared = [1]
    loaded = round_trip([shared, shared])
    assert loaded == [[1], [1]]
    assert loaded[0] is not loaded[1]


def test_saving_changes_nothing() -> None:
    state = {"a": [1, {2}], (1,): deque([defaultdict(list)])}
    before = repr(state)
    encode_state(state)
    assert repr(state) == before


def test_an_object_is_asked_for_its_state_dict() -> None:
    class Optimizer:
        def state_dict(self) -> dict[str, Any]:
            return {"lr": 0.1, "inner": Inner()}

    class Inner:
        def state_dict(self) -> Any:
            return (1, 2)

    assert round_trip({"optimizer": Optimizer()}) == {"optimizer": {"lr": 0.1, "inner": (1, 2)}}


@pytest.mark.parametrize(
    "tree",
    [
        {"$unknown": 1},
        {"$int": b"\x01"},
        {"$int": b"\x00" * 9 + b"\x01"},
        {"$int": 5},
        {"$complex": [1.0]},
        {"$complex": [1, 2.0]},
        {"$bytearray": "x"},
        {"$decimal": "1_0"},
        {"$decimal": " 1"},
        {"$decimal": "x"},
        {"$uuid": b"123"},
        {"$path": ["other", "x"]},
        {"$path": ["posix", 1]},
        {"$date": "2020-1-1"},
        {"$date": "20200101"},
        {"$datetime": ["2020-01-01", 0, None]},
        {"$datetime": ["2020-01-01T00:00:00+00:00", 0, None]},
        {"$datetime": ["2020-01-01T00:00:00", 2, None]},
        {"$datetime": ["2020-01-01T00:00:00", True, None]},
        {"$datetime": ["2020-01-01T00:00:00", 0, {"zone": 5}]},
        {"$datetime": ["2020-01-01T00:00:00", 0, "UTC"]},
        {"$time": ["25:00:00", 0, None]},
        {"$timedelta": [0, 86_400, 0]},
        {"$timedelta": [10**9, 0, 0]},
        {"$timezone": [86_400_000_000, None]},
        {"$timezone": [0, 5]},
        {"$range": [1, 2]},
        {"$range": [1, 2, 0]},
        {"$range": [1, 2.0, 1]},
        {"$slice": [1]},
        {"$tuple": {}},
        {"$dict": [1]},
        {"$dict": [1, 2, 1, 3]},
        {"$dict": [[1], 2]},
        {"$dict": [{"$set": []}, 2]},
        {"$set": [2, 1]},
        {"$set": [1, 1]},
        {"$frozenset": [[1]]},
        {"$deque": [1, [1, 2]]},
        {"$deque": [-1, []]},
        {"$counter": [1]},
        {"$defaultdict": ["eval", []]},
        {"$defaultdict": [["list"], []]},
        {"$namespace": ["os", {}]},
        {"$namespace": ["simple", []]},
        {"$state_dict": [[1], None]},
        {"$python_random": [3, {"$tuple": [1] * 624}, None]},
        {"$python_random": [3, {"$tuple": [0] * 624 + [625]}, None]},
        {"$python_random": [2, {"$tuple": [0] * 625}, None]},
        {"$registered": ["with space", 1]},
    ],
    ids=str,
)
def test_wrong_payload_is_refused_with_its_rule_and_path(tree: Any) -> None:
    with pytest.raises(CorruptError) as caught:
        decode_state({"a": [0, tree]}, lambda number: None)  # type: ignore[arg-type,return-value]
    assert caught.value.rule == "E027"
    assert caught.value.path is not None
    assert caught.value.path.startswith("a[1]")
    assert "[E027]" in str(caught.value)
    assert len(str(caught.value).splitlines()[0]) < 300
