"""Following a progress from outside, while others work on it: each poll reads only what its writers have appended. Spec 17.

Nothing is locked and nothing is written. A journal that cannot be followed is looked at again with the next poll.
"""

from __future__ import annotations

from contextlib import suppress

from ckptfmt.disk.paths import join
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import CheckpointNotFoundError, FormatError
from ckptfmt.run.journal_follower import JournalFollower
from ckptfmt.run.progress_ledger import Ledger
from ckptfmt.run.progress_writers import WRITERS_NAME, writer_names
from ckptfmt.state.pause import collector_paused


class ProgressFollower:
    """A ledger that keeps up with its writers. Attributes: `ledger`, and `problem`, why it may lag behind. Use as a context manager."""

    def __init__(self, disk: Disk, path: str) -> None:
        self.ledger = Ledger(path)
        self.problem: str | None = None
        self._disk = disk
        self._path = path
        self._followers: dict[str, JournalFollower] = {}

    def __enter__(self) -> ProgressFollower:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop following."""
        while self._followers:
            self._followers.popitem()[1].close()

    def poll(self) -> bool:
        """Take in what is new; return whether anything was."""
        known = len(self.ledger.units), len(self.ledger.failures), self.ledger.total, self.ledger.last_at
        self.problem = None
        with collector_paused():
            for name in writer_names(self._disk, self._path):
                try:
                    self._poll(name)
                except FormatError as error:
                    self.problem = str(error).partition("\n")[0]
        return known != (len(self.ledger.units), len(self.ledger.failures), self.ledger.total, self.ledger.last_at)

    def _poll(self, name: str) -> None:
        # Removed by hand meanwhile, if it is not there.
        with suppress(CheckpointNotFoundError):
            if name not in self._followers:
                self._followers[name] = JournalFollower(self._disk, join(join(self._path, WRITERS_NAME), name))
            update = self._followers[name].poll()
            if update.is_restarted:
                self.ledger.forget_speed(name)
            if update.records:
                self.ledger.add(name, [record for _, record in update.records])
