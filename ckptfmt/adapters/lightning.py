"""Lightning: its checkpoints written and read by ckptfmt, atomically, durably and without pickle. For users it is one line.

    Trainer(plugins=[ckptfmt.adapters.lightning.checkpoint_io()])

A checkpoint is a directory under the name that ModelCheckpoint chose, so that `fit(ckpt_path="last")` finds it. Lightning hands
everything over as one mapping, and gets it back equal. Asynchronous saves queue removals behind them, and an older checkpoint is not
removed when the newer one failed. The classes are made in functions, because importing this must not import Lightning.

Interface: https://lightning.ai/docs/pytorch/stable/common/checkpointing_expert.html
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from ckptfmt.adapters.torch_file import load_torch_file
from ckptfmt.checkpoint.async_queue import QUEUE, SaveHandle
from ckptfmt.checkpoint.delete import delete_checkpoint
from ckptfmt.checkpoint.info import CheckpointInfo
from ckptfmt.checkpoint.loading import load
from ckptfmt.checkpoint.publishing import SaveOptions
from ckptfmt.checkpoint.saving import check_options
from ckptfmt.checkpoint.snapshot import snapshot
from ckptfmt.checkpoint.writer import write_checkpoint
from ckptfmt.disk.foreign_file import is_directory
from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.paths import parent_of
from ckptfmt.errors import CheckpointNotFoundError
from ckptfmt.run.notices import warn
from ckptfmt.state.tree import EncodedState, encode_state

PathLike = str | os.PathLike[str]


def checkpoint_io(*, asynchronous: bool = False, durable: bool = True) -> Any:
    """Return a `CheckpointIO` for `Trainer(plugins=[...])`.

    With `asynchronous` training goes on while a checkpoint is written; an error is raised by the next save, and when training ends.
    """
    return _io_class()(asynchronous=asynchronous, durable=durable)


def load_checkpoint(path: PathLike, *, map_location: Any = None) -> dict[str, Any]:
    """Load what Lightning saved: a directory of ckptfmt, or an older `.ckpt` file, of which nothing is run.

    Raises:
        CheckpointNotFoundError, CorruptError, UnsupportedTypeError: as of `ckptfmt.load` and `load_torch_file`.
    """
    where = os.fspath(path)
    device = "cpu" if map_location is None or callable(map_location) or isinstance(map_location, Mapping) else map_location
    checkpoint: dict[str, Any] = load(where, device=device) if is_directory(where) else load_torch_file(where)
    return checkpoint


def load_from_checkpoint(cls: Any, path: PathLike, *, map_location: Any = None, strict: bool = True, **arguments: Any) -> Any:
    """Make a LightningModule or LightningDataModule of `cls` from its checkpoint; Lightning's own method knows only files of torch.

    `arguments` override the hyperparameters that were saved.
    """
    checkpoint = load_checkpoint(path, map_location=map_location)
    module = cls(**_accepted_arguments(cls, checkpoint, arguments))
    if hasattr(module, "on_load_checkpoint"):
        module.on_load_checkpoint(checkpoint)
    if hasattr(module, "load_state_dict") and "state_dict" in checkpoint and hasattr(module, "parameters"):
        module.load_state_dict(checkpoint["state_dict"], strict=strict)
    return module


def _accepted_arguments(cls: Any, checkpoint: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    saved = checkpoint.get("hyper_parameters") or checkpoint.get("datamodule_hyper_parameters") or {}
    whole_name = checkpoint.get("hparams_name")
    parameters = inspect.signature(cls.__init__).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    if isinstance(whole_name, str) and whole_name in parameters and whole_name != "kwargs":
        return {whole_name: saved, **arguments}
    return {name: value for name, value in {**saved, **arguments}.items() if takes_any or name in parameters}


def _plugin_module() -> Any:
    """Return the package of Lightning that the application uses: `lightning`, or `pytorch_lightning` under its older name."""
    if "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
        from lightning_fabric.plugins import CheckpointIO
    else:
        from lightning.fabric.plugins import CheckpointIO
    return CheckpointIO


@cache
def _io_class() -> Any:
    base: Any = _plugin_module()

    class CkptfmtCheckpointIO(base):  # type: ignore[misc]
        """Lightning's way to the disk, by ckptfmt."""

        def __init__(self, *, asynchronous: bool, durable: bool) -> None:
            self._asynchronous = asynchronous
            self._durable = durable
            self._handles: list[SaveHandle] = []

        def save_checkpoint(self, checkpoint: dict[str, Any], path: PathLike, storage_options: Any = None) -> None:
            """Save a checkpoint under the name that Lightning gives it."""
            if storage_options is not None:
                raise TypeError("storage_options: ckptfmt saves to paths and has no such options")
            options = check_options(step=checkpoint.get("global_step"), overwrite=True, durable=self._durable)
            encoded, target = encode_state(_plain(checkpoint)), os.fspath(path)
            if not self._asynchronous:
                _save_whole(target, encoded, options)
                return
            self._raise_finished()
            copied = snapshot(encoded)
            self._handles.append(QUEUE.put(target, lambda: _save_whole(target, copied, options)))

        def load_checkpoint(self, path: PathLike, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
            """Load a checkpoint; saves under way are waited for. Nothing is ever run, whatever `weights_only` says."""
            self._wait()
            return load_checkpoint(path, map_location=map_location)

        def remove_checkpoint(self, path: PathLike) -> None:
            """Remove an older checkpoint, behind the saves under way and not if one of them failed."""
            where = os.fspath(path)
            if not self._asynchronous:
                _remove(where)
                return
            earlier = list(self._handles)

            def remove() -> Any:
                if any(handle.error is not None for handle in earlier):
                    warn(f"{where}: stays, because a later checkpoint could not be saved")
                else:
                    _remove(where)
                return None

            QUEUE.put(where, remove)

        def teardown(self) -> None:
            """Wait for what is under way, and raise what went wrong."""
            self._wait()

        def _raise_finished(self) -> None:
            finished = [handle for handle in self._handles if handle.done()]
            self._handles = [handle for handle in self._handles if not handle.done()]
            for handle in finished:
                handle.result()

        def _wait(self) -> None:
            handles, self._handles = self._handles, []
            for handle in handles:
                handle.wait()
            for handle in handles:
                handle.result()

    return CkptfmtCheckpointIO


def _save_whole(path: str, state: EncodedState, options: SaveOptions) -> CheckpointInfo:
    """Save so that the directory itself appears with its commit: Lightning takes every directory of such a name for a checkpoint."""
    disk = LocalDisk()
    if is_directory(path):
        return write_checkpoint(disk, path, state, options)
    parent_path, name = parent_of(path), path.rpartition("/")[2]
    # What a killed save left under this name is overwritten by the next one.
    info = write_checkpoint(disk, f"{parent_path}/.{name}.new", state, options)
    parent = disk.open_directory(parent_path)
    try:
        parent.rename(f".{name}.new", name)
        parent.sync()
    finally:
        parent.close()
    return replace(info, path=path)


def _remove(path: str) -> None:
    try:
        delete_checkpoint(LocalDisk(), path)
    except CheckpointNotFoundError as error:
        warn(f"{path}: was not removed: {error}")


def _plain(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checkpoint with Lightning's own mappings, which only add access by attribute, as plain ones."""
    return {key: _plain_value(value) for key, value in checkpoint.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, dict) and type(value).__name__ == "AttributeDict":
        return {key: _plain_value(each) for key, each in value.items()}
    return value
