"""How slots are encoded: codecs, raw sizes and digests, and the sources of slots that have no bytes of their own. Spec 11."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ckptfmt.errors import FormatError
from ckptfmt.format.layout import DIGEST_BYTES
from ckptfmt.format.rules import shown, violation

ZSTD, PLANES, SAME, ROUNDED, DELTA = "zstd", "planes", "same", "rounded", "delta"
ROUNDED_TYPES = ("bfloat16", "float16")
DELTA_WORDS = (1, 2, 4, 8)
MAX_DECODED_BYTES = 2**48
MAX_DELTAS = 32
_ALONE = frozenset((PLANES, SAME, ROUNDED, DELTA))

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

    @property
    def delta_source(self) -> tuple[int, int] | None:
        """The slot, as shard and slot, to whose chunk the decoded bytes are added; None if they are the chunk themselves."""
        if self.codecs[-1][0] != DELTA:
            return None
        shard, slot = self.codecs[-1][1]["source"]
        return shard, slot

    @property
    def added_bytes(self) -> int:
        """Bytes of the words that are added to those of a source, 0 if none are."""
        return int(self.codecs[-1][1]["word"]) if self.codecs[-1][0] == DELTA else 0

    def moved(self, shards: Mapping[int, int]) -> Encoding:
        """Return the same encoding where shards have other numbers."""
        codecs = []
        for name, parameters in self.codecs:
            if name in (SAME, ROUNDED, DELTA):
                shard, slot = parameters["source"]
                parameters = {**parameters, "source": [shards[shard], slot]}
            codecs.append((name, parameters))
        return replace(self, codecs=tuple(codecs))


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
    """Check of all shards together that what is made from another slot has a source that it can have, given stored sizes and encodings."""
    deltas: dict[tuple[int, int], tuple[int, int]] = {}
    for shard, slot, encoding in _all(encodings):
        names = [name for name, _ in encoding.codecs]
        if len(names) > 1 and names != [PLANES, DELTA] and not _ALONE.isdisjoint(names):
            raise _wrong(where, shard, slot, "a codec that stands alone is one of several", names)
        if names[-1] not in (SAME, ROUNDED, DELTA):
            continue
        parameters = encoding.codecs[-1][1]
        source = _checked_place(parameters.get("source"), sizes)
        if names == [DELTA] or source is None or (names[-1] != DELTA and sizes[shard][slot]):
            raise _wrong(where, shard, slot, "a slot has a source that is not there, or the wrong bytes of its own", parameters)
        of_source = encodings[source[0]].get(source[1])
        if of_source is not None and of_source.kind in (SAME, ROUNDED):
            raise _wrong(where, shard, slot, "the source of a slot has no bytes of its own", source)
        size_bytes = of_source.raw_size_bytes if of_source else sizes[source[0]][source[1]]
        if names[-1] == ROUNDED and (parameters.get("to") not in ROUNDED_TYPES or size_bytes % 4):
            raise _wrong(where, shard, slot, "what is rounded is not float32, or not to a type of two bytes", parameters)
        if names[-1] == DELTA:
            word = parameters.get("word")
            if type(word) is not int or word not in DELTA_WORDS or size_bytes % word:
                raise _wrong(where, shard, slot, "words that are added do not divide the source", parameters)
            deltas[shard, slot] = source
        if encoding.raw_size_bytes != (size_bytes // 2 if names[-1] == ROUNDED else size_bytes):
            raise _wrong(where, shard, slot, "the source of a slot has another size", source)
    _check_chains(deltas, where)


def _check_chains(deltas: Mapping[tuple[int, int], tuple[int, int]], where: str) -> None:
    """Check that no more than so many deltas stand on each other; so many do in a circle, too."""
    lengths: dict[tuple[int, int], int] = {}
    for top in deltas:
        chain: list[tuple[int, int]] = []
        place = top
        while place in deltas and place not in lengths and len(chain) <= MAX_DELTAS:
            chain.append(place)
            place = deltas[place]
        length = lengths.get(place, 0)
        if len(chain) + length > MAX_DELTAS:
            raise _wrong(where, *top, f"more than {MAX_DELTAS} deltas, one on the other", deltas[top])
        for link in reversed(chain):
            length += 1
            lengths[link] = length


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
