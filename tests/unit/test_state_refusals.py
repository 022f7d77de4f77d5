"""What is not stored is refused before anything is written: by place, by type, with what to do."""

from __future__ import annotations

import enum
import subprocess
import sys
from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ckptfmt.errors import LimitError, UnsupportedTypeError
from ckptfmt.state.tree import decode_state, encode_state


class Thing:
    pass


class MyDict(dict[str, Any]):
    pass


class MyInt(int):
    pass


class Zone(tzinfo):
    pass


class Color(enum.Enum):
    RED = 1


@dataclass
class Config:
    lr: float = 0.1


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("state", "path"),
    [
        (Thing(), "state"),
        ({"optimizer": {"state": {0: {"hook": Thing()}}}}, "optimizer.state[0]['hook']"),
        ({"model": {"layer.0.weight": Thing()}}, "model['layer.0.weight']"),
        ([Thing()], "state[0]"),
        ({0: Thing()}, "state[0]"),
        ({"a": [{"b": Thing()}]}, "a[0]['b']"),
        ({"a": {"b": (1, {"c": Thing()})}}, "a.b[1]['c']"),
        ({"a": {(1, "x"): Thing()}}, "a[<tuple>]"),
        ({"a": {Thing(): 1}}, "a"),
        ({"a": {Thing()}}, "a"),
        ({"a": SimpleNamespace(b=Thing())}, "a.b"),
        ({"a": lambda: 1}, "a"),
        ({"a": Thing}, "a"),
        ({"a": object()}, "a"),
    ],
)
def test_refusal_names_the_place_and_the_type(state: Any, path: str) -> None:
    with pytest.raises(UnsupportedTypeError) as caught:
        encode_state(state)
    assert caught.value.path == path
    first, advice = str(caught.value).split("\n", 1)
    assert first.startswith(path + ": ")
    assert "register_codec" in advice
    assert len(first) < 120 + len(path)


@pytest.mark.parametrize(
    "value",
    [
        MyDict(a=1),
        MyInt(1),
        Color.RED,
        Config(),
        Point(1, 2),
        defaultdict(lambda: 1),
        defaultdict(OrderedDict),
        datetime(2020, 1, 1, tzinfo=Zone()),
        "\ud800",
        {"\ud800": 1},
        {"a": ["x\udfff"]},
        Path("bad\udcff"),
        SimpleNamespace(**{"$a": 1}),
        iter([]),
        memoryview(b""),
        (1).__add__,
        NotImplemented,
        ...,
        Exception("x"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_in_no_table_is_refused(value: Any) -> None:
    with pytest.raises(UnsupportedTypeError):
        encode_state({"a": value})


@pytest.mark.parametrize("value", [Color.RED, Config(), Point(1, 2)], ids=lambda value: type(value).__name__)
def test_refusal_says_that_enums_dataclasses_and_named_tuples_can_be_registered_without_functions(value: Any) -> None:
    with pytest.raises(UnsupportedTypeError, match=rf"register_codec\({type(value).__name__}, name=.*no functions"):
        encode_state(value)


def test_refusal_of_a_subclass_says_what_to_convert_it_to() -> None:
    with pytest.raises(UnsupportedTypeError, match=r"MyDict are not stored\nConvert it to a plain dict\. Or: register it"):
        encode_state(MyDict(a=1))


def test_an_object_with_a_state_dict_is_no_key() -> None:
    class Model:
        def state_dict(self) -> dict[str, Any]:
            return {}

    with pytest.raises(UnsupportedTypeError):
        encode_state({Model(): 1})


@pytest.mark.parametrize("make", [lambda inner: [inner], lambda inner: {"a": inner}, lambda inner: (inner,), lambda inner: {1: inner}])
def test_nesting_ends_at_256_levels(make: Any) -> None:
    state: Any = 5
    for _ in range(256):
        state = make(state)
    encode_state(state)
    with pytest.raises(LimitError) as caught:
        encode_state(make(state))
    assert caught.value.rule == "E026"
    assert len(str(caught.value).splitlines()[0]) < 200


def test_a_structure_that_contains_itself_is_refused() -> None:
    state: dict[str, Any] = {"a": []}
    state["a"].append(state)
    with pytest.raises(LimitError, match="contains itself") as caught:
        encode_state(state)
    assert caught.value.path is not None
    assert caught.value.path.startswith("a[0]['a'][0]")


def test_a_state_dict_that_returns_itself_is_refused() -> None:
    class Endless:
        def state_dict(self) -> Any:
            return self

    with pytest.raises(LimitError):
        encode_state(Endless())


def test_depth_of_the_callers_stack_does_not_matter() -> None:
    state: Any = ()
    for _ in range(250):
        state = [(state,)[0]]

    def deep(levels: int) -> Any:
        if levels:
            return deep(levels - 1)
        return decode_state(encode_state(state).tree, lambda number: None)  # type: ignore[arg-type,return-value]

    frame, depth = sys._getframe(), 0
    while frame is not None:
        frame, depth = frame.f_back, depth + 1  # type: ignore[assignment]
    assert deep(sys.getrecursionlimit() - depth - 60) == state


@pytest.mark.parametrize("tag", ["list", "map", "$tuple", "$dict", "$set"])
def test_decoding_ends_at_256_levels(tag: str) -> None:
    def nested(levels: int) -> Any:
        tree: Any = 5
        for _ in range(levels):
            tree = {"list": [tree], "map": {"a": tree}, "$tuple": {"$tuple": [tree]}, "$dict": {"$dict": [1, tree]}}.get(
                tag, {"$frozenset": [tree]}
            )
        return tree

    decode_state(nested(256), lambda number: None)  # type: ignore[arg-type,return-value]
    for levels in (257, 330):
        with pytest.raises(LimitError) as caught:
            decode_state(nested(levels), lambda number: None)  # type: ignore[arg-type,return-value]
        assert caught.value.rule == "E026"


def test_saving_plain_values_imports_no_library() -> None:
    program = (
        "import sys; from ckptfmt.state.tree import encode_state, decode_state; "
        "state = {'a': [1, {2, 'x'}, 2**80], 1: None}; "
        "assert decode_state(encode_state(state).tree, None) == state; "
        "print([name for name in ('torch', 'numpy', 'jax', 'ml_dtypes', 'pickle') if name in sys.modules and name != 'pickle'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
