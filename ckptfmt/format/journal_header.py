"""The header of a journal segment: who wrote it, from where it continues, and which segments its writer had seen. Spec 16.2.

A header is sound if its link is that of the bytes before it. One that is not is no error by itself: a writer may have been
killed before anything was acknowledged. A sound one that breaks a rule is an error. No file is opened here.
"""

from __future__ import annotations

import reprlib
import struct
from dataclasses import dataclass
from typing import Any

from ckptfmt.format.journal_record import LINK_BYTES, NO_LINK, ORIGIN, Position, link_of, parse_segment_name
from ckptfmt.format.layout import VERSION
from ckptfmt.format.packed import pack, unpack
from ckptfmt.format.rules import violation

MAGIC = b"ckptjrnl"
MAX_MEMBERS_BYTES = 16 * 2**20

FIRST = "first"
NEXT = "next"
SNAPSHOT = "snapshot"
KINDS = (FIRST, NEXT, SNAPSHOT)

# Magic, major, minor, size of the members; the members and the link follow.
_FIXED = struct.Struct("<8sHHI")
FIXED_BYTES = _FIXED.size

_KNOWN = ("name", "kind", "base", "through", "durable", "seen", "created_at_utc", "writer")


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What a segment says of itself.

    `base` is where the chain stood, `through` the number of the last record that is repeated (or held, by a snapshot);
    `seen` the names and sizes of earlier segments as its writer found them.
    """

    name: str
    kind: str
    base: Position
    through: int
    is_durable: bool
    seen: tuple[tuple[str, int], ...]
    created_at_utc: str
    writer: str

    @property
    def mark(self) -> bytes:
        """The mark that begins each of its records."""
        parsed = parse_segment_name(self.name)
        return parsed[1] if parsed else b""

    @property
    def begins_chain(self) -> bool:
        """Whether nothing before it belongs to the journal any more."""
        return self.kind != NEXT

    @property
    def acknowledged(self) -> int:
        """The number up to which records were acknowledged when the segment got its name."""
        return self.through if self.kind == SNAPSHOT else self.base.number


@dataclass(frozen=True, slots=True)
class StoredHeader:
    """A sound header as it was found, with what only a reader needs. `link` is that of the header."""

    header: SegmentHeader
    link: bytes
    size_bytes: int
    minor: int
    unknown_members: tuple[str, ...]


def encode_header(header: SegmentHeader) -> tuple[bytes, bytes]:
    """Encode a header, and return it and its link."""
    members = pack(
        {
            "name": header.name,
            "kind": header.kind,
            "base": list(header.base),
            "through": header.through,
            "durable": header.is_durable,
            "seen": [list(entry) for entry in header.seen],
            "created_at_utc": header.created_at_utc,
            "writer": header.writer,
        }
    )
    content = _FIXED.pack(MAGIC, *VERSION, len(members)) + members
    link = link_of(content)
    return content + link, link


def header_size(start: bytes) -> int:
    """Return the size that a header beginning with `start` says it has; 0 if this is no header."""
    if len(start) < FIXED_BYTES:
        return 0
    magic, _, _, members_bytes = _FIXED.unpack_from(start)
    return FIXED_BYTES + members_bytes + LINK_BYTES if magic == MAGIC and members_bytes <= MAX_MEMBERS_BYTES else 0


def decode_header(data: bytes, *, name: str, where: str) -> StoredHeader | None:
    """Decode the header with which the segment `name` begins; None if it is not sound.

    Raises:
        FormatError: it is sound and breaks a rule.
    """
    size_bytes = header_size(data)
    content, link = data[: size_bytes - LINK_BYTES], data[size_bytes - LINK_BYTES : size_bytes]
    if not size_bytes or size_bytes > len(data) or link_of(content) != link:
        return None
    _, major, minor, _ = _FIXED.unpack_from(data)
    if major != VERSION[0]:
        raise violation("E052", where, expected=f"{VERSION[0]}.x", found=f"{major}.{minor}", advice="Update ckptfmt to read this journal.")
    members = unpack(content[FIXED_BYTES:], where=where)
    if type(members) is not dict:
        raise violation("E050", where, "members of the header", expected="a map", found=type(members).__name__)
    return StoredHeader(_decode_members(members, name, where), link, size_bytes, minor, tuple(sorted(set(members) - set(_KNOWN))))


def _decode_members(members: dict[str, Any], name: str, where: str) -> SegmentHeader:
    def fail(member: str) -> Exception:
        return violation("E050", where, f"member {member} of the header", found=reprlib.repr(members.get(member)))

    if type(members.get("name")) is not str:
        raise fail("name")
    if members["name"] != name:
        raise violation("E051", where, "name in the header", expected=name, found=members["name"][:100])
    kind, through = members.get("kind"), members.get("through")
    if kind not in KINDS:
        raise fail("kind")
    base = _decode_base(members.get("base"))
    if (
        base is None
        or (kind == FIRST and base != ORIGIN)
        or (kind == NEXT and not base.number)
        or (kind == SNAPSHOT and base.link != NO_LINK)
    ):
        raise fail("base")
    if type(through) is not int or not base.number <= through < 2**63:
        raise fail("through")
    if type(members.get("durable")) is not bool:
        raise fail("durable")
    seen = _decode_seen(members.get("seen"), name)
    if seen is None:
        raise fail("seen")
    for member in ("created_at_utc", "writer"):
        if type(members.get(member)) is not str:
            raise fail(member)
    return SegmentHeader(name, kind, base, through, members["durable"], seen, members["created_at_utc"], members["writer"])


def _decode_base(value: Any) -> Position | None:
    if type(value) is not list or len(value) != 2:
        return None
    number, link = value
    if type(number) is not int or not 0 <= number < 2**63 or type(link) is not bytes or len(link) != LINK_BYTES:
        return None
    return Position(number, link)


def _decode_seen(value: Any, name: str) -> tuple[tuple[str, int], ...] | None:
    """Return the entries: distinct names of segments of lower number, and sizes."""
    own = parse_segment_name(name)
    if type(value) is not list or own is None:
        return None
    seen: dict[str, int] = {}
    for entry in value:
        if type(entry) is not list or len(entry) != 2 or type(entry[0]) is not str or type(entry[1]) is not int:
            return None
        other = parse_segment_name(entry[0])
        if other is None or other[0] >= own[0] or entry[1] < 0 or entry[0] in seen:
            return None
        seen[entry[0]] = entry[1]
    return tuple(seen.items())
