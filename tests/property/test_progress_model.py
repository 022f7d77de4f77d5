"""Random work of two processes on one progress against a dictionary: loops, results, failures, kills, failing disks."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import ckptfmt
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.run import at_exit, progress_writers
from ckptfmt.run.progress import Progress
from ckptfmt.run.progress_reader import summarise_progress, verify_progress

PATH = "/run/progress/work"
KEYS: list[Any] = [0, 1, 2, "0", ("a", 1), (0,)]
MAX_ATTEMPTS = 2

WHO = st.integers(0, 1)
FAULTS = st.sampled_from(["create", "write", "sync", "sync_directory", "names", "open", "open_directory", "unlink"])


class ProgressMachine(RuleBasedStateMachine):
    """`results` and `attempts` are what was acknowledged; `maybe` what a call that failed may have left."""

    @initialize(flush_every=st.integers(1, 3), compact_segments=st.sampled_from([2, 3, 64]))
    def begin(self, flush_every: int, compact_segments: int) -> None:
        self.flush_every = flush_every
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(progress_writers, "_COMPACT_SEGMENTS", compact_segments)
        self.disk = MemoryDisk()
        self.open: list[Progress | None] = [None, None]
        self.working: list[set[Any]] = [set(), set()]
        self.results: dict[Any, Any] = {}
        self.attempts: dict[Any, int] = {}
        self.maybe: dict[Any, set[Any]] = {}

    def teardown(self) -> None:
        for who in range(2):
            self.kill(who)
        self.patch.undo()

    def process(self, who: int) -> Progress:
        progress = self.open[who]
        if progress is None:
            self.open[who] = progress = Progress(self.disk, PATH, "work", flush_every=self.flush_every, max_attempts=MAX_ATTEMPTS)
            self.settle(progress)
        return progress

    def settle(self, progress: Progress) -> None:
        """Whether a call that failed has left a record is seen by whoever opens the progress after it."""
        for key, values in self.maybe.items():
            if key not in self.results and progress.is_done(key):
                assert progress.result(key) in values
                self.results[key] = progress.result(key)
        self.maybe.clear()

    @rule(who=WHO, count=st.integers(1, 3))
    def take(self, who: int, count: int) -> None:
        self.disk.faults.clear()
        loop = self.process(who).pending(KEYS, batch_size=count)
        batch = next(loop, [])
        # Held, so that what was handed out is not given back.
        loop._last = []
        expected = [
            key
            for key in KEYS
            if key not in self.results and self.attempts.get(key, 0) < MAX_ATTEMPTS and not any(key in working for working in self.working)
        ]
        assert batch == expected[:count]
        self.working[who] |= set(batch)

    @rule(who=WHO, key=st.sampled_from(KEYS), value=st.integers(0, 1), fault=st.none() | st.tuples(FAULTS, st.integers(1, 6)))
    def done(self, who: int, key: Any, value: int, fault: tuple[Any, int] | None) -> None:
        self.disk.faults.clear()
        progress = self.process(who)
        if fault is not None:
            self.disk.faults.fail(fault[0], errno.EIO, nth=fault[1])
        try:
            progress.done(key, value, {"value": value})
        except ckptfmt.CheckpointExistsError:
            assert self.results.get(key, value) != value or key in self.maybe
        except OSError:
            if key not in self.results:
                self.maybe.setdefault(key, set()).add(value)
            if self.flush_every > 1:
                # What was not flushed is only promised again once a flush succeeds.
                self.disk.faults.clear()
                progress.flush()
            self.kill(who)
        else:
            assert self.results.setdefault(key, value) == value
            for working in self.working:
                working.discard(key)

    @rule(who=WHO, key=st.sampled_from(KEYS))
    def fail(self, who: int, key: Any) -> None:
        self.disk.faults.clear()
        if key in self.working[who]:
            self.process(who).fail(key, "no")
            self.attempts[key] = self.attempts.get(key, 0) + 1
            self.working[who].discard(key)

    @rule(who=WHO)
    def kill(self, who: int) -> None:
        """The process is gone; what it wrote stays."""
        self.disk.faults.clear()
        progress, self.open[who], self.working[who] = self.open[who], None, set()
        if progress is not None:
            at_exit.forget(progress)
            lock = progress._session._writers._lock
            if lock is not None:
                lock.close()

    @rule(who=WHO)
    def close(self, who: int) -> None:
        self.disk.faults.clear()
        progress, self.open[who], self.working[who] = self.open[who], None, set()
        if progress is not None:
            progress.close()

    @invariant()
    def everybody_sees_what_is_done(self) -> None:
        self.disk.faults.clear()
        if not any(name.endswith(".journal") for name in self.disk.contents()):
            assert not self.results
            return
        assert [finding for finding in verify_progress(self.disk, PATH) if finding.level == "error"] == []
        with Progress(self.disk, PATH, "work", max_attempts=MAX_ATTEMPTS) as other:
            self.settle(other)
            assert other.results() == self.results
            assert {key: failure.attempts for key, failure in other.failed.items()} == {
                key: count for key, count in self.attempts.items() if count >= MAX_ATTEMPTS and key not in self.results
            }
            values = list(self.results.values())
            if values:
                assert (other.aggregate["value"].count, other.aggregate["value"].sum) == (len(values), sum(values))
        assert summarise_progress(self.disk, PATH).done == len(self.results)


ProgressMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestProgressAgainstADictionary = ProgressMachine.TestCase


@pytest.mark.slow
def test_progress_against_a_dictionary_for_long() -> None:
    class Long(ProgressMachine):
        pass

    Long.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
    Long.TestCase().runTest()
