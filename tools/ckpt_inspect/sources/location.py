"""What a PATH of the command line is: a checkpoint, a run, or a file from somewhere else."""

from __future__ import annotations

import os
import stat
from enum import Enum

from ckptfmt.errors import CheckpointNotFoundError
from ckptfmt.format.layout import MANIFEST_NAME

_RUN_FILE_NAME = "run.json"


class Kind(Enum):
    """What lies under a path."""

    CHECKPOINT = "checkpoint"
    RUN = "run"
    FILE = "file"


class NotReadableHereError(ValueError):
    """A path that is none of the things that the tool can look at. The message tells what it is instead."""


def without_final_slash(path: str) -> str:
    """Return a path as it is shown and extended; completion leaves a slash behind directories."""
    return path.rstrip(os.sep) or path


def kind_of(path: str) -> Kind:
    """Tell what lies under a path. A directory that is neither checkpoint nor run counts as a checkpoint that is not complete.

    Raises:
        CheckpointNotFoundError: there is nothing.
        NotReadableHereError: it is neither a directory nor a regular file.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointNotFoundError(f"{path}: no such file or directory", path=path) from None
    except ValueError:
        raise CheckpointNotFoundError(f"{path!r}: no path can hold this", path=path) from None
    if stat.S_ISREG(mode):
        return Kind.FILE
    if not stat.S_ISDIR(mode):
        raise NotReadableHereError(f"{path}: neither a directory nor a regular file\nDevices, pipes and sockets are not read.")
    if os.path.lexists(os.path.join(path, MANIFEST_NAME)):
        return Kind.CHECKPOINT
    has_steps = os.path.lexists(os.path.join(path, _RUN_FILE_NAME)) or bool(step_directories(path))
    return Kind.RUN if has_steps else Kind.CHECKPOINT


def step_directories(path: str) -> list[tuple[int, str]]:
    """Return (step, path) of the checkpoints of a run in the order of their numbers, incomplete ones among them."""
    # Imported here because most paths are checkpoints, which need nothing of the run floor.
    from ckptfmt.disk.local import LocalDisk
    from ckptfmt.run.steps import StepDirectory

    directory = StepDirectory(LocalDisk(), path)
    return [(step, directory.path_of(step)) for step in directory.numbers()]
