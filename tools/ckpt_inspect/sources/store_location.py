"""What a URL of the command line is: a checkpoint, a run or a journal in an object store; of other files nothing is known there."""

from __future__ import annotations

from collections.abc import Sequence

from ckptfmt.checkpoint.directory import open_checkpoint_directory
from ckptfmt.disk.anywhere import AnyDisk
from ckptfmt.disk.urls import location
from ckptfmt.run.mirror_journals import find_journals


def names_below(url: str) -> Sequence[str]:
    """Return the names below a prefix.

    Raises:
        CheckpointNotFoundError: no object lies below it.
        ValueError, ImportError: no URL that can be used, or nothing is installed that opens it.
    """
    directory = open_checkpoint_directory(AnyDisk(), location(url))
    try:
        return directory.names()
    finally:
        directory.close()


def journals_below(url: str) -> list[str]:
    """Return the journals in a run by their paths below it."""
    return sorted("/".join(names) for names in find_journals(AnyDisk(), url))
