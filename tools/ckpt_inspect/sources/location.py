"""What a PATH of the command line is: a checkpoint, a run, or a file from somewhere else."""

from __future__ import annotations

import os
import re
import stat
from enum import Enum

from ckptfmt.errors import CheckpointNotFoundError
from ckptfmt.format.layout import MANIFEST_NAME

_STEP_NAME = re.compile(r"step-([0-9]{1,19})")
_RUN_NAME = "run.json"


class Kind(Enum):
    """What lies under a path."""

    CHECKPOINT = "checkpoint"
    RUN = "run"
    FILE = "file"


class NotReadableHereError(ValueError):
    """A path that is none of the things that the tool can look at. The message tells what it is instead."""


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
    names = os.listdir(path)
    return Kind.RUN if _RUN_NAME in names or any(map(_STEP_NAME.fullmatch, names)) else Kind.CHECKPOINT


def step_directories(path: str) -> list[tuple[int, str]]:
    """Return (step, path) of the checkpoints of a run, in the order of their numbers."""
    with os.scandir(path) as entries:
        found = [(match, entry.path) for entry in entries if (match := _STEP_NAME.fullmatch(entry.name)) and entry.is_dir()]
    return sorted((int(match[1]), step_path) for match, step_path in found)
