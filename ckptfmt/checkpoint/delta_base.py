"""The checkpoint from which another one is stored as differences: its shards, linked beside those of the other. Spec 11.4.

A shard that is linked belongs to both, so neither harms the other. Where links do not work, nothing is stored as a difference: a copy
would take what the difference saves. What is damaged in the base is not built upon.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial

from ckptfmt.checkpoint.directory import open_checkpoint_directory, open_named_file, read_manifest
from ckptfmt.checkpoint.metadata_file import read_metadata
from ckptfmt.checkpoint.shard_file import ShardFile
from ckptfmt.checkpoint.shard_rewriter import ShardRewriter
from ckptfmt.checkpoint.slot_decoding import SlotDecoder
from ckptfmt.checkpoint.slot_relations import Place, SlotFacts
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import CorruptError
from ckptfmt.format.encodings import DELTA, PLANES, ROUNDED, SAME, Codec, Encoding
from ckptfmt.format.layout import section_stem
from ckptfmt.format.metadata import Metadata
from ckptfmt.format.plane_fit import word_bytes_of

MAX_CHAIN = 20
MIN_DELTA_BYTES = 2**12

ChunkKey = tuple[str, str, tuple[int, ...], tuple[int, ...]]
"""Name and element type of a tensor, offset and shape of the chunk."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A slot of the base to whose chunk something can be added, in words; `decode`, with a number of threads, gives the chunk."""

    source: Place
    word_bytes: int
    decode: Callable[[int], memoryview | None]


class DeltaBase:
    """The base of one checkpoint that is being rewritten. Use as a context manager: leaving it closes files."""

    def __init__(self, disk: Disk, path: str, rewriter: ShardRewriter) -> None:
        """Open a base.

        Raises:
            CheckpointNotFoundError, IncompleteError: it is no checkpoint.
            CorruptError: it is damaged, or lacks files.
        """
        self._rewriter = rewriter
        self._numbers: dict[int, int] = {}
        self._needed: set[Place] = set()
        self._names: dict[int, str] = {}
        with ExitStack() as stack:
            self._directory = open_checkpoint_directory(disk, path)
            stack.callback(self._directory.close)
            self._manifest = read_manifest(self._directory)
            self._metadata = read_metadata(self._directory, self._manifest)
            files = {}
            for number, (entry, table) in enumerate(zip(self._manifest.shards, self._metadata.shards, strict=True)):
                file = open_named_file(self._directory, entry)
                stack.callback(file.close)
                files[number] = ShardFile(file, entry, table, where=f"{path}/{entry.name}")
            self._stack = stack.pop_all()
        self._decoder = SlotDecoder(files, verify=True)
        self._sources = self._find_sources()
        self._link_shards()

    def __enter__(self) -> DeltaBase:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _find_sources(self) -> dict[Place, Place]:
        """Return for slots of the checkpoint the slots of the base that hold the same part of the same tensor."""
        if any(encoding.delta_source for table in self._rewriter.metadata.shards for encoding in table.encodings.values()):
            return {}
        places = {key: self._source_of(place) for key, place in _chunks(self._metadata).items()}
        found = {}
        for key, place in _chunks(self._rewriter.metadata).items():
            source = places.get(key)
            if source is not None and len(self._decoder.chain(source)) <= MAX_CHAIN:
                found[place] = source
        return found

    def _source_of(self, place: Place) -> Place | None:
        encoding = self._decoder.encoding(place)
        if encoding is None or encoding.kind not in (SAME, ROUNDED):
            return place
        return encoding.source if encoding.kind == SAME else None

    def _link_shards(self) -> None:
        """Link what may be needed; where one link fails, there are no differences."""
        staging = self._rewriter.staging
        for shard in sorted({shard for source in self._sources.values() for shard, _ in self._decoder.chain(source)}):
            entry = self._manifest.shards[shard]
            name = None
            # A base that is rewritten or deleted meanwhile only costs the gain.
            with suppress(FileNotFoundError, CorruptError):
                name = staging.adopt(self._directory, entry, stem=f"{section_stem(entry.section)}-00000")
            if name is None:
                self._sources = {}
                break
            self._names[shard] = name

    def difference(self, facts: SlotFacts) -> Difference | None:
        """Return how a slot differs from one of the base, if it has one there."""
        source = self._sources.get(facts.place)
        word_bytes = word_bytes_of(facts.dtype)
        size_bytes = len(facts.data)
        if source is None or size_bytes < MIN_DELTA_BYTES or size_bytes % word_bytes or self._decoder.raw_size_bytes(source) != size_bytes:
            return None
        return Difference(source, word_bytes, partial(self._find_chunk, source))

    def _find_chunk(self, source: Place, threads: int) -> memoryview | None:
        try:
            return self._decoder.decode(source, threads=threads)
        except CorruptError:
            return None

    def codecs(self, difference: Difference) -> tuple[Codec, ...]:
        """Return the codecs of a slot that is stored as a difference; what it needs of the base is then added with the rest."""
        chain = self._decoder.chain(difference.source)
        self._needed.update(chain)
        for shard, _ in reversed(chain):
            self._numbers.setdefault(shard, len(self._rewriter.shards) + len(self._numbers))
        shard, slot = difference.source
        return (PLANES, {}), (DELTA, {"source": [self._numbers[shard], slot], "word": difference.word_bytes})

    def finish(self) -> None:
        """Add the shards of the base that are needed, behind those of the checkpoint, and let go of the others."""
        for shard, name in self._names.items():
            if shard not in self._numbers:
                self._rewriter.staging.drop(name)
        for shard in self._numbers:
            table = self._metadata.shards[shard]
            encodings: dict[int, Encoding] = {
                slot: encoding.moved(self._numbers) for slot, encoding in table.encodings.items() if (shard, slot) in self._needed
            }
            entry = replace(self._manifest.shards[shard], name=self._names[shard])
            self._rewriter.add(entry, replace(table, encodings=encodings, original=None))


def _chunks(metadata: Metadata) -> dict[ChunkKey, Place]:
    return {(row.name, row.dtype, chunk.offset, chunk.shape): (chunk.shard, chunk.slot) for row in metadata.tensors for chunk in row.chunks}
