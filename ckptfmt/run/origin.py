"""Where a run begins that is told to begin from something: a checkpoint or run elsewhere, or a checkpoint of its own to go back to."""

from __future__ import annotations

from dataclasses import dataclass

from ckptfmt.disk.paths import parent_of
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import CheckpointNotFoundError
from ckptfmt.run.history import History
from ckptfmt.run.notices import warn
from ckptfmt.run.steps import StepEntry, find_entries


@dataclass(frozen=True, slots=True)
class AskedFor:
    """A checkpoint of this very run that the program goes back to."""

    entry: StepEntry
    digest: str


class Origin:
    """What `resume_from` names."""

    def __init__(self, disk: Disk, path: str, run_path: str) -> None:
        self._disk = disk
        self._path = path
        self._run_path = run_path

    def entries(self) -> list[StepEntry]:
        """Return the checkpoint, or those of the run, newest first.

        Raises:
            CheckpointNotFoundError: there is neither.
        """
        return find_entries(self._disk, self._path)

    def asked_for(self, history: History) -> AskedFor | None:
        """Return the checkpoint if it is one of this run and training has not gone on from it before for the same reason."""
        found = self._own_entry()
        if found is None or found.manifest is None:
            return None
        if history.has_branched(found.manifest.digest):
            advice = f"it goes on from the newest step. Use restore(step={found.step}) to go back."
            warn(f"{self._path}: training went on from here before; {advice}")
            return None
        return AskedFor(found, found.manifest.digest)

    def _own_entry(self) -> StepEntry | None:
        try:
            if self._disk.real_path(parent_of(self._disk.real_path(self._path))) != self._disk.real_path(self._run_path):
                return None
            return self.entries()[0]
        except (CheckpointNotFoundError, FileNotFoundError):
            return None
