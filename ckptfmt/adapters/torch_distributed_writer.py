"""`StorageWriter`: torch.distributed.checkpoint (DCP) saves a checkpoint of this format. Spec 5.1.

DCP asks in this order: `prepare_global_plan` on the coordinator, `write_data` on every process, `finish` on the coordinator once all
have answered, and never that if one of them failed. So `finish` is the commit. There is no call for giving up: a save that was begun
and not finished is given up when the writer is not used any more, or by the next save into the same directory.

Nothing is serialised by DCP or torch, and nothing is pickled onto a disk. What DCP's processes tell each other is pickled by DCP.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ckptfmt.adapters.torch_distributed_plan import PartPlan, check_index_size, dtype_name, plan_part, planned_bytes, texts_of
from ckptfmt.adapters.torch_distributed_tree import Described, Path, TreeFiller, merge_structures, structure_of_paths
from ckptfmt.checkpoint.info import CheckpointInfo
from ckptfmt.checkpoint.joint_commit import JointStaging, commit_parts
from ckptfmt.checkpoint.part import Part, PartChunk, decode_part, encode_part
from ckptfmt.checkpoint.part_writer import write_part
from ckptfmt.checkpoint.publishing import SaveOptions
from ckptfmt.checkpoint.saving import HasDocument, check_options
from ckptfmt.checkpoint.shard_writer import ShardWriter
from ckptfmt.disk.local import LocalDisk
from ckptfmt.errors import IncompleteError
from ckptfmt.state.pause import collector_paused

PathLike = str | os.PathLike[str]

_DISK = LocalDisk()
# Saves of this process that were begun as coordinator, by path, with the thread that did.
_BEGUN: dict[str, tuple[threading.Thread, JointStaging]] = {}


class StorageWriter:
    """Where `dcp.save` and `dcp.async_save` write: `dcp.save(state, storage_writer=StorageWriter(path))`.

    The arguments are those of `ckptfmt.save`; all processes give the same. After the save `info` describes the checkpoint, on the
    coordinator. Where the same path is saved to repeatedly, pass `overwrite=True`: what was there stays until the new one is durable.
    """

    def __init__(
        self,
        path: PathLike = "",
        *,
        step: int | None = None,
        metrics: Mapping[str, Any] | None = None,
        fingerprint: Mapping[str, Any] | HasDocument | None = None,
        overwrite: bool = False,
        base: PathLike | None = None,
        max_shard_size: str | int = "2GB",
        durable: bool = True,
    ) -> None:
        self.path = os.fspath(path)
        self.options = check_options(
            step=step,
            metrics=metrics,
            fingerprint=fingerprint,
            overwrite=overwrite,
            base=base,
            max_shard_size=max_shard_size,
            durable=durable,
        )
        self.info: CheckpointInfo | None = None
        self._process = 0
        _register()

    @classmethod
    def with_options(cls, path: str, options: SaveOptions) -> StorageWriter:
        """Return a writer for options that have been checked."""
        writer = cls(path)
        writer.options = options
        return writer

    @property
    def checkpoint_id(self) -> str:
        """The path, as DCP calls it."""
        return self.path

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: PathLike) -> bool:
        """Tell whether this may be a path."""
        return "://" not in os.fspath(checkpoint_id)

    def storage_meta(self) -> None:
        """Return what the planner should know of this storage: nothing."""

    def reset(self, checkpoint_id: PathLike | None = None) -> None:
        """Begin another save, under this path if one is given."""
        if checkpoint_id:
            self.path = os.fspath(checkpoint_id)
        self.info = None

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:  # noqa: FBT001
        """Take note of which process this is."""
        if not kwargs.get("use_collectives", True):
            raise ValueError("use_collectives=False: a checkpoint is one commit, for which the processes must talk to each other")
        if not self.path:
            raise ValueError("StorageWriter: expected a path, here or as checkpoint_id")
        self._process = kwargs.get("rank") or 0

    def prepare_local_plan(self, plan: Any) -> Any:
        """Leave the plan of this process as it is."""
        return plan

    def prepare_global_plan(self, plans: list[Any]) -> list[Any]:
        """On the coordinator: take the lock, refuse what can be refused, and give all processes the mark of this save."""
        _give_up_abandoned(self.path)
        check_index_size(plans, self.path)
        staging = JointStaging(_DISK, self.path, overwrite=self.options.overwrite, durable=self.options.durable)
        _BEGUN[self.path] = threading.current_thread(), staging
        weakref.finalize(self, _give_up, self.path, staging)
        if self.options.base is None:
            staging.check_space(planned_bytes(plans))
        return [replace(plan, storage_data=staging.generation) for plan in plans]

    def write_data(self, plan: Any, planner: Any) -> Any:
        """On every process: write its chunks, durably, and tell what lies where in a single result."""
        from torch.distributed.checkpoint.metadata import MetadataIndex
        from torch.distributed.checkpoint.storage import WriteResult
        from torch.futures import Future

        paths: Mapping[str, Path] = getattr(planner, "paths", None) or getattr(planner, "mappings", None) or {}
        with collector_paused():
            planned = plan_part(plan.items, planner, paths, process=self._process)
        try:
            shards = write_part(_DISK, self.path, plan.storage_data, planned.tensors, planned.sources, self.options)
        except FileNotFoundError as error:
            raise IncompleteError(
                f"{self.path}: the directory that the coordinator has made is not here: {error}\n"
                "All processes must save into one directory that they share.",
                path=self.path,
            ) from error
        message = encode_part(_part(planned, shards, getattr(planner, "told_structure", None)))
        size_bytes = sum(entry.size_bytes for entry in shards.entries)
        future: Any = Future()
        future.set_result([WriteResult(index=MetadataIndex(""), size_in_bytes=size_bytes, storage_data=message)])
        return future

    def finish(self, metadata: Any, results: list[list[Any]]) -> None:
        """On the coordinator: commit."""
        _, staging = _BEGUN[self.path]
        try:
            with staging, collector_paused():
                parts = [decode_part(result.storage_data) for of_process in results for result in of_process]
                tree, tensors = TreeFiller(_described(metadata), parts).fill(_structure(metadata, parts))
                self.info = commit_parts(staging, tree, tensors, parts, self.options)
        finally:
            del _BEGUN[self.path]

    def give_up(self) -> None:
        """Remove what an unfinished save has left, and let others save into this path; harmless where there is none."""
        if self.path in _BEGUN:
            _give_up(self.path, _BEGUN[self.path][1])


def _part(planned: PartPlan, shards: ShardWriter, structure: Any) -> Part:
    chunks = [PartChunk(*chunk, shards.shards[row], shards.slots[row]) for row, chunk in enumerate(planned.chunks)]
    notes = {"values": planned.values, "tensors": planned.value_tensors, "structure": structure}
    return Part(shards.entries, shards.tables, chunks, notes)


def _described(metadata: Any) -> dict[str, Described]:
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    paths = metadata.planner_data if isinstance(metadata.planner_data, Mapping) else {}
    described: dict[str, Described] = {}
    for name, found in metadata.state_dict_metadata.items():
        if isinstance(found, TensorStorageMetadata):
            dtype, shape = dtype_name(found.properties.dtype, name), tuple(found.size)
            described[name] = (texts_of(paths, name), dtype, shape, found.size.numel() * found.properties.dtype.itemsize)
    return described


def _structure(metadata: Any, parts: list[Part]) -> Any:
    told = [part.notes["structure"] for part in parts if part.notes["structure"] is not None]
    if told:
        merged = told[0]
        for structure in told[1:]:
            merged = merge_structures(merged, structure)
        return merged
    paths = (
        metadata.planner_data if isinstance(metadata.planner_data, Mapping) else {name: (name,) for name in metadata.state_dict_metadata}
    )
    return structure_of_paths(paths)


def _give_up_abandoned(path: str) -> None:
    """Give up a save of this process that ended without `finish`: DCP runs a save in one thread, so it is over if that is here again."""
    thread, staging = _BEGUN.get(path, (None, None))
    if thread is not None and staging is not None and (thread is threading.current_thread() or not thread.is_alive()):
        _give_up(path, staging)


def _give_up(path: str, staging: JointStaging) -> None:
    if _BEGUN.get(path, (None, None))[1] is staging:
        del _BEGUN[path]
        staging.__exit__()


def _register() -> None:
    """Let `isinstance` know what this class stands for; torch is imported by whoever calls DCP anyway."""
    from torch.distributed.checkpoint.storage import StorageWriter as Interface

    Interface.register(StorageWriter)
