"""Several processes at one progress: claims, journals of their own, and what is left of those that were killed."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

import ckptfmt
from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.refusals import LOCK_REFUSALS
from ckptfmt.run import at_exit, progress_claims
from ckptfmt.run.progress import Progress
from ckptfmt.run.progress_claims import Claims

PATH = "/run/progress/work"


def opened(disk: MemoryDisk, **options: Any) -> Progress:
    return Progress(disk, PATH, "work", **options)


def kill(disk: MemoryDisk) -> None:
    """What is open stays as it is, holds no lock any more, and is not closed at exit."""
    disk._store.lockers.clear()
    at_exit._open.clear()


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk()


def test_two_that_work_at_the_same_time_share_the_keys(disk: MemoryDisk) -> None:
    with opened(disk) as first, opened(disk) as second:
        ours, theirs = first.pending(range(6)), second.pending(range(6))
        for turn in range(3):
            assert next(ours) == 2 * turn
            assert next(theirs) == 2 * turn + 1
            first.done(2 * turn, "first")
            second.done(2 * turn + 1, "second")
        assert list(ours) == list(theirs) == []
        assert first.results() == second.results() == {key: ("first", "second")[key % 2] for key in range(6)}
        assert (first.completed, second.completed) == (6, 6)


def test_what_another_has_finished_is_not_handed_out(disk: MemoryDisk) -> None:
    with opened(disk) as first, opened(disk) as second:
        loop = second.pending(range(5))
        assert next(loop) == 0
        for key in (1, 2, 3):
            first.done(key)
        assert list(loop) == [4]


def test_the_claims_of_a_killed_process_lapse_at_once_and_the_loop_comes_back_to_them(disk: MemoryDisk) -> None:
    killed = opened(disk)
    assert next(killed.pending(range(4), batch_size=2)) == [0, 1]
    with opened(disk) as progress:
        loop = progress.pending(range(4))
        assert [next(loop), next(loop)] == [2, 3]
        kill(disk)
        assert list(loop) == [0, 1]


def test_whoever_only_looks_does_not_keep_the_claims_of_a_killed_process_alive(disk: MemoryDisk) -> None:
    killed = opened(disk)
    assert next(killed.pending(range(2))) == 0
    kill(disk)
    with opened(disk) as reader, opened(disk) as worker:
        assert reader.results() == {}
        assert list(worker.pending(range(2))) == [0, 1]


def test_a_loop_does_not_wait_for_others_unless_it_is_asked_to(disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(disk) as other, opened(disk) as progress:
        theirs = other.pending(range(2))
        assert next(theirs) == 0
        assert list(progress.pending(range(2))) == [1]
        naps = []

        def nap(seconds: float) -> None:
            naps.append(seconds)
            if len(naps) == 3:
                other.done(0, "late")

        monkeypatch.setattr("ckptfmt.run.progress_pending.time.sleep", nap)
        progress.done(1)
        assert list(progress.pending(range(2), wait=True)) == []
        assert len(naps) == 3
        assert list(progress.results().items()) == [(1, None), (0, "late")]


def test_a_new_process_takes_over_the_journal_of_a_killed_one(disk: MemoryDisk) -> None:
    for key in range(5):
        progress = opened(disk)
        assert next(progress.pending(range(5))) == key
        progress.done(key)
        kill(disk)
    assert len(disk.open_directory(f"{PATH}/writers").names()) == 1
    assert len(disk.open_directory(f"{PATH}/claims").names()) == 1


def test_of_two_results_of_one_unit_the_earlier_stays_and_the_later_is_told(disk: MemoryDisk) -> None:
    with opened(disk) as first, opened(disk) as second:
        first.done("unit", 1)
        second.done("unit", 1)
        with pytest.raises(ckptfmt.CheckpointExistsError, match="with another result"):
            second.done("unit", 2)
        assert second.results() == {"unit": 1}


def test_a_unit_that_another_has_done_without_asking_is_told_to_who_had_claimed_it(disk: MemoryDisk) -> None:
    with opened(disk) as first, opened(disk) as second:
        assert next(first.pending("a")) == "a"
        second.done("a", "of the second")
        with pytest.raises(ckptfmt.CheckpointExistsError):
            first.done("a", "of the first")
        assert first.results() == {"a": "of the second"}


def test_failures_of_several_processes_are_counted_together(disk: MemoryDisk) -> None:
    with opened(disk, max_attempts=2) as first, opened(disk, max_attempts=2) as second:
        assert next(first.pending("a")) == "a"
        first.fail("a", "one")
        assert next(second.pending("a")) == "a"
        second.fail("a", "two")
        assert list(first.pending("a")) == []
        assert first.failed["a"].attempts == 2


def test_claims_are_rewritten_when_most_of_them_are_over(disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_claims, "_FULL_BYTES", 100)
    with opened(disk) as progress, opened(disk) as other:
        loop = progress.pending(range(100))
        assert next(loop) == 0
        for key in loop:
            if key == 60:
                break
            progress.done(key)
        (name,) = [name for name, data in disk.contents().items() if name.endswith(".claims")]
        assert len(disk.contents()[name] or b"") < 500
        # 0 was handed out and neither finished nor left, and so it is with the 60 that the loop still holds.
        assert list(other.pending(range(63))) == [61, 62]


def test_without_locks_claims_are_leases_and_every_process_has_a_journal_of_its_own(
    disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("ckptfmt.run.progress_claims.time.time", lambda: now[0])

    def without_locks(progress: Progress) -> Progress:
        for nth in range(1, 200):
            disk.faults.fail("lock", next(iter(LOCK_REFUSALS)), nth=nth)
        return progress

    without_locks(opened(disk)).close()
    first = opened(disk)
    assert next(first.pending(range(3))) == 0
    second = opened(disk)
    assert next(second.pending(range(3))) == 1
    now[0] += progress_claims.LEASE_SECONDS + 1
    assert next(opened(disk).pending(range(3))) == 0
    kill(disk)
    assert len(disk.open_directory(f"{PATH}/writers").names()) == 3


def test_a_turn_that_never_comes_is_an_error_that_says_so(disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(disk) as progress:
        progress.done(0)
        claims = Claims(disk, f"{PATH}/claims", f"{PATH}/writers", "0" * 16)
        monkeypatch.setattr(progress_claims, "_WAIT_SECONDS", 0.01)
        with claims.turn(), pytest.raises(ckptfmt.RunLockedError, match="has kept this locked"):
            next(progress.pending(range(3)))
        assert list(progress.pending(range(3))) == [1, 2]
        claims.close(is_owner=True)


def test_a_forked_child_is_refused_and_leaves_its_parent_alone(tmp_path: Any) -> None:
    progress = Progress(LocalDisk(), str(tmp_path / "work"), "work")
    loop = progress.pending(range(3))
    assert next(loop) == 0
    child = os.fork()
    if child == 0:
        status = 1
        try:
            progress.done(0)
        except ValueError as error:
            status = 0 if "another process" in str(error) else 2
        progress.close()
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    with Progress(LocalDisk(), str(tmp_path / "work"), "work") as other:
        assert list(other.pending(range(2))) == [1]
    progress.done(0)
    progress.close()


def test_dead_records_are_left_out_when_they_are_the_most(disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckptfmt.run.progress_writers._COMPACT_RECORDS", 20)
    with opened(disk, max_attempts=None, total=7) as progress:
        for attempt in range(30):
            progress.fail("a", f"attempt {attempt}")
        progress.done("b", 1, {"x": 2})
    before = sum(map(len, filter(None, disk.contents().values())))
    with opened(disk, max_attempts=5) as progress:
        assert sum(map(len, filter(None, disk.contents().values()))) < before / 3
        assert progress.failed["a"].error == "attempt 29"
    with opened(disk, max_attempts=5) as progress:
        assert (progress.results(), progress.failed["a"].attempts, progress.total) == ({"b": 1}, 30, 7)


def test_many_sessions_do_not_leave_many_files(disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckptfmt.run.progress_writers._COMPACT_SEGMENTS", 5)
    for key in range(23):
        with opened(disk) as progress:
            progress.done(key, key)
    assert len([name for name in disk.contents() if name.endswith(".journal")]) <= 6
    with opened(disk) as progress:
        assert progress.results() == {key: key for key in range(23)}


def test_a_compaction_that_a_full_disk_stops_keeps_nobody_from_going_on(disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckptfmt.run.progress_writers._COMPACT_SEGMENTS", 1)
    with opened(disk) as progress:
        progress.done(1)
    disk.faults.fail("write", errno.ENOSPC)
    with opened(disk) as progress:
        assert progress.completed == 1
        progress.done(2)


def test_what_a_killed_process_left_of_a_unit_is_removed_when_the_unit_is_done(disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = opened(disk)
    next(killed.pending(["fold"]))

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(killed._session, "record_done", die)
    with pytest.raises(KeyboardInterrupt):
        killed.done("fold", 1, state={"epoch": 1})
    kill(disk)
    with opened(disk) as progress:
        for fold in progress.pending(["fold"]):
            progress.done(fold, 2, state={"epoch": 2})
        assert len([name for name in disk.contents() if name.endswith("manifest.json")]) == 1
        assert progress.result("fold") == 2
