"""Studies in memory, as the records of a journal make them: one change, one record. Spec 18.3.

Whoever changes a study writes the record and then applies it here, and whoever opens a study applies the records that are there. So a
study that was read is the study that was written. What was handed out is never changed, it is replaced; only while records are
replayed, and nobody has seen the trials yet, are they changed in place.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ckptfmt.adapters.optuna_pickles import without_foreign_pickles
from ckptfmt.adapters.optuna_values import decode_attribute, decode_distribution, decode_time, decode_trial
from ckptfmt.errors import CheckpointError, FormatError
from ckptfmt.format.rules import located, violation
from ckptfmt.run.study_records import (
    COMPLETE,
    FINISHED,
    LOST_KEY,
    MAXIMIZE,
    MERGED,
    RUNNING,
    WAITING,
    Record,
    find_stranger,
    stranger_error,
)

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_MEMBERS = ("_params", "_distributions", "intermediate_values", "_user_attrs", "_system_attrs")
_NEW_TRIAL: dict[str, Any] = {
    "state": RUNNING,
    "values": None,
    "finished_at": None,
    "params": [],
    "user_attrs": {},
    "system_attrs": {},
    "intermediate": [],
}


@dataclass(slots=True)
class StudyEntry:
    """One study. `done_count` counts finished trials that were not lost with their process; `sampler` is the state of sampler and pruner
    after the last finished trial, by path.
    """

    name: str
    directions: list[int]
    trials: list[FrozenTrial] = field(default_factory=list)
    user_attrs: dict[str, Any] = field(default_factory=dict)
    system_attrs: dict[str, Any] = field(default_factory=dict)
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)
    best_number: int | None = None
    done_count: int = 0
    sampler: dict[str, Any] = field(default_factory=dict)


class StudyImage:
    """All studies of one storage. Attribute: `running`, the ids of running trials with what they were while they waited, if they did."""

    def __init__(self) -> None:
        self.studies: dict[int, StudyEntry] = {}
        self.homes: dict[int, tuple[int, int]] = {}
        self.running: dict[int, FrozenTrial | None] = {}
        self.next_study_id = 0
        self.next_trial_id = 0
        self._is_replaying = False

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """Nobody looks at the trials during the block, so they may be changed in place."""
        self._is_replaying = True
        try:
            yield
        finally:
            self._is_replaying = False

    def replay(self, records: Iterable[tuple[int, Any]], *, where: str) -> None:
        """Apply records with their numbers, that were checked and come from the journal `where`.

        Raises:
            CorruptError: a record does not fit those before (E059), or is none that Optuna takes (E058).
        """
        with self.replaying():
            for number, record in records:
                self.apply_checked(record, where=f"{where}: record {number}")

    def apply_checked(self, record: Record, *, where: str, is_shared: bool = False) -> None:
        """Apply one record that comes from a file and was checked. Unknown ones are of a newer minor version and ignored.

        In a study with many writers one that names what is not there is ignored: what it names was lost in a power cut.
        """
        stranger = find_stranger(record, self.studies, self.homes)
        if stranger is not None:
            if not is_shared:
                raise stranger_error(record, stranger, where)
            return
        try:
            self.apply(record, is_own=False)
        except FormatError as error:
            raise located(error, where) from error
        except CheckpointError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # What only Optuna knows to be wrong, such as a logarithmic range that begins at 0.
            what = f"record {record['op']} cannot be applied: {type(error).__name__}: {error}"
            raise violation("E058", where, what) from error

    def apply(self, record: Record, *, is_own: bool = True) -> None:
        """Apply one record; pickles in attributes that are not our own doing are looked at."""
        change = _CHANGES.get(record["op"])
        if change is not None:
            change(self, record)
        if not is_own and record["op"] in ("state", "create_trial") and record.get("state", RUNNING) in FINISHED:
            self._drop_foreign_pickles(record["trial"])

    def clear(self) -> None:
        """Forget everything; trials that were handed out stay as they are."""
        self.studies, self.homes, self.running = {}, {}, {}
        self.next_study_id = self.next_trial_id = 0

    def study(self, study_id: int) -> StudyEntry:
        """Return a study; KeyError as Optuna wants it."""
        if study_id not in self.studies:
            raise KeyError(f"No study with study_id {study_id} exists.")
        return self.studies[study_id]

    def trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial; KeyError as Optuna wants it."""
        if trial_id not in self.homes:
            raise KeyError(f"No trial with trial_id {trial_id} exists.")
        study_id, number = self.homes[trial_id]
        return self.studies[study_id].trials[number]

    def running_count(self, study_id: int) -> int:
        """How many trials of a study run now."""
        return sum(self.homes[trial_id][0] == study_id for trial_id in self.running)

    def _create_study(self, record: Record) -> None:
        self.studies[record["study"]] = StudyEntry(record["name"], list(record["directions"]))
        self.next_study_id = max(self.next_study_id, record["study"] + 1)

    def _delete_study(self, record: Record) -> None:
        for trial in self.studies.pop(record["study"]).trials:
            del self.homes[trial._trial_id]
            self.running.pop(trial._trial_id, None)

    def _set_study_user_attr(self, record: Record) -> None:
        entry = self.studies[record["study"]]
        entry.user_attrs = {**entry.user_attrs, record["key"]: decode_attribute(record["value"])}

    def _set_study_system_attr(self, record: Record) -> None:
        entry = self.studies[record["study"]]
        entry.system_attrs = {**entry.system_attrs, record["key"]: decode_attribute(record["value"])}

    def _note_merge(self, record: Record) -> None:
        """Ids of what was deleted before are not used again either."""
        self.next_study_id = max(self.next_study_id, record["next_study"])
        self.next_trial_id = max(self.next_trial_id, record["next_trial"])

    def _set_sampler(self, record: Record) -> None:
        entry = self.studies[record["study"]]
        sampler = {path: value for path, value in entry.sampler.items() if path not in record["gone"]}
        entry.sampler = {**sampler, **record["changed"]}

    def _begin_trial(self, record: Record) -> None:
        self._create_trial({**_NEW_TRIAL, **record, "started_at": record["at"]})

    def _create_trial(self, record: Record) -> None:
        entry, trial_id = self.studies[record["study"]], record["trial"]
        trial = decode_trial(record, number=len(entry.trials), trial_id=trial_id)  # type: ignore[arg-type]
        self.homes[trial_id] = (record["study"], trial.number)
        self.next_trial_id = max(self.next_trial_id, trial_id + 1)
        entry.trials.append(trial)
        for name, distribution in trial.distributions.items():
            entry.distributions.setdefault(name, distribution)
        self._note_state(entry, trial, None)

    def _set_param(self, record: Record) -> None:
        distribution = decode_distribution(record["distribution"])
        trial = self._changeable(record["trial"], "_params", "_distributions")
        trial.params[record["name"]] = distribution.to_external_repr(record["value"])
        trial.distributions[record["name"]] = distribution
        self.studies[self.homes[record["trial"]][0]].distributions[record["name"]] = distribution

    def _set_intermediate(self, record: Record) -> None:
        trial = self._changeable(record["trial"], "intermediate_values")
        trial.intermediate_values[record["step"]] = record["value"]

    def _set_user_attr(self, record: Record) -> None:
        trial = self._changeable(record["trial"], "_user_attrs")
        trial.user_attrs[record["key"]] = decode_attribute(record["value"])

    def _set_system_attr(self, record: Record) -> None:
        trial = self._changeable(record["trial"], "_system_attrs")
        trial.system_attrs[record["key"]] = decode_attribute(record["value"])

    def _set_state(self, record: Record) -> None:
        from optuna.trial import TrialState

        trial_id, state = record["trial"], record["state"]
        study_id, number = self.homes[trial_id]
        entry = self.studies[study_id]
        before = entry.trials[number]
        if state == WAITING:
            # Taken back: it is what it was before it began.
            waiting = self.running.pop(trial_id)
            if waiting is not None:
                entry.trials[number] = waiting
                entry.waiting.add(number)
            return
        trial = copy.copy(before)
        if state == RUNNING:
            # What it was while it waited stays as it is, whatever becomes of it.
            for member in _MEMBERS:
                setattr(trial, member, dict(getattr(trial, member)))
        trial.state = TrialState(state)
        if record.get("values") is not None:
            trial.values = record["values"]
        moment = decode_time(record["at"])
        if state == RUNNING:
            trial.datetime_start = moment
        else:
            trial.datetime_complete = moment
        if record.get("lost"):
            trial._system_attrs = {**trial.system_attrs, LOST_KEY: True}
        entry.trials[number] = trial
        self._note_state(entry, trial, before)
        if "sampler" in record:
            self._set_sampler({"study": study_id, **record["sampler"]})

    def _note_state(self, entry: StudyEntry, trial: FrozenTrial, before: FrozenTrial | None) -> None:
        state = int(trial.state)
        entry.waiting.discard(trial.number)
        self.running.pop(trial._trial_id, None)
        if state == WAITING:
            entry.waiting.add(trial.number)
        elif state == RUNNING:
            self.running[trial._trial_id] = before
        elif LOST_KEY not in trial.system_attrs:
            entry.done_count += 1
        if state == COMPLETE and _is_better(entry, trial):
            entry.best_number = trial.number

    def _changeable(self, trial_id: int, *members: str) -> FrozenTrial:
        """Return a trial of which these members may be changed: itself if nobody has seen it, else a copy in its place."""
        study_id, number = self.homes[trial_id]
        trials = self.studies[study_id].trials
        if not self._is_replaying:
            trials[number] = copy.copy(trials[number])
            for member in members:
                setattr(trials[number], member, dict(getattr(trials[number], member)))
        return trials[number]

    def _drop_foreign_pickles(self, trial_id: int) -> None:
        trial = self.trial(trial_id)
        kept = without_foreign_pickles(trial.system_attrs, trial.number)
        if kept is not trial.system_attrs:
            self._changeable(trial_id)._system_attrs = kept


def _is_better(entry: StudyEntry, trial: FrozenTrial) -> bool:
    if entry.best_number is None:
        return True
    best = entry.trials[entry.best_number]
    if len(entry.directions) > 1 or best.value is None or trial.value is None:
        return len(entry.directions) == 1 and best.value is None
    return best.value < trial.value if entry.directions[0] == MAXIMIZE else best.value > trial.value


_CHANGES = {
    "create_study": StudyImage._create_study,
    "delete_study": StudyImage._delete_study,
    "study_user_attr": StudyImage._set_study_user_attr,
    "study_system_attr": StudyImage._set_study_system_attr,
    "sampler": StudyImage._set_sampler,
    MERGED: StudyImage._note_merge,
    "begin_trial": StudyImage._begin_trial,
    "create_trial": StudyImage._create_trial,
    "param": StudyImage._set_param,
    "intermediate": StudyImage._set_intermediate,
    "user_attr": StudyImage._set_user_attr,
    "system_attr": StudyImage._set_system_attr,
    "state": StudyImage._set_state,
}
