"""Plain values of every kind become fields, typed and exact; what is no plain data is refused by its name."""

from __future__ import annotations

import argparse
import datetime
import decimal
import enum
import functools
import math
import time
import types
import uuid
from collections import OrderedDict, UserDict, deque, namedtuple
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy
import pytest
import torch

from ckptfmt.errors import LimitError, UnsupportedTypeError
from ckptfmt.format.digest import digest_of, format_digest
from ckptfmt.run.fingerprint import Fingerprint
from ckptfmt.run.fingerprint_values import plain_fields


class Split(enum.Enum):
    TRAIN = 1
    TEST = 2


class Mode(str, enum.Enum):  # noqa: UP042 - the older way of writing it is in many configs
    FAST = "fast"


@dataclass
class Optimizer:
    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass
class Config:
    name: str = "a"
    optimizer: Optimizer = field(default_factory=Optimizer)


class Protocolled:
    """A configuration object that is no Mapping, like those of ml_collections."""

    def __init__(self, **members):
        self._members = members

    def keys(self):
        return self._members.keys()

    def items(self):
        return self._members.items()

    def __getitem__(self, key):
        return self._members[key]


def named_function():
    return None


def texts(config):
    return {name: f"{leaf.type} {leaf.value}" for name, leaf in plain_fields("config", config, skip_none=False).items()}


def text(config):
    (only,) = texts(config).items()
    assert only[0] == "config"
    return only[1]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "none none"),
        (True, "bool true"),
        (False, "bool false"),
        (1, "int 1"),
        (-(10**30), "int -1000000000000000000000000000000"),
        (1 << 2000, "int " + hex(1 << 2000)),
        (1.0, "float 1.0"),
        (0.1 + 0.2, "float 0.30000000000000004"),
        (1e-5, "float 1e-05"),
        (1e16, "float 1e+16"),
        (-0.0, "float -0.0"),
        (math.nan, "float nan"),
        (-math.nan, "float nan"),
        (math.inf, "float inf"),
        (complex(1, -0.0), "complex 1.0,-0.0"),
        ("", "str "),
        ("a b\nc", "str a b\nc"),
        (b"\x00\xff", "bytes 00ff"),
        (bytearray(b"\x01"), "bytearray 01"),
        (PurePosixPath("a/b"), "path a/b"),
        (Path("a") / "b", "path a/b"),
        (Split.TRAIN, "enum Split.TRAIN"),
        (Mode.FAST, "enum Mode.FAST"),
        (range(3), "range 0,3,1"),
        (decimal.Decimal("0.10"), "decimal 0.10"),
        (datetime.date(2026, 1, 2), "date 2026-01-02"),
        (datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC), "datetime 2026-01-02T03:00:00+00:00"),
        (datetime.timedelta(days=1, seconds=2), "timedelta 1,2,0"),
        (uuid.UUID(int=1), "uuid 00000000-0000-0000-0000-000000000001"),
        ([], "list []"),
        ([1, 1.0, True, "x"], 'list ["int 1","float 1.0","bool true","str x"]'),
        ((1, 2), 'tuple ["int 1","int 2"]'),
        ({2, 1}, 'set ["int 1","int 2"]'),
        (frozenset({(1, 2), "a"}), 'frozenset ["str a",{"tuple":["int 1","int 2"]}]'),
        (deque([1]), 'list ["int 1"]'),
        ({}, "mapping {}"),
        (types.SimpleNamespace(), "mapping {}"),
        (named_function, f"function {__name__}.named_function"),
        (torch.nn.functional.relu, "function torch.nn.functional.relu"),
        (numpy.exp, "function numpy.exp"),
        (len, "function builtins.len"),
        (dict.fromkeys, "function builtins.dict.fromkeys"),
        (Optimizer, f"class {__name__}.Optimizer"),
        (torch.float16, "dtype torch.float16"),
        (numpy.dtype("int64"), "dtype numpy.int64"),
        (torch.device("cpu"), "device cpu"),
        (numpy.float32(0.1), "float 0.10000000149011612"),
        (numpy.float64(0.1), "float 0.1"),
        (numpy.int64(3), "int 3"),
        (numpy.bool_(True), "bool true"),
        (numpy.str_("x"), "str x"),
        (numpy.array(3), "int 3"),
        (torch.tensor(0.5), "float 0.5"),
        (torch.tensor(True), "bool true"),
        (torch.tensor(2.0, dtype=torch.bfloat16), "float 2.0"),
    ],
)
def test_each_plain_value_has_one_text(value, expected):
    assert text(value) == expected


def test_mappings_dataclasses_and_namespaces_with_the_same_members_are_the_same():
    expected = {
        "config.name": "str a",
        "config.optimizer.lr": "float 0.1",
        "config.optimizer.betas": 'tuple ["float 0.9","float 0.999"]',
    }
    optimizer = {"betas": (0.9, 0.999), "lr": 0.1}
    record = namedtuple("record", "name optimizer")
    for config in (
        Config(),
        {"optimizer": optimizer, "name": "a"},
        OrderedDict(name="a", optimizer=Optimizer()),
        UserDict(name="a", optimizer=optimizer),
        argparse.Namespace(name="a", optimizer=Optimizer()),
        types.SimpleNamespace(name="a", optimizer=types.SimpleNamespace(**optimizer)),
        types.MappingProxyType({"name": "a", "optimizer": optimizer}),
        Protocolled(name="a", optimizer=Protocolled(**optimizer)),
        record("a", optimizer),
    ):
        assert texts(config) == expected


def test_sequences_that_hold_containers_have_a_field_for_each_element():
    assert texts({"layers": [{"units": 4}, [1, 2], "x", {}]}) == {
        "config.layers": "list 4",
        "config.layers.0.units": "int 4",
        "config.layers.1": 'list ["int 1","int 2"]',
        "config.layers.2": "str x",
        "config.layers.3": "mapping {}",
    }


def test_keys_of_every_kind_give_different_segments():
    config = {1: 0, "1": 0, "(int)1": 0, 1.5: 0, "a.b": 0, "a%2Eb": 0, None: 0, Split.TEST: 0, (1, "a"): 0, "": 0, "*?[]": 0, "a\nb": 0}
    assert list(texts(config)) == [
        "config.(int)1",
        "config.1",
        "config.%28int)1",
        "config.(float)1%2E5",
        "config.a%2Eb",
        "config.a%252Eb",
        "config.(none)none",
        "config.(enum)Split%2ETEST",
        'config.(tuple)%5B"int 1","str a"%5D',
        "config.",
        "config.%2A%3F%5B%5D",
        "config.a%0Ab",
    ]


def test_a_long_key_is_replaced_by_its_digest_and_meets_no_short_one():
    long, longer = "k" * 300, "(" * 300
    names = list(texts({long: 0, "(long)" + digest_of(long.encode()).hex(): 1, longer: 2}))
    assert names[0] == "config.(long)" + digest_of(long.encode()).hex()
    assert names[1].startswith("config.%28long)")
    assert names[2].startswith("config.(long)")
    assert len(set(names)) == 3


def test_a_long_value_is_replaced_by_its_digest_and_its_type_says_so():
    value = "prompt " * 200
    assert text(value) == f"str-digest {format_digest(digest_of(value.encode()))}"
    assert text("x" * 1024).startswith("str x")
    assert text("ä" * 600).startswith("str-digest ")
    assert text(list(range(1000))).startswith("list-digest ")


def test_two_keys_that_are_one_text_are_refused():
    with pytest.raises(UnsupportedTypeError, match="two keys give the same field") as caught:
        plain_fields("config", {"x": {float("nan"): 1, float("nan"): 2}})
    assert caught.value.path == "config.x.(float)nan"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (object(), "found builtins.object"),
        (torch.nn.Linear(1, 1), "found torch.nn.modules.linear.Linear"),
        (functools.partial(named_function), "found functools.partial"),
        ((number for number in (1, 2)), "found builtins.generator"),
        ([].append, "found builtins.builtin_function_or_method"),
        (lambda: 0, "lambda"),
        ("\ud800", "surrogate"),
        ({"\ud800": 1}, "surrogate"),
        (numpy.array([object()]), "array of Python objects"),
        (numpy.ma.masked_array([1], [True]), "masked"),
        (numpy.zeros(2, dtype=[("a", "i4")]), "records"),
        (torch.zeros(2, device="meta"), "meta"),
        (torch.eye(2).to_sparse(), "sparse"),
        ({object(): 1}, "found builtins.object"),
        ({frozenset({object()}): 1}, "found builtins.object"),
    ],
)
def test_what_is_no_plain_data_is_refused_with_its_path_and_advice(value, found):
    with pytest.raises(UnsupportedTypeError, match=found) as caught:
        Fingerprint(config={"a": {"b": value}}, environment=False, code=False)
    assert caught.value.path == "config.a.b"
    first, advice = str(caught.value).split("\n")
    assert first.startswith("config.a.b: ")
    assert advice.endswith(".")


def test_a_config_that_contains_itself_is_refused():
    config = {}
    config["self"] = [config]
    with pytest.raises(LimitError, match="nested too deeply") as caught:
        plain_fields("config", config)
    assert len(str(caught.value).split("\n")[0]) < 240


def test_seeds_may_be_any_plain_data():
    assert set(Fingerprint(seed={"numpy": 1, "torch": 2}, environment=False, code=False).fields) == {"seed.numpy", "seed.torch"}
    assert set(Fingerprint(seed=[1, 2], environment=False, code=False).fields) == {"seed"}
    assert not Fingerprint(environment=False, code=False).fields


def test_an_array_counts_by_element_type_shape_and_content_only():
    array = numpy.arange(12, dtype=numpy.float32).reshape(3, 4)
    expected = f"array float32[3,4] {format_digest(digest_of(array.astype('<f4').tobytes()))}"
    for same in (array, numpy.asfortranarray(array), array.astype(">f4"), numpy.repeat(array, 2, axis=0)[::2]):
        assert text(same) == expected
    assert text(torch.from_numpy(array)) == expected.replace("array", "tensor")
    assert text(torch.from_numpy(array.T.copy()).T) == expected.replace("array", "tensor")
    for other in (array.reshape(4, 3), array.astype(numpy.float64), array + 1, array.view(numpy.int32)):
        assert text(other) != expected


def test_arrays_of_every_kind_have_a_digest():
    for array in (
        numpy.zeros(0),
        numpy.zeros((2, 0, 3), dtype=numpy.int8),
        numpy.array([True, False]),
        numpy.array(["a", "bc"]),
        numpy.array([b"a"]),
        numpy.array(["2026-01-01"], dtype="datetime64[ns]"),
        numpy.array("2026-01-01", dtype="datetime64[ns]"),
        numpy.array([1j]),
        numpy.zeros(3, dtype=numpy.float16),
    ):
        assert text(array).startswith("array ")
    for tensor in (
        torch.zeros(0),
        torch.ones(2, dtype=torch.bfloat16),
        torch.ones(2, dtype=torch.bool),
        torch.tensor([1 + 2j]).conj(),
        torch.ones(3, requires_grad=True),
        torch.ones(1).expand(5),
        torch.zeros(4).to(torch.float8_e4m3fn),
    ):
        assert text(tensor).startswith("tensor ")
    assert text(torch.tensor([1 + 2j]).conj()) == text(torch.tensor([1 - 2j]))


def test_a_large_array_is_digested_in_parts_as_if_it_were_whole():
    array = numpy.arange(3_000_000, dtype=numpy.float64).reshape(3000, 1000)
    assert text(array).endswith(format_digest(digest_of(array.tobytes())))
    assert text(array.T).endswith(format_digest(digest_of(array.T.tobytes())))
    assert text(torch.from_numpy(array).T).endswith(format_digest(digest_of(array.T.tobytes())))


def test_a_config_of_a_thousand_fields_takes_less_than_twenty_milliseconds():
    config = {f"group{i}": {f"key{j}": j * 0.1 if j % 2 else f"value {j}" for j in range(20)} for i in range(50)}
    seconds = []
    for _ in range(8):
        started = time.process_time()
        assert len(Fingerprint(config=config, environment=False, code=False).to_document()["fields"]) == 1000
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.02


def test_a_fingerprint_too_large_for_every_checkpoint_is_refused():
    with pytest.raises(LimitError, match="Give large collections as arrays"):
        Fingerprint(config={str(number): "x" * 1000 for number in range(5000)}, environment=False, code=False)
