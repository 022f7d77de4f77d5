"""The public functions that read: load, load_into, open_checkpoint, verify, is_complete."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ckptfmt.checkpoint.directory import open_checkpoint_directory, open_named_file, read_manifest
from ckptfmt.checkpoint.objects import LoadReport, Stateful, restore_objects
from ckptfmt.checkpoint.reader import OpenCheckpoint
from ckptfmt.checkpoint.verify import VerifyReport, verify_checkpoint
from ckptfmt.disk.anywhere import AnyDisk
from ckptfmt.disk.urls import location
from ckptfmt.errors import CheckpointError, CorruptError
from ckptfmt.state.pause import collector_paused

_DISK = AnyDisk()

T = TypeVar("T")
PathLike = str | os.PathLike[str]


def load(path: PathLike, *, only: str | Sequence[str] | None = None, device: Any = "cpu", verify: bool = True) -> Any:
    """Load a state, with the exact types it was saved with.

    Tensors are writable and independent of the file. `only` is one glob or several over paths such as `model.*` or
    `optimizer.param_groups`: what matches is loaded with everything below it, and nothing else is read. `device` is where
    torch tensors go. `verify=False` skips the digests, and nothing else.

    Raises:
        CheckpointNotFoundError, IncompleteError: there is nothing, or no committed checkpoint.
        CorruptError, UnsupportedVersionError, LimitError: see `.rule`.
        NameNotFoundError: `only` matches nothing.
    """
    with collector_paused():
        # In a function of its own, so that what it needed is gone before there is a collection.
        return _read(location(path), lambda checkpoint: checkpoint.load(only=only), verify=verify, device=device)


def load_into(path: PathLike, objects: Mapping[str, Stateful], *, strict: bool = True) -> LoadReport:
    """Restore live objects from the sections of their names: `load_into(path, {"model": model, "optimizer": optimizer})`.

    Each object's `load_state_dict` is called, with `strict` where it takes that. Everything is read and verified before the
    first object is touched. With strict=False an object without a section is reported as missing and left as it is.
    """
    return _read(location(path), lambda checkpoint: restore_objects(checkpoint, objects, strict=strict))


def _read(path: str, read: Callable[[OpenCheckpoint], T], *, verify: bool = True, device: Any = "cpu") -> T:
    """Read from a checkpoint; again if it is replaced in a store meanwhile, where nothing that is open stays readable. Spec 5.2."""
    while True:
        with OpenCheckpoint(_DISK, path, verify=verify, device=device) as checkpoint:
            try:
                return read(checkpoint)
            except CorruptError as error:
                if error.rule not in ("E012", "E014") or not checkpoint.is_replaced():
                    raise


def open_checkpoint(path: PathLike, *, device: Any = "cpu", verify: bool = True) -> OpenCheckpoint:
    """Open a checkpoint to read single tensors, slices or its tree. Use as a context manager."""
    return OpenCheckpoint(_DISK, location(path), verify=verify, device=device)


def verify(path: PathLike, *, level: str = "full") -> VerifyReport:
    """Check a checkpoint against every rule of the format; damage is reported, never raised.

    "full" hashes every byte, "quick" all but the tensors' data.

    Raises:
        CheckpointNotFoundError: there is nothing under this path.
    """
    return verify_checkpoint(_DISK, location(path), level=level)


def is_complete(path: PathLike) -> bool:
    """Tell whether a committed checkpoint is there: a sound manifest, and every file that it names in its full size. Cheap."""
    try:
        directory = open_checkpoint_directory(_DISK, location(path))
    except CheckpointError:
        return False
    try:
        for entry in read_manifest(directory).files():
            open_named_file(directory, entry).close()
    except CheckpointError:
        return False
    finally:
        directory.close()
    return True
