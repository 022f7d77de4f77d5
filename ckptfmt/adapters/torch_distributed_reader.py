"""`StorageReader`: torch.distributed.checkpoint (DCP) loads a checkpoint of this format, whoever saved it. Spec 12.

Each process opens only the shards, and reads only the slots, that its own plan needs. They are verified while DCP is still planning: if
any process finds damage, all of them raise before one byte of the application's tensors has changed. Nothing is unpickled.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import chain
from typing import Any

from ckptfmt.adapters.torch_distributed_leaves import Leaf, find_leaves
from ckptfmt.adapters.torch_distributed_tree import Path
from ckptfmt.checkpoint.directory import open_checkpoint_directory, read_manifest
from ckptfmt.checkpoint.many_files import ManyFiles
from ckptfmt.checkpoint.metadata_file import read_metadata
from ckptfmt.checkpoint.shard_file import ShardFile, uses_by_shard
from ckptfmt.checkpoint.tensor_store import TensorStore
from ckptfmt.disk.anywhere import AnyDisk
from ckptfmt.disk.protocol import Directory
from ckptfmt.disk.urls import location
from ckptfmt.errors import CorruptError, IncompleteError, NameNotFoundError, UnsupportedTypeError
from ckptfmt.format.manifest import Manifest
from ckptfmt.format.metadata import Chunk, Metadata
from ckptfmt.format.references import check_references
from ckptfmt.format.tree_walk import tensor_ids
from ckptfmt.state.pause import collector_paused
from ckptfmt.state.torch_tensors import torch_dtype_of
from ckptfmt.state.tree import decode_leaf, outline_state

PathLike = str | os.PathLike[str]

_DISK = AnyDisk()


class StorageReader:
    """Where `dcp.load` reads: `dcp.load(state, storage_reader=StorageReader(path))`.

    It may have been saved by any number of processes, or by one with `ckptfmt.save`. `verify=False` skips the digests, and nothing else.
    """

    def __init__(self, path: PathLike = "", *, verify: bool = True) -> None:
        from torch.distributed.checkpoint.storage import StorageReader as Interface

        Interface.register(StorageReader)
        self.path = location(path)
        self._verify = verify
        self._open: OpenParts | None = None
        self._is_fresh = False

    @property
    def checkpoint_id(self) -> str:
        """The path, as DCP calls it."""
        return self.path

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: PathLike) -> bool:
        """Tell whether this may be a path, or the URL of a store."""
        return bool(os.fspath(checkpoint_id))

    def reset(self, checkpoint_id: PathLike | None = None) -> None:
        """Begin another load, from this path if one is given."""
        if checkpoint_id:
            self.path = location(checkpoint_id)
        self.close()

    def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
        """Read the index, and return it as DCP describes checkpoints."""
        if kwargs.get("rank") is not None:
            raise FileNotFoundError(f"{self.path}: a checkpoint has one index for all processes")
        if not self._is_fresh:
            self.open()
        self._is_fresh = False
        with collector_paused():
            return self._parts().describe()

    def open(self) -> None:
        """Open the checkpoint and read its index now, so that what is wrong with it is raised here and as it is."""
        self.close()
        with collector_paused():
            self._open = OpenParts(self.path, verify=self._verify)
        self._is_fresh = True

    def set_up_storage_reader(self, metadata: Any, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:  # noqa: FBT001
        """Take what `read_metadata` gave."""

    def prepare_local_plan(self, plan: Any) -> Any:
        """Open and verify what the plan of this process needs."""
        with collector_paused():
            self._parts().prepare(plan.items)
        return plan

    def prepare_global_plan(self, plans: list[Any]) -> list[Any]:
        """Leave the plans as they are."""
        return plans

    def read_data(self, plan: Any, planner: Any) -> Any:
        """Copy what the plan of this process names to where the planner wants it."""
        from torch.futures import Future

        try:
            with collector_paused():
                parts = self._parts()
                parts.prepare(plan.items)
                parts.read(plan.items, planner)
        finally:
            self.close()
        future: Any = Future()
        future.set_result(None)
        return future

    def close(self) -> None:
        """Close the files. Tensors that were handed out stay valid."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def __del__(self) -> None:
        # DCP does not say so when it gives up.
        if "_open" in self.__dict__:
            self.close()

    def _parts(self) -> OpenParts:
        if self._open is None:
            self._open = OpenParts(self.path, verify=self._verify)
        return self._open


class OpenParts:
    """A checkpoint of which one process reads parts, by the names that DCP has for its leaves."""

    def __init__(self, path: str, *, verify: bool) -> None:
        self.path = path
        self._verify = verify
        with ExitStack() as stack:
            self._directory: Directory = open_checkpoint_directory(_DISK, path)
            stack.callback(self._directory.close)
            self._manifest: Manifest = read_manifest(self._directory)
            self._metadata: Metadata = read_metadata(self._directory, self._manifest)
            outline_state(self._metadata.tree, self._metadata.tensors.__getitem__)
            check_references(self._metadata.tree, self._metadata.tensors, where=path)
            self._leaves = find_leaves(self._metadata.tree, where=path)
            self._files = ManyFiles(self._directory, len(self._manifest.shards))
            stack.callback(self._files.close)
            self._stack = stack.pop_all()
        self._shards: dict[int, ShardFile] = {}
        self._store = TensorStore(self._metadata, self._shards, verify=verify)
        self._uses: list[Any] | None = None
        self._chunks: dict[tuple[int, tuple[int, ...]], Chunk] = {}

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    def chunk(self, name: str, offset: tuple[int, ...]) -> Any:
        """Return one chunk of a tensor, verified."""
        import torch

        row = self._metadata.tensors[self._leaves[name].row or 0]
        chunk = next(chunk for chunk in row.chunks if chunk.offset == offset)
        self._prepare([chunk])
        data = self._store.chunk_bytes(chunk)
        dtype = _dtype_of(row.dtype, name)
        return torch.frombuffer(data, dtype=dtype).view(chunk.shape) if len(data) else torch.empty(chunk.shape, dtype=dtype)

    def value(self, name: str) -> Any:
        """Return a value that is no tensor, verified."""
        self._prepare(self._chunks_of_value(self._leaves[name]))
        return decode_leaf(self._leaves[name].node, self._store.memory)

    def describe(self) -> Any:
        """Return the index as DCP describes checkpoints."""
        from torch.distributed.checkpoint.metadata import BytesStorageMetadata, StorageMeta
        from torch.distributed.checkpoint.metadata import Metadata as Description

        described = {
            name: BytesStorageMetadata() if leaf.row is None else self._describe_tensor(name, leaf.row)
            for name, leaf in self._leaves.items()
        }
        paths = {name: leaf.path for name, leaf in self._leaves.items()}
        return Description(described, planner_data=paths, storage_meta=StorageMeta(checkpoint_id=self.path))

    def _describe_tensor(self, name: str, number: int) -> Any:
        import torch
        from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, TensorProperties, TensorStorageMetadata

        row = self._metadata.tensors[number]
        dtype = _dtype_of(row.dtype, name)
        chunks = [ChunkStorageMetadata(torch.Size(chunk.offset), torch.Size(chunk.shape)) for chunk in row.chunks]
        return TensorStorageMetadata(TensorProperties(dtype=dtype), torch.Size(row.shape), chunks)

    def prepare(self, items: Iterable[Any]) -> None:
        """Open the shards that some read items need, check their headers, and verify the slots."""
        self._prepare([chunk for item in items for chunk in self._chunks_of(item)])

    def _prepare(self, chunks: Iterable[Chunk]) -> None:
        slots = {(chunk.shard, chunk.slot) for chunk in chunks}
        for shard in sorted({shard for shard, _ in self._with_sources(slots)} - self._shards.keys()):
            self._open_shard(shard)
        self._store.prepare_slots(slots)

    def _with_sources(self, slots: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
        """Return slots with those that they are made from, and those that these are made from."""
        found: set[tuple[int, int]] = set()
        pending = list(slots)
        while pending:
            shard, slot = pending.pop()
            encoding = self._metadata.shards[shard].encodings.get(slot)
            source = None if encoding is None else encoding.source or encoding.delta_source
            if source is not None and source not in found:
                pending.append(source)
            found.add((shard, slot))
        return found

    def _chunks_of(self, item: Any) -> Iterable[Chunk]:
        leaf = self._leaf(item)
        return self._chunks_of_value(leaf) if leaf.row is None else (self._chunk_of(item, leaf.row),)

    def _chunks_of_value(self, leaf: Leaf) -> list[Chunk]:
        return [chunk for number in tensor_ids(leaf.node) for chunk in self._metadata.tensors[number].chunks]

    def _leaf(self, item: Any) -> Leaf:
        name = item.storage_index.fqn
        if name not in self._leaves:
            raise NameNotFoundError(f"{self.path}: no value has the path {name!r}", name=name, path=self.path)
        return self._leaves[name]

    def _chunk_of(self, item: Any, number: int) -> Chunk:
        # It is asked for several times on the way from the plan to the copy.
        key = number, tuple(item.storage_index.offset)
        chunk = self._chunks.get(key)
        if chunk is None:
            chunk = self._chunks[key] = self._find_chunk(item, *key)
        return chunk

    def _find_chunk(self, item: Any, number: int, offset: tuple[int, ...]) -> Chunk:
        chunks, hint = self._metadata.tensors[number].chunks, item.storage_index.index or 0
        found = next((chunk for chunk in chain(chunks[hint : hint + 1], chunks) if chunk.offset == offset and 0 not in chunk.shape), None)
        if found is None:
            name = item.storage_index.fqn
            raise NameNotFoundError(f"{self.path}: {name!r} has no chunk at {offset}", name=name, path=self.path)
        return found

    def _open_shard(self, shard: int) -> None:
        entry = self._manifest.shards[shard]
        try:
            file = self._files.open(entry, is_read=False)
        except CorruptError as error:
            if error.rule == "E012" and read_manifest(self._directory).digest != self._manifest.digest:
                raise IncompleteError(f"{self.path}: was overwritten while it was loaded\nLoad it again.", path=self.path) from error
            raise
        opened = ShardFile(file, entry, self._metadata.shards[shard], where=f"{self.path}/{entry.name}")
        if self._uses is None:
            self._uses = uses_by_shard(self._metadata)
        opened.check_header(self._uses[shard], verify=self._verify)
        self._shards[shard] = opened

    def read(self, items: Iterable[Any], planner: Any) -> None:
        """Copy what read items name to where the planner wants it."""
        by_chunk: dict[tuple[int, Chunk], list[Any]] = {}
        for item in items:
            leaf = self._leaf(item)
            if leaf.row is None:
                _give_value(planner, item, decode_leaf(leaf.node, self._store.memory))
            else:
                by_chunk.setdefault((leaf.row, self._chunk_of(item, leaf.row)), []).append(item)
        for (row, chunk), parts in by_chunk.items():
            self._copy(self._metadata.tensors[row].dtype, chunk, parts, planner)

    def _copy(self, dtype: str, chunk: Chunk, items: Iterable[Any], planner: Any) -> None:
        import torch

        whole: Any = None
        for item in items:
            target = planner.resolve_tensor(item).detach()
            if target.numel():
                if whole is None:
                    data = self._store.chunk_bytes(chunk)
                    whole = torch.frombuffer(data, dtype=_dtype_of(dtype, item.storage_index.fqn)).view(chunk.shape)
                source = whole
                for axis, (begin, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                    source = source.narrow(axis, begin, length)
                if source.shape != target.shape:
                    expected, found = tuple(source.shape), tuple(target.shape)
                    raise ValueError(f"{item.storage_index.fqn}: expected a place of shape {expected}, found {found}")
                target.copy_(source)
            planner.commit_tensor(item, target)


def _dtype_of(dtype: str, name: str) -> Any:
    found = torch_dtype_of(dtype)
    if found is None:
        raise UnsupportedTypeError(f"{name}: the installed torch has no element type {dtype}\nUpdate torch.", path=name)
    return found


def _give_value(planner: Any, item: Any, value: Any) -> None:
    """Hand over a value: as it is to DCP's own planner, which would only unpickle it, else in the bytes that planners expect."""
    import torch
    from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner

    if getattr(type(planner), "load_bytes", None) is not DefaultLoadPlanner.load_bytes:
        data = io.BytesIO()
        torch.save(value, data)
        data.seek(0)
        planner.load_bytes(item, data)
    elif planner.flatten_state_dict:
        _put(planner.original_state_dict, planner.mappings[item.dest_index.fqn], value)
    else:
        planner.state_dict[item.dest_index.fqn] = value


def _put(root: Any, path: Path, value: Any) -> None:
    """Put a value where a path of DCP leads in the application's state, in which keys may be other than text."""
    container = root
    for place, key in enumerate(path):
        if isinstance(container, list):
            container.extend([None] * (int(key) + 1 - len(container)))
        elif key not in container:
            key = next((known for known in container if str(known) == key), key)
        if place + 1 == len(path):
            container[key] = value
            return
        below: Any = {} if type(path[place + 1]) is str else []
        container = container.setdefault(key, below) if not isinstance(container, list) else _list_member(container, int(key), below)


def _list_member(container: list[Any], index: int, new: Any) -> Any:
    if container[index] is None:
        container[index] = new
    return container[index]
