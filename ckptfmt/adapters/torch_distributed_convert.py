"""Directories of torch.distributed.checkpoint (DCP) to checkpoints of this format, and back, chunk by chunk from mapped files."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any

from ckptfmt.adapters.torch_distributed_files import METADATA_NAME, ForeignDirectory
from ckptfmt.adapters.torch_distributed_reader import OpenParts
from ckptfmt.adapters.torch_distributed_tree import Path
from ckptfmt.adapters.torch_distributed_writer import StorageWriter
from ckptfmt.checkpoint.info import CheckpointInfo
from ckptfmt.disk.foreign_file import names_in
from ckptfmt.errors import CheckpointExistsError

PathLike = str | os.PathLike[str]


def from_dcp(dcp_directory: PathLike, path: PathLike, **options: Any) -> CheckpointInfo:
    """Save what DCP's FileSystemWriter wrote as a checkpoint, chunk by chunk. `options` are those of `StorageWriter`.

    Nothing of the directory is unpickled or run. Its mapping keys are text, as DCP has them.

    Raises:
        CheckpointNotFoundError: there is no checkpoint of DCP.
        UnsupportedTypeError: a value is no plain data; all names that it would import are listed.
        CorruptError: the directory is damaged.
    """
    source = _Source(ForeignDirectory(dcp_directory))
    writer = StorageWriter(path, **options)
    writer.set_up_storage_writer(True, rank=0)
    try:
        (plan,) = writer.prepare_global_plan([source.plan()])
        writer.finish(source.describe(), [writer.write_data(plan, source).value()])
    finally:
        writer.give_up()
    info: Any = writer.info
    return info  # type: ignore[no-any-return]


def to_dcp(path: PathLike, dcp_directory: PathLike) -> None:
    """Write a checkpoint as DCP's FileSystemWriter does, chunk by chunk, for programs that know only that.

    Every chunk is verified. What is written has DCP's guarantees, and its pickles, not ours.

    Raises:
        CheckpointExistsError: there is a checkpoint of DCP.
    """
    from torch.distributed.checkpoint.filesystem import FileSystemWriter

    target = os.fspath(dcp_directory)
    if METADATA_NAME in names_in(target):
        raise CheckpointExistsError(f"{target}: a checkpoint of DCP is stored here already\nConvert into another directory.", path=target)
    parts = OpenParts(os.fspath(path), verify=True)
    try:
        source = _Target(parts)
        writer = FileSystemWriter(target)
        writer.set_up_storage_writer(is_coordinator=True)
        (plan,) = writer.prepare_global_plan([writer.prepare_local_plan(source.plan())])
        planner: Any = source
        writer.finish(source.description, [writer.write_data(plan, planner).value()])
    finally:
        parts.close()


class _Source:
    """A directory of DCP, as the planner of a save sees its state."""

    gives_objects = True

    def __init__(self, directory: ForeignDirectory) -> None:
        self._directory = directory
        self.paths: Mapping[str, Path] = directory.paths

    def plan(self) -> Any:
        from torch.distributed.checkpoint.planner import SavePlan

        tensors = self._directory.tensors.items()
        items = [_tensor_item(name, tensor.dtype, tensor.shape, *chunk) for name, tensor in tensors for chunk in tensor.chunks]
        return SavePlan([*items, *map(_value_item, self._directory.values)])

    def describe(self) -> Any:
        import torch
        from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata, TensorProperties, TensorStorageMetadata

        described: dict[str, Any] = {name: BytesStorageMetadata() for name in self._directory.values}
        for name, tensor in self._directory.tensors.items():
            described[name] = TensorStorageMetadata(TensorProperties(dtype=tensor.dtype), torch.Size(tensor.shape), [])
        return Metadata(described, planner_data=self.paths or None)

    def resolve_data(self, item: Any) -> Any:
        return self._directory.tensor(item.index.fqn, tuple(item.index.offset))

    def lookup_object(self, index: Any) -> Any:
        return self._directory.value(index.fqn)


class _Target:
    """A checkpoint of ours, as the planner of a save by DCP sees its state."""

    def __init__(self, parts: OpenParts) -> None:
        self._parts = parts
        self.description = parts.describe()

    def plan(self) -> Any:
        from torch.distributed.checkpoint.metadata import BytesStorageMetadata
        from torch.distributed.checkpoint.planner import SavePlan

        items = []
        for name, found in self.description.state_dict_metadata.items():
            if isinstance(found, BytesStorageMetadata):
                items.append(_value_item(name))
            else:
                dtype = found.properties.dtype
                items += [_tensor_item(name, dtype, found.size, chunk.offsets, chunk.sizes) for chunk in found.chunks]
        return SavePlan(items)

    def resolve_data(self, item: Any) -> Any:
        import torch
        from torch.distributed.checkpoint.planner import WriteItemType

        if item.type != WriteItemType.BYTE_IO:
            return self._parts.chunk(item.index.fqn, tuple(item.index.offset))
        data = io.BytesIO()
        torch.save(self._parts.value(item.index.fqn), data)
        return data


def _tensor_item(name: str, dtype: Any, full: Any, offset: Any, shape: Any) -> Any:
    import torch
    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
    from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

    data = TensorWriteData(ChunkStorageMetadata(torch.Size(offset), torch.Size(shape)), TensorProperties(dtype=dtype), torch.Size(full))
    return WriteItem(MetadataIndex(name, torch.Size(offset)), WriteItemType.SHARD, tensor_data=data)


def _value_item(name: str) -> Any:
    from torch.distributed.checkpoint.metadata import MetadataIndex
    from torch.distributed.checkpoint.planner import WriteItem, WriteItemType

    return WriteItem(MetadataIndex(name), WriteItemType.BYTE_IO)
