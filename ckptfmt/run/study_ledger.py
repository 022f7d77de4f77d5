"""Studies as plain data: the fold of their records, without Optuna and without decoding attributes. Spec 18.3.

The adapter folds the same records into trials of Optuna; here they are for whoever only looks.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from ckptfmt.run.study_records import LOST_KEY, RUNNING, WAITING, Record, check_record, find_domain, find_stranger, stranger_error


@dataclass(slots=True)
class TrialRow:
    """One trial. `params` are (stored value, text of the distribution) by name; attributes are trees in packed form."""

    number: int
    state: int = RUNNING
    values: list[int | float] | None = None
    started_at: str | None = None
    finished_at: str | None = None
    params: dict[str, tuple[Any, str]] = field(default_factory=dict)
    user_attrs: dict[str, Any] = field(default_factory=dict)
    system_attrs: dict[str, Any] = field(default_factory=dict)
    intermediate: dict[int, int | float] = field(default_factory=dict)
    is_lost: bool = False

    @property
    def shown_params(self) -> dict[str, Any]:
        """Parameters as the program that suggested them saw them."""
        domains = {name: find_domain(text) for name, (_, text) in self.params.items()}
        return {name: domain.shown(self.params[name][0]) for name, domain in domains.items() if domain is not None}


@dataclass(slots=True)
class StudyRow:
    """One study. `sampler` is the state of sampler and pruner by path."""

    name: str
    directions: list[int]
    trials: list[TrialRow] = field(default_factory=list)
    user_attrs: dict[str, Any] = field(default_factory=dict)
    system_attrs: dict[str, Any] = field(default_factory=dict)
    sampler: dict[str, Any] = field(default_factory=dict)


class StudyLedger:
    """All studies of a journal, or of the journals of many writers. Attribute: `studies`, by their ids."""

    def __init__(self) -> None:
        self.studies: dict[int, StudyRow] = {}
        self._trials: dict[int, tuple[int, TrialRow]] = {}
        self._waited: dict[int, TrialRow] = {}

    def add(self, record: Any, where: str, *, is_shared: bool = False) -> None:
        """Apply one record that `where` names. In a study with many writers one that names what is not there is ignored.

        Raises:
            CorruptError: it is not as spec 18 says (E058), or does not fit those before (E059).
        """
        check_record(record, where, is_shared=is_shared)
        stranger = find_stranger(record, self.studies, self._trials)
        if stranger is None:
            change = _CHANGES.get(record["op"])
            if change is not None:
                change(self, record)
        elif not is_shared:
            raise stranger_error(record, stranger, where)

    def _create_study(self, record: Record) -> None:
        self.studies[record["study"]] = StudyRow(record["name"], record["directions"])

    def _delete_study(self, record: Record) -> None:
        del self.studies[record["study"]]
        self._trials = {trial_id: home for trial_id, home in self._trials.items() if home[0] != record["study"]}

    def _set_study_user_attr(self, record: Record) -> None:
        self.studies[record["study"]].user_attrs[record["key"]] = record["value"]

    def _set_study_system_attr(self, record: Record) -> None:
        self.studies[record["study"]].system_attrs[record["key"]] = record["value"]

    def _set_sampler(self, record: Record) -> None:
        sampler = self.studies[record["study"]].sampler
        for path in record["gone"]:
            sampler.pop(path, None)
        sampler.update(record["changed"])

    def _begin_trial(self, record: Record) -> None:
        self._add_trial(record, started_at=record["at"])

    def _create_trial(self, record: Record) -> None:
        trial = self._add_trial(record, started_at=record["started_at"])
        trial.state, trial.values, trial.finished_at = record["state"], record["values"], record["finished_at"]
        trial.params = {name: (value, text) for name, value, text in record["params"]}
        trial.user_attrs, trial.system_attrs = dict(record["user_attrs"]), dict(record["system_attrs"])
        trial.intermediate = dict(record["intermediate"])
        trial.is_lost = LOST_KEY in trial.system_attrs

    def _add_trial(self, record: Record, *, started_at: str | None) -> TrialRow:
        trials = self.studies[record["study"]].trials
        trial = TrialRow(len(trials), started_at=started_at)
        trials.append(trial)
        self._trials[record["trial"]] = (record["study"], trial)
        return trial

    def _set_param(self, record: Record) -> None:
        self._trials[record["trial"]][1].params[record["name"]] = (record["value"], record["distribution"])

    def _set_intermediate(self, record: Record) -> None:
        self._trials[record["trial"]][1].intermediate[record["step"]] = record["value"]

    def _set_user_attr(self, record: Record) -> None:
        self._trials[record["trial"]][1].user_attrs[record["key"]] = record["value"]

    def _set_system_attr(self, record: Record) -> None:
        trial = self._trials[record["trial"]][1]
        trial.system_attrs[record["key"]] = record["value"]
        trial.is_lost = trial.is_lost or record["key"] == LOST_KEY

    def _set_state(self, record: Record) -> None:
        trial_id, state = record["trial"], record["state"]
        study_id, trial = self._trials[trial_id]
        if state == WAITING:
            before = self._waited.pop(trial_id, None)
            if before is not None:
                self._trials[trial_id] = (study_id, before)
                self.studies[study_id].trials[trial.number] = before
            return
        if state == RUNNING:
            self._waited[trial_id] = deepcopy(trial)
            trial.started_at = record["at"]
        else:
            self._waited.pop(trial_id, None)
            trial.finished_at = record["at"]
        trial.state = state
        trial.values = record["values"] if record["values"] is not None else trial.values
        if record.get("lost"):
            trial.is_lost = True
            trial.system_attrs[LOST_KEY] = True
        if "sampler" in record:
            self._set_sampler({"study": study_id, **record["sampler"]})


_CHANGES: dict[str, Callable[[StudyLedger, Record], None]] = {
    "create_study": StudyLedger._create_study,
    "delete_study": StudyLedger._delete_study,
    "study_user_attr": StudyLedger._set_study_user_attr,
    "study_system_attr": StudyLedger._set_study_system_attr,
    "sampler": StudyLedger._set_sampler,
    "begin_trial": StudyLedger._begin_trial,
    "create_trial": StudyLedger._create_trial,
    "param": StudyLedger._set_param,
    "intermediate": StudyLedger._set_intermediate,
    "user_attr": StudyLedger._set_user_attr,
    "system_attr": StudyLedger._set_system_attr,
    "state": StudyLedger._set_state,
}
