"""A save by several processes, one after the other in this one: each writes the rows of every tensor that are its own."""

from __future__ import annotations

from typing import Any

from ckptfmt.checkpoint.part import Part, PartChunk, decode_part, encode_part
from ckptfmt.checkpoint.shard_plan import name_tensors
from ckptfmt.format.metadata import TensorRow
from ckptfmt.state.source_columns import SourceColumns
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
    columns = SourceColumns.of(state.tensors)
    facts = (columns.dtypes, columns.shapes, columns.sizes)
    names = name_tensors(columns.paths, columns.ties, *facts).names
    tensors = {name: TensorRow(name, *each, ()) for name, *each in zip(names, *facts, strict=True)}
    with product.joint_staging(disk, path, overwrite=chosen.overwrite, durable=chosen.durable) as staging:
        parts = [_write(product, disk, staging, state, chosen, process, processes) for process in range(processes)]
        return product.commit_parts(staging, state.tree, tensors, parts, chosen)


def _write(product: Product, disk: Any, staging: Any, state: EncodedState, options: Any, process: int, processes: int) -> Part:
    sources, paths, chunks = [], [], []
    for source in state.tensors:
        count = source.shape[0]
        begin, end = process * count // processes, (process + 1) * count // processes
        rows = _Rows(source, begin, end)
        path = (*source.keys[:-1], f"{source.keys[-1]}@{begin}")
        sources.append(rows)
        paths.append(path)
        chunks.append((".".join(source.keys), (begin,), rows.shape))
    planned = name_tensors(
        paths, {}, [each.dtype for each in sources], [each.shape for each in sources], [each.size_bytes for each in sources]
    )
    shards = product.write_part(disk, staging.path, staging.generation, planned, sources, options)
    told = [PartChunk(*chunk, shards.shards[row], shards.slots[row]) for row, chunk in enumerate(chunks)]
    return decode_part(encode_part(Part(shards.entries, shards.tables, told)))
