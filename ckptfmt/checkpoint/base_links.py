"""What a save need not write again, because its base holds it already. Spec 10.

Deciding costs one pass over the tensors with the hash, and no reading: the base's digests are in its metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ckptfmt.checkpoint.shard_plan import PlannedTensor
from ckptfmt.format.manifest import Manifest, ShardEntry
from ckptfmt.format.metadata import Metadata, ShardTable

WORTH_LINKING = 0.5

Kind = tuple[str, str, str, tuple[int, ...]]
"""Section, key, dtype and shape: what a slot must agree in, beside its bytes, to serve a tensor."""
Place = tuple[int, int]
"""Shard and slot."""


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """A shard of the base that is taken over, and for each row of the new index that it serves, the slot."""

    entry: ShardEntry
    table: ShardTable
    slots: dict[int, int]


def plan_links(
    tensors: Sequence[PlannedTensor], digests: Sequence[bytes], places: Mapping[Kind, Place], manifest: Manifest, metadata: Metadata
) -> list[LinkPlan]:
    """Find the shards of a base of which at least half the bytes are still used. `places` are those of `whole_chunks`."""
    slots: dict[int, dict[int, int]] = {}
    for tensor, digest in zip(tensors, digests, strict=True):
        place = places.get((tensor.section, tensor.key, tensor.dtype, tensor.shape))
        if place is not None and metadata.shards[place[0]].digest(place[1]) == digest:
            slots.setdefault(place[0], {})[tensor.index] = place[1]
    plans = [LinkPlan(manifest.shards[shard], metadata.shards[shard], used) for shard, used in sorted(slots.items())]
    return [plan for plan in plans if _used_bytes(plan) >= WORTH_LINKING * sum(plan.table.sizes)]


def whole_chunks(manifest: Manifest, metadata: Metadata) -> dict[Kind, Place]:
    """Return where a checkpoint holds each tensor that is stored whole and as it is."""
    places = {}
    for row in metadata.tensors:
        if len(row.chunks) == 1 and row.chunks[0].shape == row.shape:
            shard, slot = row.chunks[0].shard, row.chunks[0].slot
            table = metadata.shards[shard]
            # Sources of encoded slots are places of their own checkpoint, so a shard with such slots cannot be taken over.
            if not table.encodings:
                places[manifest.shards[shard].section, table.keys[slot], row.dtype, row.shape] = (shard, slot)
    return places


def _used_bytes(plan: LinkPlan) -> int:
    return sum(plan.table.sizes[slot] for slot in set(plan.slots.values()))


def hash_all(sizes: Sequence[int], digest_at: Callable[[int], bytes], *, threads: int) -> list[bytes]:
    """Return the digest of each tensor, large ones in parallel. `digest_at` must release the interpreter's lock."""
    if sum(sizes) < 2**22 or threads < 2:
        return [digest_at(index) for index in range(len(sizes))]
    with ThreadPoolExecutor(threads, thread_name_prefix="ckptfmt-hash") as pool:
        return list(pool.map(digest_at, range(len(sizes)), chunksize=max(1, len(sizes) // (threads * 16))))
