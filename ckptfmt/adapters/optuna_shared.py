"""Studies that many processes work on at once: a journal for each process, merged by everybody. Spec 18.6.

What others must agree on (a new trial, its end, the attributes of a study) is written in turns, and numbered through all journals. What
a process adds to its own running trial needs no turn: it carries the number of the last turn that its writer has seen. The records in
the order of these numbers make the same studies for everybody. A process is alive as long as it holds the lock of its journal's
directory; the trials that a dead one left running fail, marked as lost.
"""

from __future__ import annotations

import os
import random
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from typing import TYPE_CHECKING
from weakref import finalize

from ckptfmt.adapters.optuna_image import StudyImage
from ckptfmt.adapters.optuna_merge import is_merge_due, merge_journals, remove_journals
from ckptfmt.adapters.optuna_storage import new_storage
from ckptfmt.adapters.optuna_values import encode_time
from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.paths import join, make_directories
from ckptfmt.disk.protocol import Directory, Disk, LockState
from ckptfmt.errors import CheckpointError
from ckptfmt.run.journal import Journal
from ckptfmt.run.study_records import FAIL, Record
from ckptfmt.run.study_writers import PREFIX, TURN_NAME, StudyWriters, writer_names

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

_WAIT_SECONDS = 0.002
_LOOK_FOR_DEAD_SECONDS = 1.0
_UNNUMBERED = frozenset({"param", "intermediate", "user_attr", "system_attr"})


def optuna_storage(path: str | os.PathLike[str], *, durable: bool = True) -> BaseStorage:
    """Return a storage for `optuna.create_study` that any number of processes on this machine may use at once.

    A finished trial is on the disk when `tell` returns. A trial whose process died fails as soon as another process asks for one;
    `ckptfmt.optimize(..., retry_lost=True)` tries its parameters once again. The storage may be pickled, and used after a fork.

    Raises:
        CheckpointError: the file system has no locks.
    """
    text = os.fspath(path)
    log = SharedLog(LocalDisk(), text, durable=durable)
    storage = new_storage(log, (optuna_storage, (text,)))
    # Storages of Optuna have no close: this one is closed when nobody has it any more, or the interpreter ends.
    finalize(storage, log.close)
    return storage


class SharedLog:
    """A log (see optuna_storage) that is merged from the journals of all processes."""

    def __init__(self, disk: Disk, path: str, *, durable: bool) -> None:
        self.image = StudyImage()
        self.path = path
        self._disk = disk
        self._is_durable = durable
        self._mutex = threading.RLock()
        self._depth = 0
        self._writers = StudyWriters(disk, path)
        self._own_trials: set[int] = set()
        self._owners: dict[int, str] = {}
        self._looked_at = float("-inf")
        self._process = 0
        self._journal: Journal | None = None
        self._alive: Directory | None = None
        make_directories(disk, join(path, TURN_NAME), durable=durable)
        try:
            with self.turn():
                self._merge_if_worth_it()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def turn(self, trial_id: int | None = None) -> Iterator[None]:
        """Let no other process change anything in the block; with `trial_id` of an own trial, no other thread."""
        with self._mutex:
            self._check_process()
            if self._depth or (trial_id is not None and trial_id in self._own_trials):
                yield
                return
            directory = self._take_turn()
            self._depth += 1
            try:
                self._read(is_alone=True)
                self._fail_lost()
                yield
            finally:
                self._depth -= 1
                directory.close()

    @contextmanager
    def look(self, trial_id: int | None = None) -> Iterator[None]:
        """Let no other thread change the image in the block; what other processes wrote is in it, but for a look at an own trial."""
        with self._mutex:
            self._check_process()
            if not self._depth and trial_id not in self._own_trials:
                self._read(is_alone=False)
            yield

    def write(self, record: Record, *, flush: bool) -> None:
        """Append a record to the journal of this process, and apply it."""
        with self._mutex:
            is_numbered = record["op"] not in _UNNUMBERED or record["trial"] not in self._own_trials
            number = self._writers.last + is_numbered
            journal = self._journal or self._open_journal()
            # Others can only see what was given to the file, so nothing is kept back: a record is there before its turn ends.
            journal.append({**record, "turn": number, "numbered": is_numbered}, flush=flush)
            self._writers.last = number
            self.image.apply(record)
            self._note_owner(record, self._writers.own)

    def close(self) -> None:
        """Close the journal of this process; its trials that run are lost."""
        with self._mutex:
            journal, self._journal = self._journal, None
            if journal is not None:
                journal.close()
            self._writers.close()
            if self._alive is not None:
                self._alive.close()

    def _check_process(self) -> None:
        """In a forked child go on with a journal of its own; what the parent has open is the parent's."""
        if self._process != os.getpid():
            if self._process:
                # What the parent wrote is another process's work now.
                self._writers.restart()
            self._process = os.getpid()
            self._writers.own = f"{PREFIX}{secrets.token_hex(8)}"
            self._journal, self._alive = None, None
            self._own_trials = set()

    def _open_journal(self) -> Journal:
        path = join(self.path, self._writers.own)
        make_directories(self._disk, path, durable=self._is_durable)
        self._alive = self._disk.open_directory(path)
        self._alive.try_lock()
        self._journal = Journal.open_for_append(self._disk, path, durable=self._is_durable)
        return self._journal

    def _take_turn(self) -> Directory:
        directory = self._disk.open_directory(join(self.path, TURN_NAME))
        while (state := directory.try_lock()) is not LockState.HELD:
            if state is LockState.UNSUPPORTED:
                directory.close()
                raise CheckpointError(f"{self.path}: this file system has no locks, so several processes cannot share a study here")
            time.sleep(_WAIT_SECONDS * random.random())
        return directory

    def _read(self, *, is_alone: bool) -> None:
        """Apply what others wrote. When we are alone, what is missing then was lost in a power cut, and is not waited for."""
        update = self._writers.read(is_alone=is_alone)
        if update.is_restarted:
            self.image.clear()
            self._owners.clear()
            self._own_trials.clear()
        with self.image.replaying() if update.is_restarted else nullcontext():
            for writer, number, record in update.records:
                where = f"{join(self.path, writer)}: record {number}"
                try:
                    self.image.apply_checked(record, where=where, is_shared=True)
                except CheckpointError as error:
                    # What came before it was taken already, so another try would pass over it.
                    self._writers.fail(error)
                    raise
                self._note_owner(record, record.get("writer", writer))

    def _note_owner(self, record: Record, writer: str) -> None:
        """Remember whose a running trial is, and forget it when the trial ends."""
        trial_id = record.get("trial")
        if trial_id is None or record["op"] not in ("begin_trial", "create_trial", "state"):
            return
        if trial_id in self.image.running:
            self._owners[trial_id] = writer
            if writer == self._writers.own:
                self._own_trials.add(trial_id)
        else:
            self._owners.pop(trial_id, None)
            self._own_trials.discard(trial_id)

    def _fail_lost(self) -> None:
        """Let the running trials of dead processes fail. Only in our turn, so nobody else does it too."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_FOR_DEAD_SECONDS:
            return
        self._looked_at = now
        for name in self._writers.following:
            if self._is_alive(name):
                continue
            # Dead, and in our turn: all that it wrote is read.
            self._writers.finish(name)
            for trial_id in [trial_id for trial_id, owner in self._owners.items() if owner == name]:
                at = encode_time(datetime.now())  # noqa: DTZ005 - as Optuna's
                self.write({"op": "state", "trial": trial_id, "state": FAIL, "values": None, "at": at, "lost": True}, flush=True)

    def _is_alive(self, name: str) -> bool:
        try:
            directory = self._disk.open_directory(join(self.path, name))
        except FileNotFoundError:
            return False
        try:
            return directory.try_lock() is LockState.BUSY
        finally:
            directory.close()

    def _merge_if_worth_it(self) -> None:
        """Put the journals of processes that ended into ours, when there are many. In our turn, with everything read."""
        alive = self._writers.following
        others = [name for name in writer_names(self._disk, self.path) if name != self._writers.own and name not in alive]
        held = self._writers.merge.ended if self._writers.merge is not None else frozenset()
        if not is_merge_due(len(set(others) - held), len(alive)):
            return
        # A full disk here must not keep anybody from going on: nothing is lost, and the next process merges.
        with suppress(OSError):
            journal = self._journal or self._open_journal()
            merge_journals(journal, self.image, self._writers, ended=others, owners=self._owners)
            remove_journals(self._disk, self.path, others)
