"""Errors as what the tool reports: a message for standard error and an exit status."""

from __future__ import annotations

from ckpt_inspect.output.exit_status import COULD_NOT_RUN, LOCKED, NOT_FOUND
from ckpt_inspect.sources.location import NotReadableHereError
from ckptfmt.errors import CheckpointError, RunLockedError


def status_of(error: Exception) -> int:
    """Return the exit status that an error means."""
    if isinstance(error, FileNotFoundError):
        return NOT_FOUND
    return LOCKED if isinstance(error, RunLockedError) else COULD_NOT_RUN


def message_of(error: Exception) -> str:
    """Return an error's own words; of the system's errors, the path and the reason."""
    if isinstance(error, OSError) and not isinstance(error, CheckpointError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return where + error.strerror[:1].lower() + error.strerror[1:]
    return str(error) or type(error).__name__


def is_expected(error: Exception) -> bool:
    """Tell whether an error comes from what was asked or from what is on the disk, and not from a defect of the tool."""
    return isinstance(error, (CheckpointError, NotReadableHereError, OSError, MemoryError, RecursionError))
