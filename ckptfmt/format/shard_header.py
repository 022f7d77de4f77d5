"""The header of one shard: u64 length, JSON, spaces up to 64-byte alignment. Spec 6.

Encoding needs only sizes, so a header is written before any tensor is in memory. Decoding runs before any other
library sees the file, because others accept duplicate keys, hostile names and absurd shapes.

Layout: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, islice
from json.encoder import encode_basestring
from typing import Any, NamedTuple

from ckptfmt.errors import FormatError, LimitError
from ckptfmt.format.canonical_json import has_lone_surrogate
from ckptfmt.format.dtypes import STORED_SIZES
from ckptfmt.format.layout import (
    BATCH_ROWS,
    DATA_ALIGNMENT_BYTES,
    HEADER_LENGTH_BYTES,
    HEADER_METADATA_KEY,
    MAX_DIMENSION,
    MAX_HEADER_BYTES,
    MAX_INTEGER,
    are_tensor_names,
    is_shape,
    is_tensor_name,
)
from ckptfmt.format.rules import shown, violation

StoredForm = tuple[str, tuple[int, ...]]

_ENTRY_MEMBERS = {"dtype", "shape", "data_offsets"}


class StoredEntry(NamedTuple):
    """One slot as the header describes it; `dtype` is a safetensors type. A 0-d tensor has shape () and one element."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int


def encode_header(entries: Sequence[StoredEntry], ties: Mapping[str, str] | None = None) -> bytes:
    """Encode the header for chunks that follow it in this order without gaps.

    `ties` maps names that are not stored to the key that holds their bytes.

    Raises:
        LimitError: the header would exceed the format's limit.
    """
    forms = [(entry.dtype, entry.shape) for entry in entries]
    return encode_columns([entry.key for entry in entries], forms, [entry.size_bytes for entry in entries], ties or {})


def encode_columns(keys: Sequence[str], forms: Sequence[StoredForm], sizes: Sequence[int], ties: Mapping[str, str]) -> bytes:
    """Encode a header as `encode_header` does, from columns; `forms` are types and shapes."""
    metadata = {name: key for name, key in ties.items() if name != "format"}
    members = f'"{HEADER_METADATA_KEY}":' + json.dumps({"format": "pt", **metadata}, ensure_ascii=False, separators=(",", ":"))
    parts = [members.encode("utf-8"), *_encode_entries(keys, forms, sizes)]
    unpadded = HEADER_LENGTH_BYTES + sum(map(len, parts)) + len(b"{}")
    size_bytes = unpadded + -unpadded % DATA_ALIGNMENT_BYTES
    length = size_bytes - HEADER_LENGTH_BYTES
    if length > MAX_HEADER_BYTES:
        raise LimitError(f"shard header of {length:,} bytes exceeds {MAX_HEADER_BYTES:,} bytes [E030]", rule="E030")
    return b"".join((length.to_bytes(HEADER_LENGTH_BYTES, "little"), b"{", *parts, b"}", b" " * (size_bytes - unpadded)))


def _encode_entries(keys: Sequence[str], forms: Sequence[StoredForm], sizes: Sequence[int]) -> list[bytes]:
    """Return the text of all slots, with a comma before each, in parts."""
    begins = {form: f'{{"dtype":"{form[0]}","shape":[{",".join(map(str, form[1]))}],"data_offsets":[' for form in set(forms)}
    ends = list(accumulate(sizes))
    members = zip(map(encode_basestring, keys), map(begins.__getitem__, forms), [0, *ends], ends, strict=False)
    # In batches, so that the memory of one serves for the next.
    batches = []
    while batch := [f",{key}:{begin}{start},{end}]}}" for key, begin, start, end in islice(members, BATCH_ROWS)]:
        batches.append("".join(batch).encode("utf-8"))
    return batches


def is_header_of(header: bytes, keys: Sequence[str], forms: Sequence[StoredForm], sizes: Sequence[int]) -> bool:
    """Tell whether this is byte for byte a header that a writer of this library makes for these slots, ties aside.

    `forms` are types and shapes within the limits of spec 6 and of these `sizes`. Such a header needs no decoding: that would give
    these very slots, and find nothing wrong with them.
    """
    if not keys or len(set(keys)) != len(keys) or not are_tensor_names(keys) or max(sizes) >= MAX_DIMENSION:
        return False
    rest = b"".join((*_encode_entries(keys, forms, sizes), b"}"))
    text = header[HEADER_LENGTH_BYTES:].rstrip(b" ")
    if not text.endswith(rest):
        return False
    try:
        members = _decode_members(text[: -len(rest)] + b"}", "")
        _check_header_metadata(members.pop(HEADER_METADATA_KEY, None), "")
    except FormatError:
        return False
    return not members


def header_size_bytes(prefix: bytes, *, file_size_bytes: int, where: str) -> int:
    """Return the size of the whole header from the file's first 8 bytes, checked before the header is read."""
    if len(prefix) < HEADER_LENGTH_BYTES:
        raise violation("E030", where, "file ends in its header length")
    length = int.from_bytes(prefix[:HEADER_LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES or HEADER_LENGTH_BYTES + length > file_size_bytes:
        limit = min(MAX_HEADER_BYTES, file_size_bytes - HEADER_LENGTH_BYTES)
        raise violation("E030", where, "header length", expected=f"at most {limit}", found=length)
    if (HEADER_LENGTH_BYTES + length) % DATA_ALIGNMENT_BYTES:
        raise violation("E034", where, "data does not begin at a multiple of 64 bytes", found=HEADER_LENGTH_BYTES + length)
    return HEADER_LENGTH_BYTES + length


def decode_header(header: bytes, *, file_size_bytes: int, where: str) -> list[StoredEntry]:
    """Decode and check a whole header (length included) and return its slots in file order."""
    members = _decode_members(header[HEADER_LENGTH_BYTES:], where)
    _check_header_metadata(members.pop(HEADER_METADATA_KEY, None), where)
    located = sorted(((*_checked_entry(key, entry, where),) for key, entry in members.items()), key=lambda item: item[1:])
    position = 0
    for entry, begin, end in located:
        if begin != position:
            raise violation("E033", where, f"slot {entry.key!r} begins elsewhere", expected=position, found=begin, tensor=entry.key)
        position = end
    if len(header) + position != file_size_bytes:
        raise violation("E033", where, "data ends elsewhere than the file", expected=file_size_bytes, found=len(header) + position)
    return [entry for entry, _, _ in located]


def _decode_members(data: bytes, where: str) -> dict[str, Any]:
    try:
        text = data.decode("utf-8").rstrip(" ")
        if not text.startswith("{") or not text.endswith("}"):
            raise ValueError("it does not begin with { and end with } and spaces")
        members: dict[str, Any] = json.loads(text, object_pairs_hook=_unique_members)
        if has_lone_surrogate(text, members):
            raise ValueError("a string holds half of a surrogate pair")
    except (ValueError, RecursionError) as error:
        raise violation("E030", where, f"header is not strict JSON: {str(error)[:200]}") from None
    return members


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate keys")
    return members


def _check_header_metadata(metadata: Any, where: str) -> None:
    if not isinstance(metadata, dict) or metadata.get("format") != "pt":
        raise violation("E030", where, 'header has no __metadata__ with "format": "pt"')
    if not all(isinstance(value, str) for value in metadata.values()):
        raise violation("E030", where, "header's __metadata__ holds something other than strings")


def _checked_entry(key: str, entry: Any, where: str) -> tuple[StoredEntry, int, int]:
    if not is_tensor_name(key):
        raise violation("E035", where, f"key {key[:80]!r} is too long or holds control characters", tensor=key)
    if type(entry) is not dict or entry.keys() != _ENTRY_MEMBERS:
        raise violation("E030", where, f"entry {key!r} is not dtype, shape and data_offsets", tensor=key)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not is_shape(shape):
        raise violation("E036", where, f"shape of {key!r}", found=shown(shape), tensor=key)
    size = STORED_SIZES.get(dtype) if type(dtype) is str else None
    if size is None:
        raise violation("E030", where, f"entry {key!r} has an unknown dtype", found=shown(dtype), tensor=key)
    if type(offsets) is not list or len(offsets) != 2 or not all(type(offset) is int and 0 <= offset < MAX_INTEGER for offset in offsets):
        raise violation("E030", where, f"entry {key!r} has no two data_offsets", tensor=key)
    begin, end = offsets
    if end - begin != math.prod(shape) * size:
        raise violation("E030", where, f"size of {key!r}", expected=math.prod(shape) * size, found=end - begin, tensor=key)
    return StoredEntry(key, dtype, tuple(shape), end - begin), begin, end
