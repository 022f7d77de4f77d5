"""How slots are encoded: codecs, raw sizes and digests, and the sources of slots that have no bytes of their own. Spec 11."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckptfmt.errors import FormatError
from ckptfmt.format.layout import DIGEST_BYTES
from ckptfmt.format.rules import shown, violation

ZSTD, PLANES, SAME, ROUNDED = "zstd", "planes", "same", "rounded"
ROUNDED_TYPES = ("bfloat16", "float16")
MAX_DECODED_BYTES = 2**48
_ALONE = frozenset((PLANES, SAME, ROUNDED))

Codec = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the stored bytes of a slot become those of its chunk: codecs as (name, parameters), in decoding order."""

    codecs: tuple[Codec, ...]
    raw_size_bytes: int
    raw_digest: bytes

    @property
    def kind(self) -> str:
        """The name of the first codec."""
        return self.codecs[0][0]

    @property
    def source(self) -> tuple[int, int] | None:
        """The slot, as shard and slot, from whose chunk this one is made; None if it has bytes of its own."""
        if self.kind not in (SAME, ROUNDED):
            return None
        shard, slot = self.codecs[0][1]["source"]
        return shard, slot


@dataclass(frozen=True, slots=True)
class OriginalShard:
    """The shard from which an encoded one was made: its name, its header's bytes, and its digest. Spec 11.3."""

    name: str
    header: bytes
    digest: bytes


def pack_encodings(encodings: Mapping[int, Encoding]) -> list[Any]:
    """Return encodings as a shard's map holds them."""
    return [
        [slot, [[name, parameters] for name, parameters in encoding.codecs], encoding.raw_size_bytes, encoding.raw_digest]
        for slot, encoding in sorted(encodings.items())
    ]


def checked_encodings(rows: Any, slot_count: int, where: str) -> dict[int, Encoding]:
    """Return the encodings of one shard, each by itself in order."""
    encodings: dict[int, Encoding] = {}
    if type(rows) is not list:
        raise violation("E025", where, "encodings is not an array")
    for row in rows:
        if type(row) is not list or len(row) != 4:
            raise violation("E025", where, "an encoding is not slot, codecs, raw_size_bytes, raw_digest")
        slot, codecs, raw_size, raw_digest = row
        is_sound = type(slot) is int and 0 <= slot < slot_count and slot not in encodings
        is_sound = is_sound and type(raw_size) is int and 0 <= raw_size < MAX_DECODED_BYTES
        is_sound = is_sound and type(raw_digest) is bytes and len(raw_digest) == DIGEST_BYTES
        if not is_sound or type(codecs) is not list or not codecs or not all(map(_is_codec, codecs)):
            raise violation("E025", where, "an encoding has a wrong slot, codec, size or digest", found=shown(row))
        encodings[slot] = Encoding(tuple((name, parameters) for name, parameters in codecs), raw_size, raw_digest)
    return encodings


def _is_codec(codec: Any) -> bool:
    return type(codec) is list and len(codec) == 2 and type(codec[0]) is str and type(codec[1]) is dict


def checked_original(member: Any, where: str) -> OriginalShard | None:
    """Return the shard from which one was made, if it says so."""
    if member is None:
        return None
    if type(member) is not list or [type(part) for part in member] != [str, bytes, bytes] or len(member[2]) != DIGEST_BYTES:
        raise violation("E025", where, "original is not a name, a header and a digest")
    return OriginalShard(*member)


def check_sources(sizes: Sequence[Sequence[int]], encodings: Sequence[Mapping[int, Encoding]], where: str) -> None:
    """Check of all shards together that slots without bytes have a source that they can have, given stored sizes and encodings."""
    for shard, slot, encoding in _all(encodings):
        if len(encoding.codecs) > 1 and any(name in _ALONE for name, _ in encoding.codecs):
            raise _wrong(where, shard, slot, "a codec that stands alone is one of several", [name for name, _ in encoding.codecs])
        if encoding.kind not in (SAME, ROUNDED):
            continue
        source = _checked_place(encoding.codecs[0][1].get("source"), sizes)
        if source is None or sizes[shard][slot]:
            raise _wrong(where, shard, slot, "a slot without bytes has a source that is not there, or bytes", encoding.codecs[0][1])
        of_source = encodings[source[0]].get(source[1])
        if of_source is not None and of_source.kind in (SAME, ROUNDED):
            raise _wrong(where, shard, slot, "the source of a slot has a source itself", source)
        size_bytes = of_source.raw_size_bytes if of_source else sizes[source[0]][source[1]]
        if encoding.kind == ROUNDED and (encoding.codecs[0][1].get("to") not in ROUNDED_TYPES or size_bytes % 4):
            raise _wrong(where, shard, slot, "what is rounded is not float32, or not to a type of two bytes", encoding.codecs[0][1])
        if encoding.raw_size_bytes != (size_bytes if encoding.kind == SAME else size_bytes // 2):
            raise _wrong(where, shard, slot, "the source of a slot has another size", source)


def _all(encodings: Sequence[Mapping[int, Encoding]]) -> Iterator[tuple[int, int, Encoding]]:
    for shard, of_shard in enumerate(encodings):
        for slot, encoding in of_shard.items():
            yield shard, slot, encoding


def _checked_place(value: Any, sizes: Sequence[Sequence[int]]) -> tuple[int, int] | None:
    if type(value) is not list or len(value) != 2 or not all(type(part) is int and part >= 0 for part in value):
        return None
    shard, slot = value
    return (shard, slot) if shard < len(sizes) and slot < len(sizes[shard]) else None


def _wrong(where: str, shard: int, slot: int, what: str, found: Any) -> FormatError:
    return violation("E048", where, f"shards[{shard}], slot {slot}: {what}", found=shown(found))
