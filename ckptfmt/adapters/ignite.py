"""PyTorch-Ignite: a save handler that writes ckptfmt checkpoints, for `Checkpoint({...}, ckptfmt.adapters.ignite.save_handler(dir))`.

What Ignite calls a file is a directory here, under the name without the suffix. Go on with `Checkpoint.load_objects(to_load, checkpoint=
ckptfmt.load(path))`. The class is made in a function, because importing this must not import Ignite.

Interface: https://pytorch.org/ignite/generated/ignite.handlers.checkpoint.BaseSaveHandler.html
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from ckptfmt.checkpoint.delete import delete_checkpoint
from ckptfmt.checkpoint.saving import save
from ckptfmt.disk.local import LocalDisk

PathLike = str | os.PathLike[str]
_SUFFIX = ".pt"


def save_handler(directory: PathLike, *, durable: bool = True) -> Any:
    """Return a save handler of Ignite whose checkpoints lie in `directory`."""
    return _handler_class()(os.fspath(directory), durable=durable)


def checkpoint_path(directory: PathLike, filename: str) -> str:
    """Return where the checkpoint lies that Ignite knows under this name."""
    where = os.fspath(directory)
    return f"{where.rstrip('/')}/{filename.removesuffix(_SUFFIX)}"


@cache
def _handler_class() -> Any:
    from ignite.handlers.checkpoint import BaseSaveHandler

    class CkptfmtSaver(BaseSaveHandler):  # type: ignore[misc]
        """Ignite's way to the disk, by ckptfmt."""

        def __init__(self, directory: str, *, durable: bool) -> None:
            self.directory = directory
            self._durable = durable

        def __call__(self, checkpoint: Mapping[str, Any], filename: str, metadata: Mapping[str, Any] | None = None) -> None:
            """Save a checkpoint; its priority, where Ignite gives one, is the metric by its name."""
            metrics = {}
            if metadata and isinstance(metadata.get("priority"), (int, float)):
                metrics[str(metadata.get("score_name") or "priority")] = metadata["priority"]
            save(checkpoint_path(self.directory, filename), dict(checkpoint), metrics=metrics, overwrite=True, durable=self._durable)

        def remove(self, filename: str) -> None:
            """Remove an older checkpoint: its manifest first."""
            delete_checkpoint(LocalDisk(), checkpoint_path(self.directory, filename))

    return CkptfmtSaver
