"""Statistics of tensors, from their verified bytes. The only reading of shards that `inspect` ever does.

Tensors are read in the order in which they are shown, as many at a time as there are cores: hashing and counting leave the
interpreter's lock alone.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from ckpt_inspect.sources.safetensors_file import SafetensorsFile
from ckptfmt.checkpoint.loading import open_checkpoint
from ckptfmt.errors import FormatError
from ckptfmt.state.statistics import TensorStats, tensor_statistics

_QUEUED_FOR_EACH_THREAD = 4

Outcome = TensorStats | FormatError | None


def checkpoint_statistics(path: str, indices: Sequence[int]) -> Iterator[Outcome]:
    """Yield the statistics of rows of a checkpoint's index; of a damaged tensor the error.

    Raises:
        CorruptError: a shard is missing, or its header is damaged.
    """
    with open_checkpoint(path) as checkpoint:
        checkpoint.store.check_headers(indices)

        def one(index: int) -> Outcome:
            try:
                memory = checkpoint.store.memory(index)
            except FormatError as error:
                return error
            return tensor_statistics(memory.dtype, memory.data)

        yield from _in_order(one, indices)


def safetensors_statistics(file: SafetensorsFile, indices: Sequence[int]) -> Iterator[Outcome]:
    """Yield the statistics of tensors of a foreign file; None where its element type is not known here."""
    with open(file.path, "rb") as opened, closing(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)) as mapped:

        def one(index: int) -> Outcome:
            row, begin = file.tensors[index], file.offsets[index]
            with memoryview(mapped) as whole, whole[begin : begin + row.size_bytes] as data:
                try:
                    return tensor_statistics(row.dtype, data)
                except KeyError:
                    return None

        yield from _in_order(one, indices)


def _in_order(one: Callable[[int], Outcome], indices: Sequence[int]) -> Iterator[Outcome]:
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads, thread_name_prefix="ckpt-inspect") as pool:
        window = threads * _QUEUED_FOR_EACH_THREAD
        queued = [pool.submit(one, index) for index in indices[:window]]
        following = iter(indices[window:])
        while queued:
            yield queued.pop(0).result()
            for index in following:
                queued.append(pool.submit(one, index))
                break
