"""Segments and records of a journal: the bytes of one append-only file, and of each record in it. Spec 16.1 to 16.3.

A record can be judged by itself, because it repeats the mark of its segment and carries a link: the start of a BLAKE3 of its bytes,
among them the link of what comes before it. That makes the records a chain, and lets a reader tell, after bytes that make no sense,
whether anything behind them was ever acknowledged. What a segment's header says is in journal_header. No file is opened here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import msgpack

from ckptfmt.errors import FormatError, UnsupportedTypeError
from ckptfmt.format.digest import Hasher
from ckptfmt.format.layout import is_temporary_name, temporary_name
from ckptfmt.format.packed import pack, unpack
from ckptfmt.format.rules import violation

MAX_PAYLOAD_BYTES = 16 * 2**20
MAX_SEGMENT_NUMBER = 2**63 - 1
MARK_BYTES = 4
LINK_BYTES = 16
NO_LINK = bytes(LINK_BYTES)

# Mark, number, pending, previous link, payload length; the payload and the record's own link follow.
_FIXED = struct.Struct("<4sQI16sI")
RECORD_OVERHEAD_BYTES = _FIXED.size + LINK_BYTES
MAX_RECORD_BYTES = RECORD_OVERHEAD_BYTES + MAX_PAYLOAD_BYTES

_SEGMENT_NAME = re.compile(r"segment-([0-9]{8,19})-([0-9a-f]{8})\.journal")


class Position(NamedTuple):
    """A place in a chain: the number of its last record so far, and the link to which the next record is tied."""

    number: int
    link: bytes


ORIGIN = Position(0, NO_LINK)


class Stretch(NamedTuple):
    """What `take_records` found: the payloads of records in order, their links one after another, and how the stretch ended.

    `acknowledged` is the number up to which records were acknowledged, as the last of them says. If the next record may
    follow, the data must have `needed_bytes` to hold it; 0 means that what follows is no record of the chain.
    """

    payloads: list[bytes]
    links: bytearray
    size_bytes: int
    acknowledged: int
    needed_bytes: int
    is_sealed: bool


class LoneRecord(NamedTuple):
    """A record that was found by its mark and is sound by itself. A seal has an empty payload."""

    number: int
    acknowledged: int
    payload: bytes


def segment_name(number: int, mark: bytes) -> str:
    """Return the name of a segment. Spec 16.1."""
    return f"segment-{number:08d}-{mark.hex()}.journal"


def parse_segment_name(name: str) -> tuple[int, bytes] | None:
    """Return number and mark of a segment by its name, None for any other name."""
    match = _SEGMENT_NAME.fullmatch(name)
    if match is None:
        return None
    number, mark = int(match[1]), bytes.fromhex(match[2])
    return (number, mark) if 0 < number <= MAX_SEGMENT_NUMBER and segment_name(number, mark) == name else None


def temporary_segment_name(nonce: str) -> str:
    """Return the name under which a snapshot is written before it is complete."""
    return temporary_name("segment", nonce)


def is_temporary_segment_name(name: str) -> bool:
    """Tell whether a snapshot that is not complete has such a name."""
    return name.startswith(".segment.") and is_temporary_name(name)


def set_aside_name(name: str, nonce: str) -> str:
    """Return the name under which a damaged segment is kept."""
    return f"set-aside-{name.removeprefix('segment-').removesuffix('.journal')}-{nonce}.journal"


def link_of(data: bytes | bytearray | memoryview) -> bytes:
    """Return the link of some bytes: the first 16 bytes of their BLAKE3."""
    return Hasher(data).digest(LINK_BYTES)


def encode_value(value: Any) -> bytes:
    """Encode a value as a payload, and read it back, so that nothing is written that no reader takes.

    Raises:
        UnsupportedTypeError: it is not made of None, bool, int, float, str, bytes, list and dict with str keys.
        LimitError: it takes more than MAX_PAYLOAD_BYTES.
    """
    try:
        payload = pack(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UnsupportedTypeError(f"a value that a journal cannot hold: {error}") from None
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise violation("E053", "record", expected=f"at most {MAX_PAYLOAD_BYTES:,} bytes", found=len(payload))
    try:
        unpack(payload, where="record")
    except FormatError as error:
        raise UnsupportedTypeError(f"a value that a journal cannot hold: {error}") from None
    return payload


def decode_values(data: bytes, sizes: Sequence[int], *, first_number: int, where: str) -> list[Any]:
    """Decode payloads that lie one after another in `data`; the first is that of record `first_number`.

    All are decoded in one call, as the elements of an array. That is right if each ends where its size says.
    """
    if not sizes:
        return []
    prefix = msgpack.Packer(autoreset=False)
    prefix.pack_array_header(len(sizes))
    try:
        values: list[Any] = unpack(prefix.bytes() + data, where=where)
        if len(values) == len(sizes) and _have_sizes(data, sizes):
            return values
    except FormatError:
        # Found by name below; or one is nested so deeply that it only decodes without the array.
        pass
    ends = accumulate(sizes, initial=0)
    pieces = (data[begin:end] for begin, end in pairwise(ends))
    return [unpack(piece, where=f"{where}: record {number}") for number, piece in enumerate(pieces, first_number)]


def _have_sizes(data: bytes, sizes: Sequence[int]) -> bool:
    unpacker = msgpack.Unpacker(max_buffer_size=len(data) + 1)
    unpacker.feed(data)
    for end in accumulate(sizes):
        unpacker.skip()
        if unpacker.tell() != end:
            return False
    return True


def encode_record(payload: bytes, *, mark: bytes, after: Position, acknowledged: int) -> tuple[bytes, Position]:
    """Encode the record after `after`, and return its bytes and its position. An empty payload makes a seal. Spec 16.3."""
    number = after.number + 1
    content = _FIXED.pack(mark, number, after.number - acknowledged, after.link, len(payload)) + payload
    link = link_of(content)
    return content + link, Position(number, link)


def take_records(data: bytes, *, mark: bytes, after: Position) -> Stretch:
    """Take the records of the chain with which `data` begins, up to the first byte that does not belong to one."""
    payloads: list[bytes] = []
    links = bytearray()
    view, total_bytes, fixed_bytes = memoryview(data), len(data), _FIXED.size
    offset, number, link, pending = 0, after.number, after.link, after.number - 1
    is_sealed = False
    while True:
        needed = offset + RECORD_OVERHEAD_BYTES
        if needed > total_bytes:
            break
        found_mark, found_number, found_pending, previous, payload_bytes = _FIXED.unpack_from(data, offset)
        if previous != link or found_number != number + 1 or found_mark != mark or payload_bytes > MAX_PAYLOAD_BYTES:
            needed = 0
            break
        end = offset + fixed_bytes + payload_bytes
        needed = end + LINK_BYTES
        if needed > total_bytes:
            break
        link = Hasher(view[offset:end]).digest(LINK_BYTES)
        if link != data[end:needed]:
            needed = 0
            break
        number, pending = found_number, found_pending
        if not payload_bytes:
            is_sealed, offset, needed = True, needed, 0
            break
        payloads.append(data[offset + fixed_bytes : end])
        links += link
        offset = needed
    return Stretch(payloads, links, offset, number - 1 - pending, needed, is_sealed)


def find_lone_record(data: bytes, *, mark: bytes) -> LoneRecord | None:
    """Return the record with which `data` begins if it is sound by itself, whatever comes before it."""
    if len(data) < RECORD_OVERHEAD_BYTES:
        return None
    found_mark, number, pending, _, payload_bytes = _FIXED.unpack_from(data)
    end = _FIXED.size + payload_bytes
    if found_mark != mark or payload_bytes > MAX_PAYLOAD_BYTES or end + LINK_BYTES > len(data):
        return None
    if link_of(memoryview(data)[:end]) != data[end : end + LINK_BYTES]:
        return None
    return LoneRecord(number, number - 1 - pending, data[_FIXED.size : end])


def lone_record_size(data: bytes) -> int:
    """Return the size that a record beginning with `data` says it has; 0 if it is no size of a record."""
    if len(data) < _FIXED.size:
        return 0
    payload_bytes: int = _FIXED.unpack_from(data)[4]
    return RECORD_OVERHEAD_BYTES + payload_bytes if payload_bytes <= MAX_PAYLOAD_BYTES else 0
