"""The journals of a study that many processes write, read as they grow and put into the one order that all agree on. Spec 18.6.

A process that ended leaves its journal behind. When there are many, one process puts what all of them say into its own journal, which
then begins with a record `merged`: it holds the journals of processes that ended wholly, and of each other one the records up to a
number. Who meets such a record starts over from it. So it does not matter whether the merged journals are still there, in part or
not at all: their names stand in the record, and nothing in them is read any more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from ckptfmt.disk.paths import join
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import CheckpointError, CheckpointNotFoundError, FormatError
from ckptfmt.format.rules import violation
from ckptfmt.run.journal_follower import JournalFollower
from ckptfmt.run.study_records import MERGED, Record, check_record

TURN_NAME = ".turn"
PREFIX = "writer-"
_NAME = re.compile(rf"{PREFIX}[0-9a-f]{{16}}")
_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class Merge:
    """A record `merged`: where it is, and what it holds."""

    writer: str
    number: int
    turn: int
    ended: frozenset[str]
    through: dict[str, int]
    count: int

    def holds(self, number: int) -> bool:
        """Tell whether a record of its journal is it, or one of those that make the studies of that moment."""
        return self.number <= number <= self.number + self.count


class WriterRecord(NamedTuple):
    """One record, by the name of its writer's journal and the number in it."""

    writer: str
    number: int
    record: Record


@dataclass(frozen=True, slots=True)
class WriterUpdate:
    """Records that are new, in their order. If `is_restarted`, they take the place of all that were given out before."""

    records: list[WriterRecord]
    is_restarted: bool


def writer_names(disk: Disk, path: str) -> list[str]:
    """Return the names of the journals of a shared study."""
    directory = disk.open_directory(path)
    try:
        return [name for name in directory.names() if _NAME.fullmatch(name)]
    finally:
        directory.close()


class _WrittenAnewError(Exception):
    """A journal was compacted or salvaged while it was followed: its records come again."""


def has_turn(disk: Disk, path: str) -> bool:
    """Tell whether a directory has what processes take turns by."""
    try:
        disk.open_directory(join(path, TURN_NAME)).close()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


class StudyWriters:
    """Reads all journals of a shared study but one's own, whose records its owner has applied when it wrote them.

    Attributes: `last`, the highest turn that is known; `own`, the name of one's own journal, "" for none; `merge`, what everything was
    read from, None for the beginning.
    """

    def __init__(self, disk: Disk, path: str) -> None:
        self.last = 0
        self.own = ""
        self.merge: Merge | None = None
        self._disk = disk
        self._path = path
        self._followers: dict[str, JournalFollower] = {}
        # Journals that are read to their end: of processes that ended.
        self._finished: set[str] = set()
        # The number of the last record of each journal that was taken.
        self._taken: dict[str, int] = {}
        # Records that wait for one of a lower turn, which its writer has written already, but we have not read.
        self._held: list[tuple[int, bool, WriterRecord]] = []
        self._is_restarted = False
        self._failure: CheckpointError | None = None

    @property
    def following(self) -> list[str]:
        """The names of the journals that are followed."""
        return list(self._followers)

    @property
    def taken(self) -> dict[str, int]:
        """How far each journal that is followed was read."""
        return {name: self._taken.get(name, 0) for name in self._followers}

    def read(self, *, is_alone: bool) -> WriterUpdate:
        """Return what is new. When nobody else can write, what is missing then was lost in a power cut, and is not waited for.

        Raises:
            CorruptError: a journal is damaged, or a record in it is not as spec 18 says. From then on always.
        """
        if self._failure is not None:
            raise self._failure
        try:
            self._poll_all()
        except FormatError as error:
            # What came before it was taken already, so another try would pass over it.
            self._failure = error
            raise
        is_restarted, self._is_restarted = self._is_restarted, False
        if is_restarted and self.own in self._followers:
            self._followers.pop(self.own).close()
        update = WriterUpdate(self._take_ready(is_alone=is_alone), is_restarted)
        if is_restarted:
            self._check_merge(update.records)
        return update

    def finish(self, name: str) -> None:
        """Follow a journal no more: its process has ended, and everything in it is read."""
        self._followers.pop(name).close()
        self._finished.add(name)

    def fail(self, error: CheckpointError) -> None:
        """Raise this error from now on: a record cannot be applied, and must not be passed over."""
        self._failure = error

    def adopt(self, merge: Merge) -> None:
        """Go on from a merge that was written to one's own journal."""
        self.merge, self.last = merge, merge.turn
        for name in merge.ended & self._followers.keys():
            self.finish(name)

    def restart(self) -> None:
        """Read everything again the next time, as one that has written nothing."""
        self._start_over(None)

    def close(self) -> None:
        """Stop reading."""
        for follower in self._followers.values():
            follower.close()
        self._followers.clear()

    def _poll_all(self) -> None:
        for _ in range(_ATTEMPTS):
            names = writer_names(self._disk, self._path)
            problem: CheckpointError | None = None
            found: list[Merge] = []
            try:
                for name in names:
                    if not self._is_passed_over(name):
                        try:
                            found += self._poll(name)
                        except (FormatError, CheckpointNotFoundError) as error:
                            problem = problem or error
            except _WrittenAnewError:
                self._start_over(self.merge)
                continue
            newest = max(found, key=lambda merge: merge.turn, default=None)
            if newest is not None and (self.merge is None or newest.turn > self.merge.turn):
                self._start_over(newest)
            elif problem is None:
                return
            elif writer_names(self._disk, self._path) == names:
                # Nobody has merged it meanwhile, so it is damage.
                raise problem
        raise CheckpointError(f"{self._path}: the journals of this study change faster than they can be read")

    def _is_passed_over(self, name: str) -> bool:
        is_held = self.merge is not None and name in self.merge.ended
        # After a merge by somebody else also what one has written oneself is read again, once.
        return is_held or name in self._finished or (name == self.own and not self._is_restarted)

    def _start_over(self, merge: Merge | None) -> None:
        self.close()
        self.merge, self.last = merge, 0 if merge is None else merge.turn
        self._finished.clear()
        self._held.clear()
        self._taken = {} if merge is None else dict(merge.through)
        self._is_restarted = True

    def _poll(self, name: str) -> list[Merge]:
        """Take what is new in one journal, and return the merges in it."""
        path = join(self._path, name)
        is_new = name not in self._followers
        if is_new:
            self._followers[name] = JournalFollower(self._disk, path)
        update = self._followers[name].poll()
        if update.is_restarted and not is_new:
            raise _WrittenAnewError
        merges = []
        for number, record in update.records:
            where = f"{path}: record {number}"
            check_record(record, where, is_shared=True)
            if record["op"] == MERGED:
                merges.append(Merge(name, number, record["turn"], frozenset(record["ended"]), record["through"], record["count"]))
            if number > self._taken.get(name, 0):
                self._taken[name] = number
                self._hold(WriterRecord(name, number, record))
        return merges

    def _hold(self, one: WriterRecord) -> None:
        is_base = self.merge is not None and one.writer == self.merge.writer and self.merge.holds(one.number)
        # The studies of the moment of the merge come before everything that was written since.
        key = (0, False) if is_base else (one.record["turn"], not one.record["numbered"])
        self._held.append((*key, one))

    def _take_ready(self, *, is_alone: bool) -> list[WriterRecord]:
        # A stable sort: records of one journal stay in order, and a numbered one comes before those that have seen it.
        self._held.sort(key=lambda held: held[:2])
        ready = 0
        for turn, is_unnumbered, _ in self._held:
            if not is_alone and turn > self.last + (not is_unnumbered):
                break
            self.last = max(self.last, turn)
            ready += 1
        records = [one for _, _, one in self._held[:ready]]
        del self._held[:ready]
        return records

    def _check_merge(self, records: list[WriterRecord]) -> None:
        """Check that the merge from which everything was read is followed by as many records as it says."""
        merge = self.merge
        if merge is not None:
            found = sum(one.writer == merge.writer and merge.holds(one.number) for one in records) - 1
            if found != merge.count:
                where = f"{join(self._path, merge.writer)}: record {merge.number}"
                self._failure = violation("E058", where, "records after merged are missing", expected=merge.count, found=found)
                raise self._failure
