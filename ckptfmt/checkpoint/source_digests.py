"""The digests of a state's tensors without writing them: large ones in parallel, small ones gathered into one buffer first."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from ckptfmt.format.digest import Hasher, digest_of, digests_of
from ckptfmt.format.layout import DIGEST_BYTES
from ckptfmt.state.source_columns import SourceColumns
from ckptfmt.state.tensors import TensorSource

SMALL_BYTES = 2**15
_GATHERED_BYTES = 2**20
_PIECE_BYTES = 8 * 2**20
_WORTH_THREADS_BYTES = 2**22


def digest_sources(sources: SourceColumns, known: Mapping[int, bytes]) -> list[bytes]:
    """Return the digest of each row's bytes; those of rows that are `known` are taken as they are."""
    digests = [b""] * len(sources)
    large = []
    small = []
    for row, size_bytes in enumerate(sources.sizes):
        if row in known:
            digests[row] = known[row]
        elif size_bytes <= SMALL_BYTES:
            small.append(row)
        else:
            large.append(row)
    buffer = memoryview(bytearray(min(_GATHERED_BYTES, sum([sources.sizes[row] for row in small]))))
    for rows in _batches(small, sources.sizes):
        sizes = [sources.sizes[row] for row in rows]
        gathered = buffer[: sum(sizes)]
        sources.copy(rows, gathered)
        found = digests_of(gathered, sizes)
        for position, row in enumerate(rows):
            digests[row] = found[position * DIGEST_BYTES : (position + 1) * DIGEST_BYTES]
    sizes = [sources.sizes[row] for row in large]
    for row, digest in zip(
        large, hash_all(sizes, lambda index: digest_source(sources[large[index]]), threads=os.cpu_count() or 1), strict=True
    ):
        digests[row] = digest
    return digests


def _batches(rows: Sequence[int], sizes: Sequence[int]) -> Iterator[list[int]]:
    """Yield the rows in batches that fit into the buffer."""
    batch: list[int] = []
    room = _GATHERED_BYTES
    for row in rows:
        if sizes[row] > room:
            yield batch
            batch, room = [], _GATHERED_BYTES
        batch.append(row)
        room -= sizes[row]
    if batch:
        yield batch


def hash_all(sizes: Sequence[int], digest_at: Callable[[int], bytes], *, threads: int) -> list[bytes]:
    """Return the digest of each tensor, in parallel where they are large. `digest_at` must release the interpreter's lock."""
    if sum(sizes) < _WORTH_THREADS_BYTES or threads < 2:
        return [digest_at(index) for index in range(len(sizes))]
    with ThreadPoolExecutor(threads, thread_name_prefix="ckptfmt-hash") as pool:
        return list(pool.map(digest_at, range(len(sizes))))


def digest_source(source: TensorSource) -> bytes:
    """Return the digest of a tensor's bytes."""
    memory = source.memory()
    if memory is not None:
        return digest_of(memory)
    hasher = Hasher()
    for block in source.blocks(_PIECE_BYTES):
        hasher.update(block)
    return hasher.digest()
