"""For every header: what is written is read here and by the safetensors library. Spec 6."""

import contextlib

import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.errors import FormatError
from ckptfmt.format.dtypes import NATIVE
from ckptfmt.format.shard_header import decode_header, encode_header, header_size_bytes, is_header_of
from tests.property.format_strategies import NAMES, stored_entries

TIES = st.dictionaries(NAMES, NAMES, max_size=3)


def decoded(header, data_bytes):
    size_bytes = header_size_bytes(header[:8], file_size_bytes=len(header) + data_bytes, where="s")
    return decode_header(header[:size_bytes], file_size_bytes=len(header) + data_bytes, where="s")


@given(stored_entries(), TIES)
def test_every_header_is_read_as_it_was_written(entries, ties):
    header = encode_header(entries, ties)
    assert decoded(header, sum(entry.size_bytes for entry in entries)) == entries
    assert len(header) % 64 == 0


@given(stored_entries(st.sampled_from(list(NATIVE))), TIES)
def test_every_header_opens_in_safetensors(entries, ties):
    file = encode_header(entries, ties) + bytes(sum(entry.size_bytes for entry in entries))
    opened = dict(safetensors.deserialize(file))
    assert opened.keys() == {entry.key for entry in entries}
    for entry in entries:
        assert (opened[entry.key]["dtype"], opened[entry.key]["shape"]) == (entry.dtype, list(entry.shape))


@given(stored_entries(), st.data())
def test_no_flipped_bit_raises_anything_but_a_format_error(entries, data):
    header = bytearray(encode_header(entries))
    position = data.draw(st.integers(0, len(header) * 8 - 1))
    header[position // 8] ^= 1 << position % 8
    with contextlib.suppress(FormatError):
        decoded(bytes(header), sum(entry.size_bytes for entry in entries))


def is_that_of(header, entries):
    keys, forms, sizes = ([entry[0] for entry in entries], [entry[1:3] for entry in entries], [entry[3] for entry in entries])
    return is_header_of(header, keys, forms, sizes)


@given(stored_entries(), TIES, st.data())
def test_a_header_that_is_compared_is_one_that_decodes_to_the_same(entries, ties, data):
    header = encode_header(entries, ties)
    assert is_that_of(header, entries) == bool(entries)
    changed = bytearray(header)
    changed[data.draw(st.integers(8, len(header) - 1))] = data.draw(st.integers(0, 255))
    if is_that_of(bytes(changed), entries):
        assert decoded(bytes(changed), sum(entry.size_bytes for entry in entries)) == entries
    for other in (entries[1:], entries[::-1], [*entries, *entries[:1]]):
        assert is_that_of(header, other) == bool(other == entries and entries)


@given(st.binary(max_size=200), st.integers(0, 300))
def test_no_bytes_raise_anything_but_a_format_error(data, data_bytes):
    with pytest.raises(FormatError):
        decoded(data, data_bytes)


PARTS = st.sampled_from(
    ['{"__metadata__":{"format":"pt"}', ',"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}', "}", "{", "[", "]", ",", '"', "1e9", "null"]
)


@given(st.lists(PARTS, max_size=8))
def test_no_text_raises_anything_but_a_format_error(parts):
    text = "".join(parts).encode()
    length = len(text) + -(8 + len(text)) % 64
    header = length.to_bytes(8, "little") + text.ljust(length)
    for data_bytes in (0, 1):
        try:
            decoded(header, data_bytes)
        except FormatError:
            continue
        # What is accepted here must open there.
        safetensors.deserialize(header + bytes(data_bytes))
