"""The journals of a progress: one for each process that writes, because a journal has one writer. Spec 17.1.

`writers/<16 hexadecimal digits>/` is a journal, and its lock belongs to the process that writes it, for as long as it lives. A new
process takes over a journal that nobody holds, so that there are as many as there ever were processes at the same time.
"""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from typing import Any

from ckptfmt.disk.paths import join, make_directories
from ckptfmt.disk.protocol import Directory, Disk, LockState
from ckptfmt.errors import CheckpointNotFoundError, FormatError
from ckptfmt.run.journal import Journal
from ckptfmt.run.journal_follower import JournalFollower
from ckptfmt.run.journal_segments import segment_names
from ckptfmt.run.progress_ledger import Ledger
from ckptfmt.state.pause import collector_paused

WRITERS_NAME = "writers"
_WRITER = re.compile(r"[0-9a-f]{16}")
_COMPACT_RECORDS = 1000
_COMPACT_SEGMENTS = 64


def writer_names(disk: Disk, path: str) -> list[str]:
    """Return the names of the writers of a progress; none if there is no such directory."""
    try:
        directory = disk.open_directory(join(path, WRITERS_NAME))
    except FileNotFoundError:
        return []
    try:
        return [name for name in directory.names() if _WRITER.fullmatch(name)]
    finally:
        directory.close()


class ProgressWriters:
    """All journals of a progress, folded into a ledger: one's own for appending, those of others for following."""

    def __init__(self, disk: Disk, path: str, ledger: Ledger, *, durable: bool, flush_every: int) -> None:
        self._disk = disk
        self._path = path
        self._ledger = ledger
        self._is_durable = durable
        self._flush_every = flush_every
        self._followers: dict[str, JournalFollower] = {}
        self._lock: Directory | None = None
        self._journal: Journal | None = None
        self.own = ""
        with collector_paused():
            try:
                self._open()
            except BaseException:
                self.close()
                raise

    def _open(self) -> None:
        for name in writer_names(self._disk, self._path):
            if self._lock is None and self._try_to_own(name):
                continue
            self._follow(name)

    @property
    def path(self) -> str:
        """Where the journals lie."""
        return join(self._path, WRITERS_NAME)

    @property
    def is_alone(self) -> bool:
        """Whether there is no journal of anybody else."""
        return not self._followers

    def refresh(self) -> None:
        """Read what others have written since the last time."""
        for name in writer_names(self._disk, self._path):
            if name != self.own and name not in self._followers:
                self._follow(name)
        for name in list(self._followers):
            self._poll(name)

    def begin(self) -> None:
        """Have a journal of one's own."""
        while self._journal is None:
            name = secrets.token_hex(8)
            make_directories(self._disk, join(self.path, name), durable=self._is_durable)
            # Whoever came first may own it by now; then another name.
            if not self._try_to_own(name, is_new=True):
                self._follow(name)

    def append(self, record: list[Any]) -> None:
        """Append a record to one's own journal."""
        if self._journal is None:
            raise ValueError(f"{self._path}: nothing was begun")
        self._journal.append(record)

    def flush(self) -> None:
        """Acknowledge everything so far."""
        if self._journal is not None:
            self._journal.flush()

    def close(self) -> None:
        """Flush, close, and give the lock up."""
        followers, self._followers = self._followers, {}
        for follower in followers.values():
            follower.close()
        try:
            if self._journal is not None:
                self._journal.close()
        finally:
            if self._lock is not None:
                self._lock.close()

    def _try_to_own(self, name: str, *, is_new: bool = False) -> bool:
        path = join(self.path, name)
        lock = self._disk.open_directory(path)
        try:
            state = lock.try_lock()
            # Without locks nobody knows whether the writer of an old journal is alive.
            if state is LockState.BUSY or (state is LockState.UNSUPPORTED and not is_new):
                lock.close()
                return False
            journal = Journal.open_for_append(self._disk, path, durable=self._is_durable, flush_every=self._flush_every)
        except BaseException:
            lock.close()
            raise
        self._lock, self._journal, self.own = lock, journal, name
        known_count = len(self._ledger.units)
        self._ledger.add(name, (record for _, record in journal.iter_records()))
        self._compact_if_worth_it(journal, path, live_count=len(self._ledger.units) - known_count + len(self._ledger.failures) + 2)
        journal.release_records()
        return True

    def _compact_if_worth_it(self, journal: Journal, path: str, *, live_count: int) -> None:
        """Leave out records that others have made void, when they are the most; and join many small segments."""
        count = journal.content.sound_count if journal.content is not None else 0
        if (count >= _COMPACT_RECORDS and count >= 2 * live_count) or self._segment_count(path) >= _COMPACT_SEGMENTS:
            # A full disk here must not keep anybody from going on.
            with suppress(OSError):
                journal.compact(record for _, record in journal.iter_records() if self._ledger.is_current(record))

    def _segment_count(self, path: str) -> int:
        directory = self._disk.open_directory(path)
        try:
            return len(segment_names(directory))
        finally:
            directory.close()

    def _follow(self, name: str) -> None:
        # Removed by hand meanwhile, if it is not there.
        with suppress(CheckpointNotFoundError):
            self._followers[name] = JournalFollower(self._disk, join(self.path, name))
            self._poll(name)

    def _poll(self, name: str) -> None:
        try:
            update = self._followers[name].poll()
            if update.is_restarted:
                self._ledger.forget_speed(name)
            if update.records:
                with collector_paused():
                    self._ledger.add(name, [record for _, record in update.records])
        except FormatError:
            # Followed anew the next time, so that it fails again and no record is passed over.
            self._followers.pop(name).close()
            raise
