"""A run that lives in an object store: a directory of this machine to work in, and the store as what counts.

The directory is named after the URL in the user's cache, or given. A note in it says whose it is. It may be deleted whenever no run is
open; what it keeps of checkpoints are the newest few. Journals are appended to in it and copied to the store by `StoreCopy`.
"""

from __future__ import annotations

import json
import secrets
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime

from ckptfmt.checkpoint.delete import delete_checkpoint
from ckptfmt.checkpoint.info import CheckpointInfo
from ckptfmt.disk.anywhere import AnyDisk
from ckptfmt.disk.paths import join
from ckptfmt.disk.protocol import Directory
from ckptfmt.errors import CheckpointError, CheckpointExistsError
from ckptfmt.format import canonical_json
from ckptfmt.run.cleaning import CleanupReport
from ckptfmt.run.lease import Lease
from ckptfmt.run.mirror_fill import is_to_be_filled
from ckptfmt.run.notices import warn
from ckptfmt.run.retention import Policy
from ckptfmt.run.run_file import replace_file
from ckptfmt.run.steps import StepDirectory, step_name
from ckptfmt.run.store_copy import JoinedSteps, StoreCopy
from ckptfmt.run.store_settling import settle

NOTE_NAME = ".store.json"
LOCAL_CHECKPOINTS = 2
_MAX_NOTE_BYTES = 65536


class StoreHome:
    """The store of one run: who may write to it, what is in it, and what of it is here."""

    def __init__(self, disk: AnyDisk, url: str, local: StepDirectory, policy: Policy) -> None:
        self.url = url
        self._disk = disk
        self._local = local
        self._lease = Lease(disk, url)
        self._guarded = disk.guarded(self._lease.before_change)
        self.copy = StoreCopy(self._guarded, local, url, policy, self._lease)
        self.steps = JoinedSteps(local, self.copy.steps)

    def open(self, *, is_alone: bool, is_resumed: bool) -> None:
        """Become the writer of the store, and bring the local directory in line with it, unless it is not to be gone on from.

        Raises:
            RunLockedError: another process is writing.
            ValueError: the local directory belongs to another store.
        """
        with closing(self._disk.open_directory(self._local.path)) as directory:
            known_id = self._find_id(directory)
            directory_id = known_id or secrets.token_hex(16)
            last_owner = self._lease.acquire(directory_id, is_alone=is_alone)
            if known_id is None:
                # After the lease: who finds the note may take it that the store had one.
                replace_file(directory, NOTE_NAME, canonical_json.encode({"directory": directory_id, "url": self.url}))
        if not is_resumed:
            return
        if known_id is not None and last_owner is None and not self.copy.has_content():
            # A run that was opened leaves a lease, whatever became of its saves. So somebody has emptied the store, and means it.
            aside = self._local.set_everything_aside(reason="not-in-store", now=datetime.now(UTC))
            if aside:
                warn(f"{self.url}: is empty now; what {self._local.path} had of it is kept there as {aside[0]}{', ...' * (len(aside) > 1)}")
        was_empty = is_to_be_filled(self._disk, self._local.path)
        told = settle(self._disk, self._local, self.copy.steps, is_own=last_owner == directory_id)
        if told and not was_empty:
            warn(f"{self.url}: {self._local.path} was not what is in the store: {told}")

    def check(self) -> None:
        """Raise a RunLockedError if another process is known to have taken over."""
        self._lease.check()

    def begin_anew(self, reason: str) -> None:
        """Set aside everything that the store has of this run."""
        if self.copy.steps.exists():
            self.copy.steps.set_everything_aside(reason=reason, now=datetime.now(UTC))

    def check_free(self, step: int) -> None:
        """Raise a CheckpointExistsError if the store has a checkpoint of this step, as far as is known here."""
        if any(entry.step == step for entry in self.copy.steps.remembered()):
            path = join(self.url, step_name(step))
            raise CheckpointExistsError(f"{path}: a checkpoint is stored here already\nSave another step, or go back first.", path=path)

    def bring(self, info: CheckpointInfo, step: int) -> CheckpointInfo:
        """Wait until the store has a step that is committed here, and return its info there; then let go of what is here needlessly."""
        self.copy.bring(step)
        self._trim()
        return replace(info, path=join(self.url, step_name(step)), unique_bytes=info.size_bytes)

    def clean_up(self, policy: Policy, *, dry_run: bool) -> CleanupReport:
        """Remove what a policy does not keep, from the store and from here."""
        if not dry_run:
            self.copy.wait()
        report = self.copy.clean_up(policy, dry_run=dry_run)
        if not dry_run:
            self._delete_here(report.removed)
        return report

    def release(self) -> None:
        """Let others write."""
        self._lease.release()

    def _trim(self) -> None:
        try:
            self._delete_here(self.copy.find_needless(kept_count=LOCAL_CHECKPOINTS))
        except (OSError, CheckpointError) as error:
            warn(f"{self._local.path}: the store has everything, but older checkpoints were not removed here: {error}")

    def _delete_here(self, steps: list[int]) -> None:
        for step in steps:
            with suppress(FileNotFoundError):
                delete_checkpoint(self._disk, self._local.path_of(step))
            self._local.forget(step)

    def _find_id(self, directory: Directory) -> str | None:
        """Return what names the local directory, None if it was never used for a store."""
        note = _find_note(directory)
        if note.get("url", self.url) != self.url:
            raise ValueError(
                f"local_directory={self._local.path!r}: belongs to {note['url']}, and this run is {self.url}\n"
                "Give another directory, or none: each URL has one of its own."
            )
        return note.get("directory")


def _find_note(directory: Directory) -> dict[str, str]:
    """Return the note, empty where there is none that can be read."""
    try:
        with closing(directory.open(NOTE_NAME)) as file:
            note = json.loads(file.read(0, _MAX_NOTE_BYTES))
    except (FileNotFoundError, ValueError):
        return {}
    is_whole = isinstance(note, dict) and all(isinstance(note.get(name), str) for name in ("directory", "url"))
    return note if is_whole else {}
