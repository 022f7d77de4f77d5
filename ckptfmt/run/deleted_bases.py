"""Checkpoints that are stored as differences from others which are gone: they keep the files of those, which nobody else needs.

Each is whole, so nothing has to be done; but after a clean-up the few that stay may hold what all the others took. Then they are to be
compressed anew, as differences from what is there. Judged by manifests alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ckptfmt.format.layout import is_data_name
from ckptfmt.format.manifest import ShardEntry
from ckptfmt.run.steps import StepEntry

WORTH_IT = 0.25
_NUMBER_OF_BASES = "00000"


def steps_on_deleted_bases(entries: Sequence[StepEntry]) -> set[int]:
    """Return the steps that stand on files of which no step is left, where these are a good part of all; else none."""
    shards = {entry.step: list(entry.manifest.shards) for entry in entries if entry.manifest is not None}
    own = {shard.digest for of_step in shards.values() for shard in of_step if not _is_of_a_base(shard)}
    held = {step: [shard for shard in of_step if _is_of_a_base(shard) and shard.digest not in own] for step, of_step in shards.items()}
    held_bytes = _total_bytes(shard for of_step in held.values() for shard in of_step)
    if held_bytes < WORTH_IT * _total_bytes(shard for of_step in shards.values() for shard in of_step):
        return set()
    return {step for step, of_step in held.items() if of_step}


def _is_of_a_base(shard: ShardEntry) -> bool:
    """Tell whether a shard was linked only because differences stand on it, which its name says."""
    stem, _, number = shard.name.rpartition("-")[0].rpartition("-")
    return is_data_name(shard.name) and bool(stem) and number == _NUMBER_OF_BASES


def _total_bytes(shards: Iterable[ShardEntry]) -> int:
    """Return their size; what several steps have counts once."""
    return sum({shard.digest: shard.size_bytes for shard in shards}.values())
