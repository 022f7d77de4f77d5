"""Keeping a second journal equal to one that grows: record by record, under the same numbers, in files that are written once.

The records that are new become one more segment of the copy, which is flushed, closed, and read back along its chain. Only where the
original was compacted or lost what its copy has, or the copy consists of very many small files, all of it is written anew, as a snapshot.
So the copy is a journal by itself at any moment, with a prefix of the records. Needs no links, no locks and no rename onto a name
that exists. Spec 16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import CorruptError
from ckptfmt.format.rules import violation
from ckptfmt.run.journal import Journal
from ckptfmt.run.journal_follower import JournalFollower
from ckptfmt.run.journal_reader import read_journal
from ckptfmt.run.journal_salvage import salvage

# From the first number of files on a copy is joined when that at most doubles its bytes, from the second in any case.
_MANY_SEGMENTS = 64
_MAX_SEGMENTS = 1024
_NEEDED_BYTES = 64


class JournalCopy:
    """A journal and its copy. After an error everything is opened anew by the next `update`.

    `before_records` gets the records, as they are encoded, before they are in the copy: what they name must be there first.
    """

    def __init__(self, disk: Disk, source_path: str, target_path: str, before_records: Callable[[Sequence[bytes]], None]) -> None:
        self._disk = disk
        self._source_path = source_path
        self._target_path = target_path
        self._before_records = before_records
        self._source: JournalFollower | None = None
        self._target: Journal | None = None
        self._check: JournalFollower | None = None
        # Segments and bytes since the last snapshot of the copy, and the bytes of that.
        self._small_count = self._small_bytes = self._snapshot_bytes = 0

    def update(self) -> None:
        """Bring the copy up to date.

        Raises:
            CorruptError: the journal is damaged, or its copy does not read back.
            OSError: the disk did not do what was asked; what was in the copy is still there.
        """
        try:
            if self._source is None:
                self._open()
            else:
                payloads, is_restarted = self._source.poll_payloads()
                self._write(payloads, is_restarted=is_restarted)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close everything. The copy may be updated again."""
        opened = (self._source, self._check, self._target)
        self._source = self._check = self._target = None
        for one in opened:
            if one is not None:
                with suppress(OSError):
                    one.close()

    def _open(self) -> None:
        self._source = JournalFollower(self._disk, self._source_path)
        payloads, _ = self._source.poll_payloads()
        self._target = self._open_target()
        content = self._target.content
        known = [] if content is None else list(content.iter_payloads())
        has_base = content is None or not self._target.last_number or content.first_number == self._source.base_number + 1
        self._target.release_records()
        self._check = JournalFollower(self._disk, self._target_path)
        self._check.poll_payloads()
        self._small_count, self._small_bytes, self._snapshot_bytes = self._target.segment_count, 0, sum(map(len, known))
        is_prefix = has_base and payloads[: len(known)] == known
        self._write(payloads[len(known) :] if is_prefix else payloads, is_restarted=not is_prefix)

    def _open_target(self) -> Journal:
        try:
            return Journal.open_for_append(self._disk, self._target_path)
        except CorruptError:
            salvage(self._disk, self._target_path)
            return Journal.open_for_append(self._disk, self._target_path)

    def _write(self, payloads: list[bytes], *, is_restarted: bool) -> None:
        source, target = self._source, self._target
        if source is None or target is None or not (payloads or is_restarted):
            return
        self._before_records(payloads)
        size_bytes = sum(map(len, payloads)) + _NEEDED_BYTES * len(payloads)
        if is_restarted or not target.last_number:
            self._replace(target, payloads, source.base_number)
        else:
            target.append_segment(payloads)
            self._small_count, self._small_bytes = self._small_count + 1, self._small_bytes + size_bytes
        self._check_back(payloads, source.last_number)
        is_small = self._small_bytes < self._snapshot_bytes
        if self._small_count >= (_MAX_SEGMENTS if is_small else _MANY_SEGMENTS):
            everything = list(read_journal(self._disk, self._target_path).iter_payloads())
            self._replace(target, everything, source.base_number)
            # The follower stands at its end already, so this one is read as a whole.
            if list(read_journal(self._disk, self._target_path).iter_payloads()) != everything:
                raise violation("E054", self._target_path, "the joined copy does not read back")
            self._check_back([], source.last_number)

    def _replace(self, target: Journal, payloads: list[bytes], base_number: int) -> None:
        target.replace(payloads, base_number=base_number)
        self._small_count, self._small_bytes = 0, 0
        self._snapshot_bytes = sum(map(len, payloads)) + _NEEDED_BYTES * len(payloads)

    def _check_back(self, payloads: list[bytes], last_number: int) -> None:
        """Read what was written, along its chain, and compare."""
        if self._check is None:
            return
        found, _ = self._check.poll_payloads()
        if self._check.last_number != last_number or found[len(found) - len(payloads) :] != payloads:
            raise violation("E054", self._target_path, "the copy does not read back", expected=last_number, found=self._check.last_number)
