"""A save by several processes, one after the other in this one: each writes the rows of every tensor that are its own."""

from __future__ import annotations

from typing import Any

from ckptfmt.checkpoint.part import Part, PartChunk, decode_part, encode_part
from ckptfmt.checkpoint.shard_plan import PlannedTensor, name_tensors
from ckptfmt.state.tensors import LiveTensor, TensorSource
from ckptfmt.state.tree import EncodedState
from tests.crash.checkpoint_product import Product


class _Rows(LiveTensor):
    """Some rows of a tensor of one axis."""

    def __init__(self, source: TensorSource, begin: int, end: int) -> None:
        itemsize = source.size_bytes // source.shape[0]
        super().__init__(source.dtype, (end - begin,), (end - begin) * itemsize)
        memory = source.memory()
        assert memory is not None
        self._memory = memory[begin * itemsize : end * itemsize]

    def memory(self) -> memoryview:
        return self._memory

    def pieces(self, block_bytes: int) -> Any:
        yield self._memory


def save_together(product: Product, disk: Any, path: str, state: EncodedState, *, processes: int = 2, **options: Any) -> Any:
    """Save a state with the functions that the processes of a distributed training call, in the order in which they may call them."""
    chosen = product.options(**options)
    described = [(source.keys, source.aliases, source.dtype, source.shape, source.size_bytes) for source in state.tensors]
    tensors = {tensor.name: tensor for tensor in name_tensors(described)}
    with product.joint_staging(disk, path, overwrite=chosen.overwrite, durable=chosen.durable) as staging:
        parts = [_write(product, disk, staging, state, chosen, process, processes) for process in range(processes)]
        return product.commit_parts(staging, state.tree, tensors, parts, chosen)


def _write(product: Product, disk: Any, staging: Any, state: EncodedState, options: Any, process: int, processes: int) -> Part:
    sources, described, chunks = [], [], []
    for source in state.tensors:
        count = source.shape[0]
        begin, end = process * count // processes, (process + 1) * count // processes
        rows = _Rows(source, begin, end)
        path = (*source.keys[:-1], f"{source.keys[-1]}@{begin}")
        sources.append(rows)
        described.append((path, (), rows.dtype, rows.shape, rows.size_bytes))
        chunks.append((".".join(source.keys), (begin,), rows.shape))
    planned: list[PlannedTensor] = name_tensors(described)
    shards = product.write_part(disk, staging.path, staging.generation, planned, sources, options)
    told = [PartChunk(*chunk, *shards.places[index]) for index, chunk in enumerate(chunks)]
    return decode_part(encode_part(Part(shards.entries, shards.tables, told)))
