"""Tensors that the application names as unchanged since the base: taken over on its word, after a look at a few places.

Hashing is what an incremental save costs, and on a frozen backbone it is for nothing. Only the application knows that: a version
counter misses writes that go past it. So the word is the application's, and the look catches the usual slip, a tensor that is being
trained after all: its first, middle and last KiB are compared with the base's file. One that differs, or that the base lacks, is
hashed like any other. Nothing here decides what is linked.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import translate
from itertools import islice
from re import compile as compile_pattern

from ckptfmt.checkpoint.base_links import Place
from ckptfmt.checkpoint.directory import open_named_file
from ckptfmt.checkpoint.metadata_file import BaseIndex
from ckptfmt.disk.protocol import Directory, ReadableFile
from ckptfmt.errors import FormatError, NameNotFoundError
from ckptfmt.format.manifest import Manifest
from ckptfmt.format.rules import shown
from ckptfmt.state.tensors import TensorSource

_LOOK_BYTES = 1024
_WORTH_SKIPPING_BYTES = 64 * 1024
_SHOWN_NAMES = 5


def match_frozen(globs: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return the rows of the tensors whose names match one of the globs.

    Raises:
        NameNotFoundError: a glob that matches nothing, since it is a slip of the pen that would only be noticed as slowness.
    """
    matched: set[int] = set()
    for glob in globs:
        match = compile_pattern(translate(glob)).match
        found = [row for row, name in enumerate(names) if match(name)]
        if not found:
            there_are = ", ".join(map(shown, islice(names, _SHOWN_NAMES)))
            raise NameNotFoundError(
                f"frozen: {shown(glob)} matches none of {len(names)} tensors\nThere are {there_are or 'none'}.", name=glob
            )
        matched.update(found)
    return sorted(matched)


def unchanged_digests(
    frozen: Sequence[int],
    sources: Sequence[TensorSource],
    places: Sequence[Place | None],
    base: Directory,
    manifest: Manifest,
    index: BaseIndex,
) -> dict[int, bytes]:
    """Return the base's digest of each frozen tensor that looks the same there; small ones are as cheaply hashed."""
    files: dict[int, ReadableFile | None] = {}
    offsets: dict[int, list[int]] = {}
    digests = {}
    try:
        for row in frozen:
            place, source = places[row], sources[row]
            if place is None or source.size_bytes < _WORTH_SKIPPING_BYTES:
                continue
            shard, slot = place
            if slot in index.shards[shard].encodings:
                # What the file holds there is not what the tensor has.
                continue
            if shard not in files:
                files[shard] = _find_file(base, manifest, shard)
                offsets[shard] = index.shards[shard].offsets()
            file, memory = files[shard], source.memory()
            if file is not None and memory is not None and _looks_same(file, offsets[shard][slot], memory):
                digests[row] = index.shards[shard].digest(slot)
    finally:
        for opened in files.values():
            if opened is not None:
                opened.close()
    return digests


def _find_file(base: Directory, manifest: Manifest, shard: int) -> ReadableFile | None:
    try:
        return open_named_file(base, manifest.shards[shard])
    except (OSError, FormatError):
        return None


def _looks_same(file: ReadableFile, offset: int, memory: memoryview) -> bool:
    size = len(memory)
    try:
        return all(
            file.read(offset + start, _LOOK_BYTES) == memory[start : start + _LOOK_BYTES] for start in (0, size // 2, size - _LOOK_BYTES)
        )
    except (OSError, FormatError):
        return False
