"""What a save need not write again, because its base holds it already. Spec 10.

Deciding costs one pass over the tensors with the hash, and no reading: the base's digests are in its metadata.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ckptfmt.checkpoint.metadata_file import BaseIndex
from ckptfmt.checkpoint.shard_plan import TensorPlan
from ckptfmt.format.manifest import Manifest, ShardEntry
from ckptfmt.format.metadata import ShardTable

WORTH_LINKING = 0.5

Place = tuple[int, int]
"""Shard and slot."""


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """A shard of the base that is taken over, and for each row of the new index that it serves, the slot."""

    entry: ShardEntry
    table: ShardTable
    slots: dict[int, int]


def plan_links(digests: Sequence[bytes], places: Sequence[Place | None], manifest: Manifest, base: BaseIndex) -> list[LinkPlan]:
    """Find the shards of a base of which at least half the bytes are still used. `places` are those of `find_places`."""
    known = [_chunk_digests(table) for table in base.shards]
    slots: dict[int, dict[int, int]] = {}
    for row, (digest, place) in enumerate(zip(digests, places, strict=True)):
        if place is not None and known[place[0]][place[1]] == digest:
            slots.setdefault(place[0], {})[row] = place[1]
    plans = [LinkPlan(manifest.shards[shard], base.shards[shard], used) for shard, used in sorted(slots.items())]
    return [plan for plan in plans if _used_bytes(plan) >= WORTH_LINKING * sum(plan.table.sizes)]


def find_places(tensors: TensorPlan, manifest: Manifest, base: BaseIndex) -> list[Place | None]:
    """Return where a base holds each tensor whole and as it is, by section, key, dtype and shape; None where it does not."""
    index = base.tensors
    held = list(zip(index.shards, index.slots, strict=True))
    keys = [base.shards[shard].keys[slot] if shard >= 0 else "" for shard, slot in held]
    sections = [manifest.shards[shard].section if shard >= 0 else "" for shard, _ in held]
    can_move = [_is_by_itself(table) for table in base.shards]
    places: list[Place | None] = [(shard, slot) if shard >= 0 and can_move[shard] else None for shard, slot in held]
    columns = (tensors.sections, tensors.keys, tensors.dtypes, tensors.shapes)
    if columns == (sections, keys, index.dtypes, index.shapes):
        # The usual base: the same state, a few steps before.
        return places
    kinds = zip(sections, keys, index.dtypes, index.shapes, strict=True)
    known = {kind: place for kind, place in zip(kinds, places, strict=True) if place is not None}
    return [known.get(kind) for kind in zip(*columns, strict=True)]


def find_chunk_places(tensors: TensorPlan, manifest: Manifest, base: BaseIndex) -> list[Place | None]:
    """Return where a base holds each chunk as it is, planned as a tensor of its own: parts of tensors too."""
    index = base.tensors
    held = list(zip(index.dtypes, index.shapes, index.shards, index.slots, strict=True))
    held += [(index.dtypes[row], chunk.shape, chunk.shard, chunk.slot) for row, chunks in index.parts.items() for chunk in chunks]
    known = {
        (manifest.shards[shard].section, base.shards[shard].keys[slot], dtype, shape): (shard, slot)
        for dtype, shape, shard, slot in held
        if shard >= 0 and not base.shards[shard].encodings
    }
    return [known.get(kind) for kind in zip(tensors.sections, tensors.keys, tensors.dtypes, tensors.shapes, strict=True)]


def _is_by_itself(table: ShardTable) -> bool:
    """Tell whether a shard can be taken over: sources of encoded slots are places of their own checkpoint."""
    return all(encoding.source is None and encoding.delta_source is None for encoding in table.encodings.values())


def _chunk_digests(table: ShardTable) -> list[bytes]:
    """Return the digests of what slots hold, decoded."""
    digests = table.split_digests()
    for slot, encoding in table.encodings.items():
        digests[slot] = encoding.raw_digest
    return digests


def _used_bytes(plan: LinkPlan) -> int:
    return sum(plan.table.sizes[slot] for slot in set(plan.slots.values()))
