"""The header of a shard: written so that safetensors opens it, read more strictly than safetensors does. Spec 6."""

import json
import os
import time

import pytest
from safetensors import safe_open

from ckptfmt.errors import CorruptError, FormatError, LimitError
from ckptfmt.format.shard_header import StoredEntry, decode_header, encode_header, header_size_bytes

ENTRIES = [StoredEntry("w", "F32", (2, 2), 16), StoredEntry("b", "F16", (), 2), StoredEntry("empty", "I64", (0, 3), 0)]
ENTRY = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}
PT = {"format": "pt"}


def header_of(document, *, length=None):
    """A header of any JSON or text, padded as it must be."""
    text = document if isinstance(document, bytes) else json.dumps(document, ensure_ascii=False).encode()
    size = length or len(text) + -(8 + len(text)) % 64
    return size.to_bytes(8, "little") + text.ljust(size)


def with_entry(*, key="x", **members):
    entry = {name: value for name, value in (ENTRY | members).items() if value is not ...}
    return header_of({"__metadata__": PT, key: entry})


def rule_of(header, *, data_bytes=1):
    with pytest.raises(FormatError) as caught:
        decode_header(header, file_size_bytes=len(header) + data_bytes, where="s")
    return caught.value.rule


def test_a_header_is_read_as_it_was_written():
    header = encode_header(ENTRIES, {"tied": "w"})
    assert decode_header(header, file_size_bytes=len(header) + 18, where="s") == ENTRIES
    assert len(header) % 64 == 0
    assert header_size_bytes(header[:8], file_size_bytes=len(header) + 18, where="s") == len(header)


def test_ties_stand_in_the_metadata_and_leave_the_format_alone():
    header = encode_header([], {"a": "w", "format": "w", "ü": "w"})
    assert json.loads(header[8:])["__metadata__"] == {"format": "pt", "a": "w", "ü": "w"}


def test_the_safetensors_library_opens_what_is_written(tmp_path):
    header = encode_header([*ENTRIES, StoredEntry('quote" and ü', "U8", (1,), 1)], {"tied": "w"})
    file = tmp_path / "s.safetensors"
    file.write_bytes(header + bytes(19))
    with safe_open(file, "np") as opened:
        assert set(opened.keys()) == {"w", "b", "empty", 'quote" and ü'}
        assert opened.metadata() == {"format": "pt", "tied": "w"}
        assert opened.get_tensor("w").shape == (2, 2)


def test_an_empty_shard_is_a_header(tmp_path):
    header = encode_header([])
    (tmp_path / "s.safetensors").write_bytes(header)
    assert decode_header(header, file_size_bytes=len(header), where="s") == []
    with safe_open(tmp_path / "s.safetensors", "np") as opened:
        assert list(opened.keys()) == []


def test_slots_are_numbered_by_their_place_and_not_by_their_key():
    document = {
        "__metadata__": PT,
        "a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]},
        "empty": {"dtype": "U8", "shape": [0], "data_offsets": [1, 1]},
        "also empty": {"dtype": "U8", "shape": [0], "data_offsets": [1, 1]},
        "b": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
    }
    header = header_of(document)
    assert [entry.key for entry in decode_header(header, file_size_bytes=len(header) + 2, where="s")] == ["b", "empty", "also empty", "a"]


def test_a_header_over_the_limit_is_not_written():
    entries = [StoredEntry(f"{index:0500}", "U8", (0,), 0) for index in range(50_000)]
    with pytest.raises(LimitError, match="E030"):
        encode_header(entries)


@pytest.mark.parametrize("prefix", [b"", b"\x00" * 7])
def test_a_file_that_ends_in_its_length_is_refused(prefix):
    with pytest.raises(CorruptError, match="E030"):
        header_size_bytes(prefix, file_size_bytes=len(prefix), where="s")


@pytest.mark.parametrize(
    ("length", "rule"), [(121, "E030"), (25_000_001, "E030"), (2**64 - 1, "E030"), (112, "E034"), (0, "E034"), (120, None), (56, None)]
)
def test_the_length_is_checked_before_the_header_is_read(length, rule):
    prefix = length.to_bytes(8, "little")
    if rule is None:
        assert header_size_bytes(prefix, file_size_bytes=128, where="s") == 8 + length
        return
    with pytest.raises(CorruptError) as caught:
        header_size_bytes(prefix, file_size_bytes=2**30 if length == 25_000_001 else 128, where="s")
    assert caught.value.rule == rule


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b" {}",
        b"\n{}",
        b"{}x",
        b"{} {}",
        b"{}\n",
        b"{}\x00",
        b"\xff{}",
        b'{"\xff": 1}',
        b'{"__metadata__": {"format": "pt"}, "__metadata__": {"format": "pt"}}',
        b'{"__metadata__": {"format": "pt", "format": "pt"}}',
        b'{"__metadata__": {"format": "pt", "\\ud800": "x"}}',
        b"{" + b'"a":{' * 100_000 + b"}",
        b'{"a":' + b"1" * 5000 + b"}",
    ],
    ids=lambda text: text.decode("latin1")[:24],
)
def test_what_is_not_strict_json_is_refused(text):
    assert rule_of(header_of(text), data_bytes=0) == "E030"


@pytest.mark.parametrize(
    "metadata", [..., None, [], {}, {"format": "np"}, {"format": "pt", "tied": 1}, {"format": "pt", "tied": None}, "pt"], ids=str
)
def test_the_metadata_says_the_format_and_holds_text_only(metadata):
    document = {} if metadata is ... else {"__metadata__": metadata}
    assert rule_of(header_of(document), data_bytes=0) == "E030"


@pytest.mark.parametrize(
    ("members", "rule"),
    [
        ({"dtype": ...}, "E030"),
        ({"shape": ...}, "E030"),
        ({"data_offsets": ...}, "E030"),
        ({"extra": 1}, "E030"),
        ({"dtype": "F31"}, "E030"),
        ({"dtype": "float32"}, "E030"),
        ({"dtype": 1}, "E030"),
        ({"dtype": ["U8"]}, "E030"),
        ({"shape": [2]}, "E030"),
        ({"shape": 1}, "E036"),
        ({"shape": [1.0]}, "E036"),
        ({"shape": [True]}, "E036"),
        ({"shape": [-1]}, "E036"),
        ({"shape": [2**48]}, "E036"),
        ({"shape": [1] * 65}, "E036"),
        ({"data_offsets": [0]}, "E030"),
        ({"data_offsets": [0, 1, 2]}, "E030"),
        ({"data_offsets": {"0": 1}}, "E030"),
        ({"data_offsets": [0.0, 1]}, "E030"),
        ({"data_offsets": [False, True]}, "E030"),
        ({"data_offsets": [1, 0]}, "E030"),
        ({"data_offsets": [-1, 0]}, "E030"),
        ({"data_offsets": [2**63 - 1, 2**63]}, "E030"),
        ({"data_offsets": [0, int("9" * 4300)]}, "E030"),
        ({"key": ""}, "E035"),
        ({"key": "x" * 513}, "E035"),
        ({"key": "a\x7f"}, "E035"),
        ({"key": "a\u0085"}, "E035"),
        ({"data_offsets": [1, 2]}, "E033"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_entry_has_three_members_that_agree(members, rule):
    assert rule_of(with_entry(**members)) == rule


@pytest.mark.parametrize("entry", [None, [], 1, "x", {}])
def test_an_entry_is_an_object(entry):
    assert rule_of(header_of({"__metadata__": PT, "x": entry})) == "E030"


def test_control_characters_that_json_escapes_are_noticed():
    assert (
        rule_of(header_of(b'{"__metadata__": {"format": "pt"}, "a\\nb": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}')) == "E035"
    )


@pytest.mark.parametrize("data_bytes", [0, 2])
def test_data_ends_where_the_file_ends(data_bytes):
    assert rule_of(with_entry(), data_bytes=data_bytes) == "E033"


def test_overlapping_slots_are_refused():
    document = {"__metadata__": PT, "a": ENTRY | {"shape": [2], "data_offsets": [0, 2]}, "b": ENTRY | {"data_offsets": [1, 2]}}
    assert rule_of(header_of(document), data_bytes=2) == "E033"


@pytest.mark.parametrize(
    "text",
    [
        b"{" + os.urandom(24_900_000),
        b"{" + b"\x00" * 24_900_000,
        b'{"a":' * 4_900_000,
        b'{"a":[' + b"1" * 24_900_000,
        b'{"' + b"a" * 24_900_000,
    ],
    ids=["noise", "zeros", "nesting", "digits", "text"],
)
def test_garbage_of_25_megabytes_is_refused_in_a_second(text):
    header = header_of(text + b"}")
    started = time.perf_counter()
    assert rule_of(header) == "E030"
    assert time.perf_counter() - started < 1


def test_messages_are_short_whatever_a_header_holds():
    for header in (
        with_entry(key="k" * 10_000),
        with_entry(dtype="d" * 10_000),
        with_entry(shape=[1] * 10_000),
        with_entry(shape=[2**48 - 1] * 64),
    ):
        with pytest.raises(FormatError) as caught:
            decode_header(header, file_size_bytes=len(header) + 1, where="s")
        assert len(str(caught.value)) < 1500
