"""The checkpoints of a run, each from its manifest and the sizes of its files; and what else is in its directory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ckpt_inspect.sources.checkpoint import StoredFile, read_manifest_of, stored_files
from ckpt_inspect.sources.location import (
    PROGRESS_NAME,
    STUDIES_NAME,
    aside_names,
    journal_directories,
    step_directories,
    work_directories,
)
from ckpt_inspect.sources.run_writer import RunWriter, find_writer
from ckpt_inspect.sources.work import FoundProgress, FoundStudies, read_progress, read_studies
from ckptfmt.errors import CheckpointError, CorruptError, IncompleteError
from ckptfmt.format.manifest import Manifest


@dataclass(frozen=True, slots=True)
class ListedCheckpoint:
    """One step of a run. `status` is "complete", "incomplete", "damaged" or "unreadable"; `problem` says why it is not complete."""

    step: int
    path: str
    status: str
    problem: str | None = None
    manifest: Manifest | None = None
    files: Sequence[StoredFile] = ()

    @property
    def size_bytes(self) -> int:
        """What those of its files that are there take together."""
        return sum(file.size_bytes for file in self.files if file.identity)

    @property
    def unique_bytes(self) -> int:
        """What deleting it would free: no other checkpoint has these files too."""
        return sum(file.size_bytes for file in self.files if file.identity and file.name_count == 1)


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """A run's checkpoints in the order of their steps, its progress and studies, the names of its journals, and of what was set aside."""

    path: str
    checkpoints: Sequence[ListedCheckpoint]
    journals: Sequence[str] = ()
    asides: Sequence[str] = ()
    writer: RunWriter | None = None
    progress: Sequence[FoundProgress] = ()
    studies: Sequence[FoundStudies] = ()

    @property
    def size_bytes(self) -> int:
        """What the checkpoints would take without anything shared."""
        return sum(checkpoint.size_bytes for checkpoint in self.checkpoints)

    @property
    def disk_bytes(self) -> int:
        """What they take on the disk: a file that several of them name is counted once."""
        sizes = {file.identity: file.size_bytes for listed in self.checkpoints for file in listed.files if file.identity}
        return sum(sizes.values())

    def freed_bytes(self, steps: Collection[int]) -> int:
        """What deleting some steps together frees: the files of which no other name is left."""
        named = [file for listed in self.checkpoints if listed.step in steps for file in listed.files if file.identity]
        counts = Counter(file.identity for file in named)
        return sum({file.identity: file.size_bytes for file in named if counts[file.identity] >= file.name_count}.values())


def read_run(path: str) -> RunDirectory:
    """List the checkpoints of a run; damaged ones are part of the list."""
    checkpoints = [list_checkpoint(step, step_path) for step, step_path in step_directories(path)]
    progress = [read_progress(found) for found in work_directories(path, PROGRESS_NAME)]
    studies = [read_studies(found) for found in work_directories(path, STUDIES_NAME)]
    return RunDirectory(path, checkpoints, journal_directories(path), aside_names(path), find_writer(path), progress, studies)


def list_checkpoint(step: int, path: str) -> ListedCheckpoint:
    """Read what a list shows of one step; that it is damaged is part of it."""
    try:
        manifest = read_manifest_of(path)
        files = stored_files(path, manifest)
    except IncompleteError:
        return ListedCheckpoint(step, path, "incomplete", "no manifest.json; a save is in progress or was interrupted")
    except (CheckpointError, OSError) as error:
        return ListedCheckpoint(step, path, "damaged" if isinstance(error, CorruptError) else "unreadable", _reason(error, path))
    bad = [f"{file.name}: {file.problem}" for file in files if file.problem]
    if not bad:
        return ListedCheckpoint(step, path, "complete", None, manifest, files)
    more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    return ListedCheckpoint(step, path, "damaged", bad[0] + more, manifest, files)


def _reason(error: CheckpointError | OSError, path: str) -> str:
    """Return an error's first line without the path that the listing shows already."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).partition("\n")[0].removeprefix(f"{path}/")
