"""The journal of studies that have one writer: what is kept of it when its writer was killed. Spec 18.4.

A record that was written while a trial ran is provisional: it counts only if a record follows that is not. So the trial that was
running when its process died, with everything that its sampler did for it, is as if it had never begun, and a study and its sampler
are always those after the last finished trial.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from ckptfmt.adapters.optuna_image import StudyImage
from ckptfmt.adapters.optuna_values import encode_attribute, encode_time, encode_trial
from ckptfmt.disk.protocol import Disk
from ckptfmt.run.journal import Journal
from ckptfmt.run.journal_reader import read_journal
from ckptfmt.run.study_records import FAIL, FINISHED, RUNNING, WAITING, Record, settled

_FLUSH_SECONDS = 5.0
_COMPACT_RECORDS = 2000
_COMPACT_RATIO = 3


class StudyJournal:
    """A log (see optuna_storage) in one journal that only this process writes."""

    def __init__(
        self,
        disk: Disk,
        path: str,
        *,
        durable: bool = True,
        check_open: Callable[[], None] | None = None,
        first: list[Record] | None = None,
    ) -> None:
        self.image = StudyImage()
        self.path = path
        self._mutex = threading.RLock()
        self._check_open = check_open
        # The trials that this process has begun and not finished.
        self._begun: set[int] = set()
        self._journal = Journal.open_for_append(disk, path, durable=durable, flush_after_seconds=_FLUSH_SECONDS)
        try:
            self._begin(first)
        except BaseException:
            self._journal.close()
            raise

    def _begin(self, first: list[Record] | None) -> None:
        """Make the image of what is there, and take back what a killed process left."""
        if first is not None and self._journal.last_number == 0:
            self._journal.compact(first)
            self.image.replay(enumerate(first, 1), where=self.path)
            self._settle()
            return
        records = list(self._journal.iter_records())
        self._journal.release_records()
        kept = settled(records, self.path)
        self.image.replay(kept, where=self.path)
        if records and records[-1][1].get("provisional"):
            self._append({"op": "take_back", "after": kept[-1][0] if kept else 0}, flush=True)
        self._settle()
        live_count = sum(len(entry.trials) + 1 for entry in self.image.studies.values())
        if len(records) >= max(_COMPACT_RECORDS, _COMPACT_RATIO * live_count):
            self._journal.compact(whole_records(self.image))

    @contextmanager
    def turn(self, _: int | None = None) -> Iterator[None]:
        """Let no other thread change anything in the block."""
        with self._mutex:
            yield

    @contextmanager
    def look(self, _: int | None = None) -> Iterator[None]:
        """Let no other thread change the image in the block."""
        with self._mutex:
            yield

    def write(self, record: Record, *, flush: bool) -> None:
        """Append a record and apply it."""
        if self._check_open is not None:
            self._check_open()
        with self._mutex:
            op, state = record["op"], record.get("state")
            begins = op == "begin_trial" or (op == "state" and state == RUNNING)
            finishes = op == "state" and state in FINISHED
            is_provisional = begins or (bool(self._begun) and not finishes)
            self._append({**record, "provisional": True} if is_provisional else record, flush=flush and not is_provisional)
            self.image.apply(record)
            if begins:
                self._begun.add(record["trial"])
            elif finishes:
                self._begun.discard(record["trial"])
            elif op == "delete_study":
                self._begun &= self.image.running.keys()

    def close(self) -> None:
        """Flush and close."""
        self._journal.close()

    def _append(self, record: Record, *, flush: bool) -> None:
        self._journal.append(dict(record), flush=flush)

    def _settle(self) -> None:
        """Trials that ran beside one that finished cannot be unmade: they fail, or wait again if they had waited before."""
        for trial_id, waiting in list(self.image.running.items()):
            state = FAIL if waiting is None else WAITING
            now = encode_time(datetime.now())  # noqa: DTZ005 - as Optuna's
            record = {"op": "state", "trial": trial_id, "state": state, "values": None, "at": now, "lost": state == FAIL}
            self._append(record, flush=True)
            self.image.apply(record)


def whole_records(image: StudyImage) -> list[Record]:
    """Return the records that make an image at once: one for each study, attribute and trial."""
    records: list[Record] = []
    for study_id, entry in image.studies.items():
        records.append({"op": "create_study", "study": study_id, "name": entry.name, "directions": list(entry.directions)})
        for op, attributes in (("study_user_attr", entry.user_attrs), ("study_system_attr", entry.system_attrs)):
            for key, value in attributes.items():
                records.append({"op": op, "study": study_id, "key": key, "value": encode_attribute(value, f"attribute {key!r}")})
        records += [{"op": "create_trial", "study": study_id, "trial": trial._trial_id, **encode_trial(trial)} for trial in entry.trials]
        if entry.sampler:
            records.append({"op": "sampler", "study": study_id, "changed": dict(entry.sampler), "gone": []})
    return records


def read_studies(disk: Disk, path: str) -> StudyImage:
    """Read the studies in a journal as they were after their last finished trial; nothing is written."""
    image = StudyImage()
    image.replay(settled(read_journal(disk, path).iter_records(), path), where=path)
    return image
