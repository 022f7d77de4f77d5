"""Everything that a report of a run tells, read once, at one moment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ckpt_inspect.output.units import parse_utc
from ckpt_inspect.sources.location import STUDIES_NAME, work_directories
from ckpt_inspect.sources.run_directory import ListedCheckpoint, RunDirectory, read_run
from ckpt_inspect.sources.run_history import RunHistory, read_history
from ckpt_inspect.sources.run_watch import RunWatch, Snapshot
from ckpt_inspect.sources.work import FoundStudies, read_studies
from ckptfmt.disk.local import LocalDisk
from ckptfmt.errors import CheckpointError
from ckptfmt.run.run_file import find_run_file

_ALL_TRIALS = 10**9


@dataclass(frozen=True, slots=True)
class RunReport:
    """A run at `now`. `given_path` is how it was named, `path` the absolute path; of `studies` every trial is known."""

    now: datetime
    given_path: str
    path: str
    run: RunDirectory
    history: RunHistory
    snapshot: Snapshot
    fingerprint: Mapping[str, Any] | None
    studies: Sequence[FoundStudies]


def find_run_report(path: str, now: datetime) -> RunReport | None:
    """Read a run; None if it is not there any more."""
    with RunWatch(path) as watching:
        snapshot = watching.look()
    if snapshot is None:
        return None
    run = read_run(path)
    studies = [read_studies(found, last_count=_ALL_TRIALS) for found in work_directories(path, STUDIES_NAME)]
    return RunReport(now, path, os.path.abspath(path), run, read_history(path), snapshot, _fingerprint_of(path, run), studies)


def _fingerprint_of(path: str, run: RunDirectory) -> Mapping[str, Any] | None:
    directory = LocalDisk().open_directory(path)
    try:
        run_file = find_run_file(directory)
    except (CheckpointError, OSError):
        run_file = None
    finally:
        directory.close()
    if run_file is not None and run_file.fingerprint:
        return run_file.fingerprint
    manifests = [listed.manifest for listed in run.checkpoints if listed.manifest and listed.manifest.fingerprint]
    return manifests[-1].fingerprint if manifests else None


def created_at(listed: ListedCheckpoint) -> datetime | None:
    """Return when a checkpoint was made."""
    return parse_utc(listed.manifest.created_at_utc) if listed.manifest else None
