"""What one process stores of a plan of torch.distributed.checkpoint (DCP): chunks as planned tensors, and values in packed form.

A chunk that is a whole tensor has the key that it would have in a save by one process; a part has its offset behind that
(`layer.weight@4,0`), so that it is the same in every save with the same sharding. Chunks without elements are not stored.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from ckptfmt.adapters.torch_distributed_tree import Path, value_tensor_name
from ckptfmt.checkpoint.shard_plan import TensorPlan, name_tensors
from ckptfmt.errors import LimitError, UnsupportedTypeError
from ckptfmt.format.dtypes import itemsize_bytes
from ckptfmt.format.layout import DIGEST_BYTES, MAX_METADATA_RAW_BYTES
from ckptfmt.format.tree_walk import children_of
from ckptfmt.state.tensors import TensorSource
from ckptfmt.state.torch_tensors import element_type_of
from ckptfmt.state.tree import encode_state, tensor_sources

# What a chunk needs in the metadata: at most, but for names of more than a few words; in tags and small numbers; and for a larger number.
_FULL_CHUNK_BYTES = 256
_FIXED_CHUNK_BYTES = 14
_NUMBER_BYTES = 3


@dataclass(slots=True)
class PartPlan:
    """The share of one process. `chunks` are (tensor, offset, shape) in the order of `tensors` and `sources`."""

    tensors: TensorPlan = field(default_factory=lambda: name_tensors([], {}, [], [], []))
    sources: list[TensorSource] = field(default_factory=list)
    chunks: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    value_tensors: list[list[Any]] = field(default_factory=list)


def plan_part(items: Sequence[Any], planner: Any, paths: Mapping[str, Path], *, process: int) -> PartPlan:
    """Take what the planner holds for the write items of one process.

    Raises:
        UnsupportedTypeError: a value that cannot be stored; `.path` says where.
    """
    from torch.distributed.checkpoint.planner import WriteItemType

    plan = PartPlan()
    stored: list[tuple[str, ...]] = []
    objects = {}
    for item in items:
        name = item.index.fqn
        if item.type == WriteItemType.BYTE_IO:
            objects[name] = _object_of(item, planner)
            continue
        dtype, full, offset, shape = describe_item(item)
        if prod(shape):
            source = _source_of(planner.resolve_data(item), name, dtype, shape)
            plan.sources.append(source)
            plan.chunks.append((name, offset, shape))
            stored.append(chunk_path(texts_of(paths, name), offset, shape, full))
    encoded = encode_state(objects)
    plan.values = dict(children_of(encoded.tree) or ())
    for number, source in enumerate(encoded.tensors):
        path = (*texts_of(paths, source.keys[0]), *source.keys[1:])
        plan.value_tensors.append([list(path), source.dtype, list(source.shape), source.size_bytes])
        if source.size_bytes:
            plan.sources.append(source)
            plan.chunks.append((value_tensor_name(process, number), (0,) * len(source.shape), source.shape))
            stored.append(path)
    sources = plan.sources
    columns = [each.dtype for each in sources], [each.shape for each in sources], [each.size_bytes for each in sources]
    plan.tensors = name_tensors(stored, {}, *columns)
    return plan


def describe_item(item: Any) -> tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return element type, shape of the whole tensor, offset and shape of the chunk of a write item."""
    data = item.tensor_data
    return dtype_name(data.properties.dtype, item.index.fqn), tuple(data.size), tuple(data.chunk.offsets), tuple(data.chunk.sizes)


def dtype_name(dtype: Any, name: str) -> str:
    """Return the name in the format of a tensor's dtype."""
    found = element_type_of(dtype)
    if found is None:
        raise UnsupportedTypeError(f"{name}: tensors of {dtype} are not stored\nStore it as tensor.view(torch.uint8).", path=name)
    return found


def texts_of(paths: Mapping[str, Path], name: str) -> tuple[str, ...]:
    """Return the path of a leaf as texts; a leaf without a path stands at the top."""
    return tuple(map(str, paths.get(name) or (name,)))


def chunk_path(path: tuple[str, ...], offset: tuple[int, ...], shape: tuple[int, ...], full: tuple[int, ...]) -> tuple[str, ...]:
    """Return the path under which a chunk is stored."""
    return path if shape == full else (*path[:-1], f"{path[-1]}@{','.join(map(str, offset))}")


def planned_bytes(plans: Sequence[Any]) -> int:
    """Return how many bytes of tensors some plans would store."""
    data = [item.tensor_data for plan in plans for item in plan.items if item.tensor_data is not None]
    names = [element_type_of(tensor.properties.dtype) for tensor in data]
    return sum(prod(tensor.chunk.sizes) * itemsize_bytes(name or "uint8") for tensor, name in zip(data, names, strict=True))


def check_index_size(plans: Sequence[Any], where: str) -> None:
    """Refuse a save whose index would exceed the format's limit, before its first byte is written rather than at its commit.

    Raises:
        LimitError: there are too many chunks.
    """
    chunk_count = sum(len(plan.items) for plan in plans)
    if chunk_count * _FULL_CHUNK_BYTES < MAX_METADATA_RAW_BYTES:
        return
    raw_bytes = sum(_index_bytes(item) for plan in plans for item in plan.items if item.tensor_data is not None)
    if raw_bytes > MAX_METADATA_RAW_BYTES:
        raise LimitError(
            f"{where}: an index of {chunk_count:,} chunks needs {raw_bytes:,} bytes, more than {MAX_METADATA_RAW_BYTES:,} [E023]\n"
            "Shard over fewer processes and replicate over the others (HSDP), or save parts of the state in checkpoints of their own.",
            rule="E023",
            path=where,
        )


def _index_bytes(item: Any) -> int:
    """Return about how many bytes the metadata needs for a chunk, rather too few: key, size and digest in the shard's table, place."""
    chunk = item.tensor_data.chunk
    rank = len(chunk.offsets)
    offset = sum(len(str(begin)) + 1 for begin in chunk.offsets)
    return len(item.index.fqn.partition(".")[2]) + offset + DIGEST_BYTES + _FIXED_CHUNK_BYTES + 2 * rank * _NUMBER_BYTES


def _source_of(tensor: Any, name: str, dtype: str, shape: tuple[int, ...]) -> TensorSource:
    sources = tensor_sources(tensor, name)
    if len(sources) != 1 or (sources[0].dtype, sources[0].shape) != (dtype, shape):
        what = f"{type(tensor).__name__} of {tensor.dtype}, shape {tuple(tensor.shape)}, layout {tensor.layout}"
        raise UnsupportedTypeError(
            f"{name}: the planner gives another tensor than it planned: expected {dtype} {list(shape)}, found {what}\n"
            "Only dense tensors are stored from a sharded state.",
            path=name,
        )
    return sources[0]


def _object_of(item: Any, planner: Any) -> Any:
    """Return the value of an item: as it is where the planner would only serialise it, else what its bytes hold."""
    import torch
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

    kind = type(planner)
    has_defaults = all(getattr(kind, name, None) is getattr(DefaultSavePlanner, name) for name in ("resolve_data", "transform_object"))
    if has_defaults or getattr(planner, "gives_objects", False):
        return planner.lookup_object(item.index)
    data = planner.resolve_data(item)
    if not isinstance(data, io.BytesIO):
        return data
    data.seek(0)
    try:
        return torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:
        name = item.index.fqn
        data.seek(0)
        found = ", ".join(torch.serialization.get_unsafe_globals_in_checkpoint(data)) or str(error).partition("\n")[0]
        what = f"what the planner serialised holds more than plain data: {found[:200]}"
        raise UnsupportedTypeError(f"{name}: {what}\nStore plain values and tensors.", path=name) from error
