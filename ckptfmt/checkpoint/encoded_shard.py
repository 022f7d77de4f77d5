"""One shard and the encoded one in its place: which slots change, how, and the way back. Spec 11.

A slot keeps its place and its key; what changes is how its bytes are stored. Slots that gain nothing stay as they are, beside encoded
ones whose sizes keep them aligned.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from ckptfmt.checkpoint.delta_base import DeltaBase, Difference
from ckptfmt.checkpoint.piece_buffers import PIECE_BYTES
from ckptfmt.checkpoint.shard_file import ShardFile
from ckptfmt.checkpoint.shard_rewriter import NewShard, ShardRewriter
from ckptfmt.checkpoint.slot_decoding import default_threads
from ckptfmt.checkpoint.slot_encoding import RawSlot, encode_slots
from ckptfmt.checkpoint.slot_relations import Place, SlotFacts, find_relations
from ckptfmt.checkpoint.spool import Spool
from ckptfmt.format.digest import parse_digest, shard_digest
from ckptfmt.format.dtypes import NATIVE, RAW
from ckptfmt.format.encodings import PLANES, Codec, Encoding, OriginalShard
from ckptfmt.format.layout import HEADER_LENGTH_BYTES, HEADER_METADATA_KEY
from ckptfmt.format.metadata import ShardTable
from ckptfmt.format.rules import violation
from ckptfmt.format.shard_header import StoredEntry, decode_header, encode_header

_DTYPE_OF_STORED = {stored: name for name, (stored, _) in NATIVE.items()}
_PIECE_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class EncodingPlan:
    """The slots that may be encoded, by shard, and those that need no bytes of their own."""

    facts: Mapping[int, list[SlotFacts]]
    relations: Mapping[Place, Codec]


def plan_encoding(rewriter: ShardRewriter) -> EncodingPlan:
    """Look at all slots of a checkpoint that hold their chunks as they are."""
    tables = rewriter.metadata.shards
    every = [encoding for table in tables for encoding in table.encodings.values()]
    sources = {encoding.source for encoding in every} | {encoding.delta_source for encoding in every}
    facts: dict[int, list[SlotFacts]] = {}
    known: list[SlotFacts] = []
    for shard, file in enumerate(rewriter.shards):
        # A copy of what others share would free nothing and take more.
        is_alone = not rewriter.staging.shared_bytes(file.entry.name)
        is_used = bool(rewriter.uses[shard].slots)
        may_change = is_alone and is_used and not tables[shard].encodings and tables[shard].original is None
        of_shard = [replace(found, may_change=may_change and found.place not in sources) for found in _facts(rewriter, shard, file)]
        known += of_shard
        if may_change:
            facts[shard] = of_shard
    return EncodingPlan(facts, find_relations(known))


def _facts(rewriter: ShardRewriter, shard: int, file: ShardFile) -> Iterator[SlotFacts]:
    table, header = file.table, file.read_header()
    slots, dtypes, shapes = rewriter.uses[shard]
    used = {slot: (dtype, shape) for slot, dtype, shape in zip(slots, dtypes, shapes, strict=True)}
    for slot, entry in enumerate(decode_header(header, file_size_bytes=file.entry.size_bytes, where=file.where)):
        if slot not in table.encodings:
            dtype, shape = used.get(slot, (_DTYPE_OF_STORED.get(entry.dtype, "uint8"), entry.shape))
            yield SlotFacts((shard, slot), dtype, shape, file.stored(slot), table.digest(slot), may_change=False)


def encode_shard(
    rewriter: ShardRewriter,
    shard: int,
    plan: EncodingPlan,
    spool: Spool,
    *,
    level: int,
    base: DeltaBase | None = None,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> NewShard | None:
    """Encode the slots of a shard, where that is clearly smaller as differences from a base; None where none gains anything.

    `on_bytes` is told how many bytes of slots were encoded since the last call.
    """
    if shard not in plan.facts:
        return None
    file = rewriter.shards[shard]
    related = {slot: plan.relations[shard, slot] for slot in range(len(file.table.sizes)) if (shard, slot) in plan.relations}
    chosen = [facts for facts in plan.facts[shard] if facts.place[1] not in related]
    differences = {facts.place[1]: found for facts in chosen if base is not None and (found := base.difference(facts)) is not None}
    raws = [_raw_slot(file, facts, differences.get(facts.place[1])) for facts in chosen]
    ranges: dict[int, tuple[int, int]] = {}
    codecs: dict[int, tuple[Codec, ...]] = {slot: (codec,) for slot, codec in related.items()}
    begin = 0
    left = {raw.slot: len(raw.data) for raw in raws}
    for part in encode_slots(raws, level=level, threads=default_threads()):
        spool.append(part.data)
        # A part that is not the last of its slot is what a piece was encoded to.
        encoded_bytes = left[part.slot] if part.is_last else min(left[part.slot], PIECE_BYTES)
        left[part.slot] -= encoded_bytes
        on_bytes(encoded_bytes)
        if part.is_last:
            if part.is_worth_it:
                ranges[part.slot] = (begin, spool.size_bytes)
                codecs[part.slot] = ((PLANES, {}),) if base is None or not part.is_delta else base.codecs(differences[part.slot])
            begin = spool.size_bytes
    return _new_shard(file, ranges, codecs, spool) if codecs else None


def _raw_slot(file: ShardFile, facts: SlotFacts, difference: Difference | None) -> RawSlot:
    slot = facts.place[1]
    raw = RawSlot(slot, facts.dtype, facts.shape, facts.data, partial(file.verify_slot, slot))
    return raw if difference is None else replace(raw, source=difference.decode)


def _new_shard(file: ShardFile, ranges: Mapping[int, tuple[int, int]], codecs: Mapping[int, tuple[Codec, ...]], spool: Spool) -> NewShard:
    header, table = file.read_header(), file.table
    old = decode_header(header, file_size_bytes=file.entry.size_bytes, where=file.where)
    entries, slots, encodings = [], [], {}
    for slot, entry in enumerate(old):
        begin, end = ranges.get(slot, (0, 0))
        if slot not in codecs:
            entries.append(entry)
            slots.append(_cut(file.stored(slot)))
            continue
        entries.append(StoredEntry(entry.key, RAW, (end - begin,), end - begin))
        slots.append(spool.pieces(begin, end))
        encodings[slot] = Encoding(codecs[slot], entry.size_bytes, table.digest(slot))
    ties = json.loads(header[HEADER_LENGTH_BYTES:])[HEADER_METADATA_KEY]
    new_header = encode_header(entries, ties)
    original = OriginalShard(file.entry.name, header, parse_digest(file.entry.digest))
    sizes = [entry.size_bytes for entry in entries]
    return NewShard(ShardTable(len(new_header), table.keys, sizes, b"", encodings, original), new_header, slots)


def _cut(memory: memoryview) -> Iterator[memoryview]:
    for begin in range(0, len(memory), _PIECE_BYTES):
        yield memory[begin : begin + _PIECE_BYTES]


def find_original(rewriter: ShardRewriter, shard: int) -> tuple[ShardTable, bytes] | None:
    """Return table and header of the shard from which one was made; None where it was made from none.

    Raises:
        CorruptError: it cannot be made again.
    """
    table, where = rewriter.metadata.shards[shard], rewriter.shards[shard].where
    original = table.original
    if original is None:
        return None
    encodings = [table.encodings.get(slot) for slot in range(len(table.sizes))]
    sizes = [encoding.raw_size_bytes if encoding else size for encoding, size in zip(encodings, table.sizes, strict=True)]
    digests = b"".join(encoding.raw_digest if encoding else table.digest(slot) for slot, encoding in enumerate(encodings))
    entries = decode_header(original.header, file_size_bytes=len(original.header) + sum(sizes), where=where)
    if [entry.key for entry in entries] != table.keys or [entry.size_bytes for entry in entries] != sizes:
        raise violation("E032", where, "the header of the original shard has other keys or sizes")
    if shard_digest(original.header, digests) != original.digest:
        raise violation("E032", where, "the original shard cannot be made again: its digest would be another")
    return ShardTable(len(original.header), table.keys, sizes, b""), original.header


def count_added(rewriter: ShardRewriter) -> int:
    """Return how many shards at the end serve nothing but deltas of shards that can be made again as they were before."""
    tables = rewriter.metadata.shards
    sources = {encoding.delta_source[0] for table in tables for encoding in table.encodings.values() if encoding.delta_source}
    count = 0
    while count < len(tables) and not rewriter.uses[-count - 1].slots and len(tables) - count - 1 in sources:
        count += 1
    added = range(len(tables) - count, len(tables))
    for table in tables[: added.start]:
        of_table = [encoding.source or encoding.delta_source for encoding in table.encodings.values()]
        if table.original is None and any(source is not None and source[0] in added for source in of_table):
            return 0
    return count
