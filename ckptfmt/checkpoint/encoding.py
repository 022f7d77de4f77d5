"""The public functions that compress a checkpoint, and that undo it: other shards of the same state, in place. Spec 11.

Both are saves into the same directory: a crash at any moment leaves what was there or what is to be there, whole. What was compressed is
decoded again, from the file, before the old files are removed; what is decompressed has the digest that it had before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from ckptfmt.checkpoint.delta_base import DeltaBase
from ckptfmt.checkpoint.directory import open_checkpoint_directory, read_manifest
from ckptfmt.checkpoint.encoded_shard import count_added, encode_shard, find_original, plan_encoding
from ckptfmt.checkpoint.info import CheckpointInfo
from ckptfmt.checkpoint.shard_rewriter import NewShard, ShardRewriter
from ckptfmt.checkpoint.slot_decoding import SlotDecoder
from ckptfmt.checkpoint.spool import Spool
from ckptfmt.checkpoint.staging import Staging, naming_a_full_disk
from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.protocol import Disk

_DISK = LocalDisk()
MAX_LEVEL = 22

PathLike = str | os.PathLike[str]
OnBytes = Callable[[int], None]


def _ignore(_: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class EncodingReport:
    """What compressing or decompressing did to one checkpoint.

    Sizes are of all its files; the unique ones are what no other checkpoint shares by a hard link. `sections` has the sizes of each
    section's shards, before and after.
    """

    info: CheckpointInfo
    is_changed: bool
    before_bytes: int
    after_bytes: int
    unique_before_bytes: int
    unique_after_bytes: int
    sections: Mapping[str, tuple[int, int]]


def compress(path: PathLike, *, level: int = 3, base: PathLike | None = None) -> EncodingReport:
    """Compress a checkpoint in place, without loss; everything that reads it goes on to do so.

    Tensors are coded by what floats are like, equal ones are stored once, and half-precision copies of others not at all. Higher levels,
    up to 22, take longer and gain a little on some data. Tensors that gain nothing, and shards that other checkpoints share by hard
    links, stay as they are. What is compressed already is not touched.

    With a `base`, another checkpoint, compressed before, tensors that changed little since are stored as differences from it. Its files
    are linked into this checkpoint, which stays whole when the base is deleted. Where links do not work, there are no differences.

    Raises:
        CheckpointNotFoundError, IncompleteError: there is nothing, or no committed checkpoint.
        CorruptError: it is damaged; nothing was changed.
        RunLockedError: something else is writing it.
        NotEnoughSpaceError: both do not fit side by side; nothing was changed.
    """
    check_level(level)
    return compress_checkpoint(_DISK, os.fspath(path), level=level, base=None if base is None else os.fspath(base))


def check_level(level: object) -> None:
    """Raise ValueError unless this is a level of compression."""
    if type(level) is not int or not 1 <= level <= MAX_LEVEL:
        raise ValueError(f"level={level!r}: expected an integer from 1 to {MAX_LEVEL}")


def decompress(path: PathLike) -> EncodingReport:
    """Give a checkpoint its shards back, byte for byte as they were before `compress`.

    Raises:
        As of `compress`.
    """
    return decompress_checkpoint(_DISK, os.fspath(path))


def compress_checkpoint(disk: Disk, path: str, *, level: int, base: str | None = None, on_bytes: OnBytes = _ignore) -> EncodingReport:
    """Compress a checkpoint on any disk; `on_bytes` is told how many bytes of tensors were encoded since the last call."""

    def rewrite(rewriter: ShardRewriter) -> None:
        plan = plan_encoding(rewriter)
        with ExitStack() as stack:
            found = stack.enter_context(DeltaBase(disk, base, rewriter)) if base is not None and plan.facts else None
            for shard in range(len(rewriter.shards)):
                with Spool(rewriter.staging) as spool:
                    new = encode_shard(rewriter, shard, plan, spool, level=level, base=found, on_bytes=on_bytes)
                    if new is None:
                        rewriter.keep(shard)
                    else:
                        rewriter.write(shard, new)
            if found is not None:
                found.finish()

    return _rewrite(disk, path, rewrite)


def decompress_checkpoint(disk: Disk, path: str, *, on_bytes: OnBytes = _ignore) -> EncodingReport:
    """Decompress a checkpoint on any disk; `on_bytes` is told how many bytes of tensors were written since the last call."""

    def counted(pieces: Iterator[memoryview]) -> Iterator[memoryview]:
        for piece in pieces:
            yield piece
            on_bytes(len(piece))

    def rewrite(rewriter: ShardRewriter) -> None:
        decoder = SlotDecoder(dict(enumerate(rewriter.shards)), verify=True)
        originals = [find_original(rewriter, shard) for shard in range(len(rewriter.shards))]
        rewriter.staging.check_space(sum(table.header_size_bytes + sum(table.sizes) for table, _ in filter(None, originals)))
        count = len(originals) - count_added(rewriter)
        for shard, original in enumerate(originals[:count]):
            if original is None:
                rewriter.keep(shard)
                continue
            table, header = original
            rewriter.write(shard, NewShard(table, header, (counted(decoder.pieces((shard, slot))) for slot in range(len(table.sizes)))))

    return _rewrite(disk, path, rewrite)


def _rewrite(disk: Disk, path: str, rewrite: Callable[[ShardRewriter], None]) -> EncodingReport:
    with naming_a_full_disk(path):
        # Before the staging, which would make a directory that is not there.
        directory = open_checkpoint_directory(disk, path)
        try:
            read_manifest(directory)
        finally:
            directory.close()
        with Staging(disk, path, overwrite=True, durable=True) as staging, ShardRewriter(staging) as rewriter:
            rewrite(rewriter)
            info = rewriter.commit() if rewriter.is_changed else rewriter.before
            return EncodingReport(
                info,
                rewriter.is_changed,
                rewriter.before.size_bytes,
                info.size_bytes,
                rewriter.before.unique_bytes,
                info.unique_bytes,
                rewriter.section_sizes(),
            )
