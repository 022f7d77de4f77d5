"""Units of work and studies under a path, summed up by the library; damage is a part of the answer. Optuna is not needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from ckpt_inspect.sources.location import is_journal
from ckpt_inspect.sources.run_writer import is_locked
from ckptfmt.disk.local import LocalDisk
from ckptfmt.errors import FormatError
from ckptfmt.format.journal_record import parse_segment_name
from ckptfmt.run.progress_reader import ProgressSummary, summarise_progress
from ckptfmt.run.study_reader import StudySummary, summarise_studies

_WRITERS = "writers"


@dataclass(frozen=True, slots=True)
class Journals:
    """The journals of one thing: how many, and what they take on the disk."""

    count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class FoundProgress:
    """A progress. Without `summary` it cannot be read, and `damage` says why."""

    path: str
    journals: Journals
    summary: ProgressSummary | None
    damage: str | None


@dataclass(frozen=True, slots=True)
class FoundStudies:
    """The studies in a directory; many only where processes share it. `damage` says why they cannot be read."""

    path: str
    journals: Journals
    is_shared: bool
    studies: Sequence[StudySummary]
    damage: str | None


def read_progress(path: str, *, last_count: int = 0) -> FoundProgress:
    """Sum up a progress."""
    journals = _measured(os.path.join(path, _WRITERS))
    try:
        return FoundProgress(path, journals, summarise_progress(LocalDisk(), path, last_count=last_count, is_alive=is_locked), None)
    except FormatError as error:
        return FoundProgress(path, journals, None, str(error))


def read_studies(path: str, *, last_count: int = 0) -> FoundStudies:
    """Sum up the studies under a path."""
    is_shared = not is_journal(path)
    found = partial(FoundStudies, path, _measured(path), is_shared)
    try:
        return found(summarise_studies(LocalDisk(), path, last_count=last_count), None)
    except FormatError as error:
        return found((), str(error))


def _measured(path: str) -> Journals:
    """Measure the journals in a directory, or in the directories in it."""
    directories = [path, *(entry.path for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))]
    sizes = []
    for directory in directories:
        try:
            found = [entry.stat(follow_symlinks=False).st_size for entry in os.scandir(directory) if parse_segment_name(entry.name)]
        except FileNotFoundError:
            # A segment that was replaced meanwhile.
            continue
        if found:
            sizes.append(sum(found))
    return Journals(len(sizes), sum(sizes))
