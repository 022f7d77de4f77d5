"""A crash at any point of a merge of a shared study loses no acknowledged trial, and the next process goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from optuna.trial import TrialState

from ckptfmt.adapters import optuna_merge, optuna_shared
from ckptfmt.adapters.optuna_storage import new_storage
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.recording import Record, RecordingDisk
from ckptfmt.errors import CorruptError
from ckptfmt.run.journal import Journal
from tests.crash.crash_states import CrashState, iter_states
from tests.crash.shared_studies import add_trial, crowded, open_log


def merge_and_go_on(initial: MemoryDisk) -> RecordingDisk:
    """Open a study, which merges, and finish two more trials."""
    disk = RecordingDisk(MemoryDisk(initial.tree()))
    log = open_log(disk)
    for value in (0.25, 0.125):
        add_trial(new_storage(log), value)
        disk.record_mark(str(value))
    log.close()
    return disk


def values_of(disk: MemoryDisk) -> list[float]:
    log = open_log(disk)
    try:
        trials = new_storage(log).get_all_trials(0)
        assert log.image.study(0).done_count == sum("ckptfmt:lost" not in trial.system_attrs for trial in trials)
        return [trial.value for trial in trials if trial.state == TrialState.COMPLETE]
    finally:
        log.close()


def check(state: CrashState, expected: list[float]) -> None:
    acknowledged = expected + [float(mark) for mark in state.acknowledged_marks]
    found = values_of(state.disk)
    assert found[: len(acknowledged)] == acknowledged, state.description
    log = open_log(state.disk)
    add_trial(new_storage(log), 7.0)
    log.close()
    assert values_of(state.disk) == [*found, 7.0]


@pytest.mark.parametrize("limit", [pytest.param(60, id="some"), pytest.param(None, id="all", marks=pytest.mark.slow)])
@pytest.mark.parametrize("weak", [True, False], ids=["weak", "ordered"])
def test_no_state_after_a_crash_lacks_an_acknowledged_trial(weak: bool, limit: int | None) -> None:
    initial = crowded(5)
    expected = [float(index) for index in range(5)]
    count = 0
    for state in iter_states(merge_and_go_on(initial).records, initial.tree(), weak=weak, limit=limit):
        check(state, expected)
        count += 1
    assert count >= (limit or 200)


@pytest.mark.slow
@pytest.mark.parametrize("weak", [True, False], ids=["weak", "ordered"])
def test_a_second_crash_on_top_of_a_first_one_loses_nothing_either(weak: bool) -> None:
    initial = crowded(5)
    for state in iter_states(merge_and_go_on(initial).records, initial.tree(), weak=weak, limit=60):
        before = values_of(state.disk)
        for later in iter_states(merge_and_go_on(state.disk).records, state.disk.tree(), weak=weak, limit=60):
            check(later, before)


Mutant = Callable[[pytest.MonkeyPatch], None]


def check_states(records: Sequence[Record], initial: MemoryDisk, expected: list[float]) -> None:
    for state in iter_states(records, initial.tree(), weak=True, limit=120):
        check(state, expected)


def removed_before_the_merge_is_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    compact = Journal.compact

    def early(self: Any, values: Any) -> None:
        optuna_merge.remove_journals(self._directory._disk, "/shared", values[0]["ended"])
        compact(self, values)

    monkeypatch.setattr(Journal, "compact", early)


def the_merge_does_not_say_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    merge = optuna_shared.merge_journals
    monkeypatch.setattr(optuna_shared, "merge_journals", lambda *rest, ended, owners: merge(*rest, ended=[], owners=owners))


@pytest.mark.parametrize("mutant", [removed_before_the_merge_is_durable, the_merge_does_not_say_what_it_holds])
def test_the_check_finds_a_merge_that_is_done_wrongly(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    initial = crowded(5)
    expected = [float(index) for index in range(5)]
    with monkeypatch.context() as patch:
        mutant(patch)
        records = merge_and_go_on(initial).records
    with pytest.raises((AssertionError, CorruptError, KeyError)):
        check_states(records, initial, expected)
