"""Types that an application registers under a name."""

from __future__ import annotations

import enum
from collections import namedtuple
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest

from ckptfmt.errors import CorruptError, UnsupportedTypeError
from ckptfmt.state import codecs
from ckptfmt.state.codecs import register_codec
from ckptfmt.state.tree import decode_state, encode_state
from tests.unit.test_state_exactness import round_trip


class Color(enum.Enum):
    RED = 1
    CRIMSON = 1  # noqa: PIE796  An alias is one of the cases.
    BLUE = "b"


class Level(enum.IntEnum):
    LOW = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4
    ALL = 7


Point = namedtuple("Point", "x y")


class Sized(NamedTuple):
    array: Any
    size: int = 3


@dataclass(frozen=True, slots=True)
class Frozen:
    lr: float
    betas: tuple[float, float] = (0.9, 0.99)


@dataclass
class Computed:
    a: int
    b: list[int] = field(default_factory=list)
    total: int = field(init=False, default=0)


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and self.cents == other.cents

    def __hash__(self) -> int:
        return hash(self.cents)


@pytest.fixture(autouse=True)
def own_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "_by_class", {})
    monkeypatch.setattr(codecs, "_by_name", {})
    for cls in (Color, Level, Access, Point, Sized, Frozen, Computed):
        register_codec(cls, name=f"test.{cls.__name__}")
    register_codec(Money, name="test.Money", encode=lambda money: money.cents, decode=Money)


@pytest.mark.parametrize(
    "value",
    [
        Color.RED,
        Color.CRIMSON,
        Color.BLUE,
        Level.LOW,
        Access.READ,
        Access.READ | Access.RUN,
        Access(0),
        Access.ALL,
        Point(1, (2, Point(3, 4))),
        Frozen(0.1),
        Computed(1, [2]),
        Money(5),
        {Money(5): Money(6), Color.RED: 1, Point(1, 2): 2, Frozen(1.0): 3, Level.LOW: 4},
        {Color.RED, Money(1), Access.READ | Access.WRITE},
    ],
    ids=lambda value: type(value).__name__,
)
def test_registered_value_comes_back(value: Any) -> None:
    loaded = round_trip({"a": [value]})["a"][0]
    assert loaded == value
    assert type(loaded) is type(value)
    if isinstance(value, enum.Enum):
        assert loaded is value


def test_fields_that_no_constructor_takes_are_kept() -> None:
    value = Computed(1)
    value.total = 7
    assert round_trip(value).total == 7


def test_registered_values_hold_tensors_under_their_own_path() -> None:
    value = {"a": Sized(np.arange(3), 5)}
    encoded = encode_state(value)
    assert encoded.tensors[0].keys == ("a", "0")
    loaded = round_trip(value)["a"]
    assert type(loaded) is Sized
    assert loaded.array.tolist() == [0, 1, 2]


def test_registered_codec_wins_over_libraries_but_not_over_python() -> None:
    register_codec(np.float64, name="test.f64", encode=float, decode=np.float64)
    assert encode_state(np.float64(2)).tree == {"$registered": ["test.f64", 2.0]}
    register_codec(dict, name="test.dict", encode=list, decode=dict)
    assert encode_state({"a": 1}).tree == {"a": 1}


def test_registering_again_is_fine_and_a_taken_name_is_not() -> None:
    register_codec(Color, name="test.Color")
    with pytest.raises(ValueError, match=r"test\.Color.*belongs to .*Color"):
        register_codec(Level, name="test.Color")


def test_a_class_is_read_under_its_older_names_and_written_under_the_latest() -> None:
    register_codec(Money, name="test.Cash", encode=lambda money: money.cents, decode=Money)
    assert encode_state(Money(5)).tree == {"$registered": ["test.Cash", 5]}
    assert decode_state({"$registered": ["test.Money", 5]}, None) == Money(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "x" * 101, "a\n"])
def test_malformed_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        register_codec(Color, name=name)


def test_functions_come_in_pairs_and_are_needed_for_other_classes() -> None:
    with pytest.raises(ValueError, match="both or neither"):
        register_codec(Money, name="test.x", encode=str)
    with pytest.raises(ValueError, match="give encode and decode"):
        register_codec(Money, name="test.x")
    with pytest.raises(TypeError, match="expected a class"):
        register_codec(5, name="test.x")  # type: ignore[arg-type]


def test_unknown_name_is_refused_with_what_to_do() -> None:
    with pytest.raises(UnsupportedTypeError, match=r"'app\.Thing'\nCall ckptfmt\.register_codec") as caught:
        decode_state({"a": {"$registered": ["app.Thing", 1]}}, None)  # type: ignore[arg-type]
    assert caught.value.path == "a"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("test.Color", "GREEN"),
        ("test.Color", 5),
        ("test.Color", ["RED"]),
        ("test.Access", ["READ", "x"]),
        ("test.Point", [1]),
        ("test.Point", {"x": 1, "y": 2}),
        ("test.Frozen", {"what": 1}),
        ("test.Frozen", {}),
        ("test.Frozen", [1]),
    ],
)
def test_content_that_a_class_does_not_take_is_refused(name: str, content: Any) -> None:
    with pytest.raises(CorruptError, match=name) as caught:
        decode_state({"a": {"$registered": [name, content]}}, None)  # type: ignore[arg-type]
    assert caught.value.rule == "E027"
    assert caught.value.path == "a"


def test_a_dataclass_that_gained_a_field_loads_what_was_stored_before() -> None:
    assert decode_state({"$registered": ["test.Frozen", {"lr": 0.5}]}, None) == Frozen(0.5)  # type: ignore[arg-type]


def test_flags_without_a_name_are_refused_when_saving() -> None:
    class Loose(enum.Flag, boundary=enum.KEEP):
        A = 1

    register_codec(Loose, name="test.Loose")
    with pytest.raises(ValueError, match="bits without a name"):
        encode_state(Loose(9))
