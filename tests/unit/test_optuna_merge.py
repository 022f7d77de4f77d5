"""Merging the journals of processes that ended: when, what stays, and what others see of it while it happens."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest
from optuna.trial import TrialState

from ckptfmt.adapters import optuna_shared
from ckptfmt.adapters.optuna_merge import MERGE_ALONE, MERGE_AMONG_OTHERS
from ckptfmt.adapters.optuna_storage import new_storage
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.recording import RecordingDisk
from ckptfmt.errors import CorruptError
from ckptfmt.run.journal import Journal
from ckptfmt.run.journal_reader import read_journal
from ckptfmt.run.study_ledger import StudyLedger
from ckptfmt.run.study_writers import StudyWriters, writer_names
from tests.crash.shared_studies import PATH, add_trial, crowded, open_log, run_process, trials_of


def no_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optuna_shared, "is_merge_due", lambda *_: False)


def test_a_process_that_is_alone_merges_what_others_left() -> None:
    disk = MemoryDisk()
    for index in range(12):
        run_process(disk, [float(index), index / 2], is_killed=index % 3 == 1)
        assert len(writer_names(disk, PATH)) <= MERGE_ALONE + 1
    trials = trials_of(disk)
    assert [trial.number for trial in trials] == list(range(len(trials)))
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert [trial.value for trial in complete] == [value for index in range(12) for value in (float(index), index / 2)]
    assert [trial.params["x"] for trial in complete] == [trial.value for trial in complete]
    assert all(trial.user_attrs == {"note": {"a": (1, trial.value)}} for trial in complete)
    assert sum("ckptfmt:lost" in trial.system_attrs for trial in trials) == 4


def test_what_a_merge_leaves_is_equal_to_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = crowded(6)
    with monkeypatch.context() as patch:
        no_merge(patch)
        before = trials_of(disk)
    assert trials_of(disk) == before
    assert len(writer_names(disk, PATH)) == 1
    assert trials_of(disk) == before


def test_ids_of_what_was_deleted_are_not_used_again_after_a_merge() -> None:
    disk = MemoryDisk()
    run_process(disk, [1.0])
    for _ in range(MERGE_ALONE):
        run_process(disk, [1.0])
    log = open_log(disk)
    assert len(writer_names(disk, PATH)) == 1
    assert (log.image.next_study_id, log.image.next_trial_id) == (2, MERGE_ALONE + 2)
    log.close()


def test_while_others_work_more_journals_are_let_be() -> None:
    disk = crowded(MERGE_AMONG_OTHERS - 1)
    worker = open_log(disk)
    # It merged what it found; then many others end beside it.
    new_storage(worker).create_new_trial(0)
    logs = [open_log(disk) for _ in range(MERGE_AMONG_OTHERS)]
    for log in logs:
        add_trial(new_storage(log), 1.0)
    for log in logs[1:]:
        log.close()
    open_log(disk).close()
    assert len(writer_names(disk, PATH)) == MERGE_AMONG_OTHERS + 1
    logs[0].close()
    open_log(disk).close()
    assert len(writer_names(disk, PATH)) == 2


def test_a_process_that_runs_a_trial_goes_on_with_it_through_a_merge() -> None:
    disk = crowded(MERGE_AMONG_OTHERS + 1)
    # Alone it would merge; the worker is there before the others end.
    worker = open_log(disk)
    storage = new_storage(worker)
    running = add_trial(storage, 4.0, state=TrialState.RUNNING)
    for _ in range(MERGE_AMONG_OTHERS):
        log = open_log(disk)
        add_trial(new_storage(log), 2.0)
        log.close()
    count = len(writer_names(disk, PATH))
    merger = open_log(disk)
    assert len(writer_names(disk, PATH)) < count
    storage.set_trial_intermediate_value(running, 4, 0.5)
    storage.set_trial_user_attr(running, "late", True)
    others = new_storage(merger)
    assert others.get_trial(running).intermediate_values == {3: 2.0, 4: 0.5}
    storage.set_trial_state_values(running, TrialState.COMPLETE, [4.0])
    assert others.get_trial(running) == storage.get_trial(running)
    assert others.get_trial(running).user_attrs["late"] is True
    assert storage.get_all_trials(0) == others.get_all_trials(0) == trials_of(disk)
    add_trial(storage, 0.25)
    assert others.get_all_trials(0)[-1].values == [0.25]


def test_the_trial_of_a_process_that_ends_after_a_merge_fails() -> None:
    disk = crowded(1)
    worker = open_log(disk)
    running = add_trial(new_storage(worker), 4.0, state=TrialState.RUNNING)
    for _ in range(MERGE_AMONG_OTHERS):
        log = open_log(disk)
        add_trial(new_storage(log), 2.0)
        log.close()
    open_log(disk).close()
    assert new_storage(open_log(disk)).get_trial(running).state == TrialState.RUNNING
    worker.close()
    trial = next(trial for trial in trials_of(disk) if trial._trial_id == running)
    assert (trial.state, trial.params["x"]) == (TrialState.FAIL, 4.0)
    assert trial.system_attrs["ckptfmt:lost"] is True


class Watched(list[Any]):
    """The list of a recording disk, with somebody who looks after each entry."""

    def __init__(self, look: Callable[[], None]) -> None:
        super().__init__()
        self.look = look
        self.is_looking = False

    def append(self, entry: Any) -> None:
        super().append(entry)
        if not self.is_looking:
            self.is_looking = True
            self.look()
            self.is_looking = False


def fold(disk: Any) -> StudyLedger:
    """What somebody without Optuna reads, who never waits for a turn."""
    ledger = StudyLedger()
    for _, _, record in StudyWriters(disk, PATH).read(is_alone=True).records:
        ledger.add(record, "there", is_shared=True)
    return ledger


def test_readers_see_every_trial_at_every_moment_of_a_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = crowded(6)
    with monkeypatch.context() as patch:
        no_merge(patch)
        old = open_log(disk)
        expected = new_storage(old).get_all_trials(0)
        # This one has read nothing since the second journal was there.
        behind = [open_log(disk) for _ in range(40)]
    looked = 0

    def look() -> None:
        nonlocal looked
        looked += 1
        assert new_storage(old).get_all_trials(0) == expected
        assert [trial.values for trial in fold(disk).studies[0].trials] == [trial.values for trial in expected]
        if behind:
            reader = behind.pop()
            reader._writers.restart()
            assert new_storage(reader).get_all_trials(0) == expected

    recording = RecordingDisk(disk)
    recording.records = watched = Watched(look)
    merger = open_log(recording)
    watched.is_looking = True
    assert looked > 15
    assert len(writer_names(disk, PATH)) == 1
    add_trial(new_storage(merger), 0.5)
    assert len(new_storage(old).get_all_trials(0)) == len(expected) + 1


class FullDisk(RecordingDisk):
    """A disk on which nothing can be made after a while."""

    def open_directory(self, path: str) -> Any:
        directory = super().open_directory(path)
        if "writer-" in path:
            directory.create = self.refuse  # type: ignore[method-assign]
        return directory

    def refuse(self, name: str, **_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device", name)


def test_a_full_disk_keeps_nobody_from_opening_a_study() -> None:
    disk = crowded(6)
    assert len(trials_of(FullDisk(disk))) == 6
    assert len([trial for trial in trials_of(disk) if trial.state == TrialState.COMPLETE]) == 6


def test_a_salvaged_journal_keeps_what_was_set_aside_through_a_merge() -> None:
    disk = crowded(5)
    kept = f"{PATH}/{writer_names(disk, PATH)[1]}"
    file = disk.open_directory(kept).create("set-aside-00000001-01020304-01020304.journal", size_bytes=4)
    file.write(b"mine")
    file.close()
    before = trials_of(disk)
    assert len(writer_names(disk, PATH)) == 2
    assert disk.open_directory(kept).names() == ["set-aside-00000001-01020304-01020304.journal"]
    assert trials_of(disk) == before


def test_a_merge_that_is_shorter_than_it_says_is_an_error() -> None:
    disk = crowded(5)
    trials_of(disk)
    (name,) = writer_names(disk, PATH)
    records = [record for _, record in read_journal(disk, f"{PATH}/{name}").iter_records()]
    with Journal.open_for_append(disk, f"{PATH}/{name}") as journal:
        journal.compact(records[:-1])
    for _ in range(2):
        with pytest.raises(CorruptError, match=r"records after merged are missing: expected 6, found 5 \[E058\]"):
            open_log(disk)
