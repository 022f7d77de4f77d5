"""Packed form: one encoding for each value, and nothing else. Spec 7."""

import struct
import time

import pytest

from ckptfmt.errors import CorruptError
from ckptfmt.format import packed
from ckptfmt.format.packed import pack, unpack
from tests.shown import shown


def read(data):
    return unpack(data, where="m")


VALUES = [
    None,
    True,
    False,
    *(0, 1, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1),
    *(-1, -32, -33, -128, -129, -32768, -32769, -(2**31), -(2**31) - 1, -(2**63)),
    *(0.0, -0.0, 1.5, float("inf"), float("-inf"), 5e-324),
    *("", "a" * 31, "a" * 32, "a" * 255, "a" * 256, "a" * 65536, "ü🙂"),
    *(b"", bytes(255), bytes(256), bytes(65536)),
    *([], [[]], list(range(15)), list(range(16)), list(range(65536))),
    *({}, {"a": 1}, {str(index): index for index in range(16)}, {"": {"": {}}}),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_what_is_packed_is_unpacked(value):
    result = read(pack(value))
    assert (result, type(result), repr(result)) == (value, type(value), repr(value))


def test_not_a_number_keeps_its_bits():
    for bits in (0x7FF8000000000000, 0xFFF8000000000001):
        number = struct.unpack(">d", bits.to_bytes(8, "big"))[0]
        assert pack(read(pack(number))) == b"\xcb" + bits.to_bytes(8, "big")


def test_maps_keep_their_order():
    assert list(read(pack({"b": 1, "a": 2}))) == ["b", "a"]


@pytest.mark.parametrize(
    "value",
    [(1,), {1}, 1j, 2**64, -(2**63) - 1, object(), [(1,)], {"a": {1}}],
    ids=shown,
)
def test_other_values_are_not_packed(value):
    with pytest.raises((TypeError, OverflowError)):
        pack(value)


@pytest.mark.parametrize("depth", [1, 510, 511, 512, 1024])
def test_containers_are_packed_as_deep_as_they_are_read(depth):
    value = 7
    for level in range(depth):
        value = [value] if level % 2 else {"a": value, "b": level}
    data = pack(value)
    assert pack(read(data)) == data


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_packing_without_recursion_gives_the_same_bytes(value):
    assert packed._pack_deep({"a": [value, {"b": value}], "c": value}) == pack({"a": [value, {"b": value}], "c": value})


def test_no_depth_is_too_deep_for_packing():
    value = 7
    for _ in range(10_000):
        value = [value]
    assert pack(value) == b"\x91" * 10_000 + b"\x07"


def test_text_that_is_not_unicode_is_not_packed():
    with pytest.raises(UnicodeEncodeError):
        pack("\ud800")


def test_deeper_containers_are_refused():
    for data in (b"\x91" * 1025 + b"\xc0", b"\x81\xa1a" * 1025 + b"\xc0", b"\x91" * 10_000_000):
        with pytest.raises(CorruptError, match="E024"):
            read(data)


def test_deep_values_that_cannot_be_packed_are_named_as_shallow_ones_are():
    value = (1,)
    for _ in range(600):
        value = [value]
    with pytest.raises(TypeError):
        pack(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc0\xc0",
        b"\xc1",
        b"\xcc\x7f",
        b"\xcd\x00\xff",
        b"\xd0\x01",
        b"\xd0\xff",
        b"\xd3" + bytes(8),
        b"\xca" + bytes(4),
        b"\xd9\x01a",
        b"\xda\x00\x01a",
        b"\xc5\x00\x01a",
        b"\xdc\x00\x01\x01",
        b"\xdd\x00\x00\x00\x01\x01",
        b"\xde\x00\x01\xa1a\x01",
        b"\x82\xa1a\x01\xa1a\x01",
        b"\x81\x01\x01",
        b"\x81\xc4\x01a\x01",
        b"\x91\x81\xc4\x00\x01",
        b"\x81\xc0\x01",
        b"\x81\x90\x01",
        b"\xa1\xff",
        b"\xa3\xed\xa0\x80",
        b"\xd4\x01\x00",
        b"\xd6\xff\x00\x00\x00\x00",
        b"\xc7\x00\x05",
        b"\xa5abc",
        b"\x92\x01",
    ],
    ids=lambda data: data.hex()[:20],
)
def test_any_other_encoding_is_refused(data):
    with pytest.raises(CorruptError) as caught:
        read(data)
    assert caught.value.rule == "E024"
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "data",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xdd\x01\x00\x00\x00" * 1000,
        b"\xdd\x00\xff\xff\xff" * 1000 + bytes(2**20),
    ],
    ids=["array", "map", "bin", "str", "nested", "nested with data"],
)
def test_hostile_lengths_are_refused_before_allocation(data):
    started = time.perf_counter()
    with pytest.raises(CorruptError):
        read(data)
    assert time.perf_counter() - started < 1
