"""Random work on a journal against a list: appends, flushes, kills, failing disks, compactions, a follower; and two writers at once."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.errors import CorruptError, DurabilityUnknownError, NotEnoughSpaceError, RunLockedError
from ckptfmt.run.journal import Journal
from ckptfmt.run.journal_follower import JournalFollower
from ckptfmt.run.journal_reader import read_journal, verify_journal
from ckptfmt.run.journal_salvage import salvage

PATH = "/journal"

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
FAULTS = st.sampled_from(["create", "write", "sync", "sync_directory", "names", "rename", "unlink", "open", "close", "open_directory"])


def values_in(disk: MemoryDisk) -> list[object]:
    return [value for _, value in read_journal(disk, PATH).iter_records()]


class JournalMachine(RuleBasedStateMachine):
    """`values` is what the session has, `acknowledged` how many of them are flushed, `possible` what a kill may leave besides."""

    @initialize(durable=st.booleans())
    def begin(self, durable: bool) -> None:
        self.durable = durable
        self.disk = MemoryDisk()
        self.values: list[object] = []
        self.acknowledged = 0
        self.possible: list[list[object]] = []
        self.journal: Journal | None = self.opened()
        self.follower = JournalFollower(self.disk, PATH)
        self.followed: list[object] = []

    def opened(self) -> Journal:
        return Journal.open_for_append(self.disk, PATH, durable=self.durable)

    @rule(value=VALUES)
    def append(self, value: object) -> None:
        self.try_to(lambda: self.session.append(value), lambda: self.values.append(value), attempt=[*self.values, value])

    @rule(value=VALUES)
    def append_and_flush(self, value: object) -> None:
        def appended() -> None:
            self.values.append(value)
            self.flushed()

        self.try_to(lambda: self.session.append(value, flush=True), appended, attempt=[*self.values, value])

    @rule()
    def flush(self) -> None:
        self.try_to(self.session.flush, self.flushed)

    @rule(count=st.integers(0, 5))
    def compact(self, count: int) -> None:
        kept = self.values[-count:] if count else []

        def compacted() -> None:
            self.values = list(kept)
            self.flushed()
            self.possible = []

        try:
            self.try_to(lambda: self.session.compact(kept), compacted)
        except DurabilityUnknownError:
            compacted()

    @property
    def session(self) -> Journal:
        if self.journal is None:
            self.disk.faults.clear()
            self.journal = self.opened()
            found = [value for _, value in self.journal.iter_records()]
            candidates = [self.values, *self.possible]
            assert found[: self.acknowledged] == self.values[: self.acknowledged]
            assert any(found == candidate[: len(found)] for candidate in candidates)
            self.values = found
            self.possible = []
        return self.journal

    def flushed(self) -> None:
        self.acknowledged = len(self.values)

    def try_to(self, step: Callable[[], object], done: Callable[[], None], attempt: list[object] | None = None) -> None:
        try:
            step()
        except DurabilityUnknownError:
            raise
        except OSError:
            if attempt is not None:
                self.possible.append(attempt)
        else:
            done()

    @rule()
    def kill(self) -> None:
        self.journal = None

    @rule()
    def close(self) -> None:
        session = self.session
        self.journal = None
        self.try_to(session.close, self.flushed)

    @rule(kind=FAULTS, nth=st.integers(1, 3), after=st.booleans())
    def plan_a_failure(self, kind: str, nth: int, after: bool) -> None:
        self.disk.faults.clear()
        plan = self.disk.faults.fail_after if after else self.disk.faults.fail
        plan(kind, errno.EIO, nth=nth)  # type: ignore[arg-type]

    @rule()
    def turn_durability(self) -> None:
        self.kill()
        self.durable = not self.durable

    @precondition(lambda self: self.journal is None)
    @rule()
    def tear(self) -> None:
        """The machine of a killed writer tears what was not flushed: a new disk with bytes behind the last segment."""
        self.disk.faults.clear()
        tree = self.disk.tree()
        names = [name for name in self.disk.open_directory(PATH).names() if name.startswith("segment")]
        if names:
            inode = next(entries[names[-1]] for entries in tree.directories.values() if names[-1] in entries)
            self.disk = MemoryDisk(type(tree)(tree.directories, {**tree.files, inode: tree.files[inode] + b"torn"}))
            self.follower = JournalFollower(self.disk, PATH)
            self.followed = []

    @rule()
    def poll(self) -> None:
        self.disk.faults.clear()
        update = self.follower.poll()
        if update.is_restarted:
            self.followed = []
        self.followed += [value for _, value in update.records]
        assert self.followed == values_in(self.disk)

    @invariant()
    def what_was_flushed_is_there(self) -> None:
        self.disk.faults.clear()
        found = values_in(self.disk)
        assert found[: self.acknowledged] == self.values[: self.acknowledged]
        assert [finding for finding in verify_journal(self.disk, PATH) if finding.level == "error"] == []


JournalMachine.TestCase.settings = settings(stateful_step_count=30)
TestJournalAgainstAList = JournalMachine.TestCase


STEPS = st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["append", "append", "flush", "open", "compact", "close"])), max_size=24)


@given(steps=STEPS)
def test_two_writers_without_a_lock_lose_nothing_in_silence(steps: list[tuple[int, str]]) -> None:
    disk = MemoryDisk()
    journals: list[Journal | None] = [None, None]
    own: list[list[object]] = [[], []]
    acknowledged: set[object] = set()
    for index, (who, step) in enumerate(steps):
        try:
            journal = journals[who]
            if journal is None or step == "open":
                journals[who] = journal = Journal.open_for_append(disk, PATH)
                own[who] = [value for _, value in journal.iter_records()]
            if step == "append":
                journal.append(index)
                own[who].append(index)
            elif step == "flush":
                journal.flush()
                acknowledged |= set(own[who])
            elif step == "compact":
                journal.compact(own[who])
                acknowledged |= set(own[who])
            elif step == "close":
                journals[who] = None
                journal.close()
                acknowledged |= set(own[who])
        except (RunLockedError, CorruptError):
            journals[who] = None
    try:
        found = values_in(disk) if any(disk.contents()) else []
    except CorruptError:
        report = salvage(disk, PATH)
        found = [*values_in(disk), *(value for _, value in report.others)]
    assert acknowledged <= set(found)


def test_two_writers_that_began_at_the_same_point_are_found_out() -> None:
    disk = MemoryDisk()
    first, second = Journal.open_for_append(disk, PATH), Journal.open_for_append(disk, PATH)
    first.append("of the first", flush=True)
    with pytest.raises(RunLockedError, match="another process is writing to this journal"):
        second.append("of the second")
    with pytest.raises(RunLockedError):
        second.append("again")
    first.append("more of the first", flush=True)
    assert values_in(disk) == ["of the first", "more of the first"]


def test_two_writers_that_do_not_see_each_other_are_found_out_by_every_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journal, "_check_alone", lambda self, sizes: None)
    disk = MemoryDisk()
    first, second = Journal.open_for_append(disk, PATH), Journal.open_for_append(disk, PATH)
    first.append("of the first", flush=True)
    second.append("of the second", flush=True)
    with pytest.raises(CorruptError, match="two writers") as caught:
        values_in(disk)
    assert caught.value.rule == "E056"
    report = salvage(disk, PATH)
    assert sorted([*values_in(disk), *(value for _, value in report.others)], key=str) == ["of the first", "of the second"]


def test_a_writer_that_goes_on_after_another_took_over_is_found_out_by_every_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journal, "_check_alone", lambda self, sizes: None)
    disk = MemoryDisk()
    first = Journal.open_for_append(disk, PATH)
    first.append("one", flush=True)
    second = Journal.open_for_append(disk, PATH)
    second.append("two", flush=True)
    first.append("lost?", flush=True)
    with pytest.raises(CorruptError, match="bytes, as a later segment saw it") as caught:
        values_in(disk)
    assert caught.value.rule == "E056"
    assert [value for _, value in salvage(disk, PATH).others] == ["lost?"]


class Stubborn:
    """Some work on a disk of which the n-th operation fails; every step that fails is tried once more."""

    def __init__(self, nth: int, *, after: bool) -> None:
        self.disk = MemoryDisk()
        self.errors: list[OSError] = []
        plan = self.disk.faults.fail_after if after else self.disk.faults.fail
        plan("any", errno.ENOSPC, nth=nth)
        for session in range(2):
            journal = self.do(lambda: Journal.open_for_append(self.disk, PATH))
            self.work(journal, session)

    def do(self, step: Callable[[], Result]) -> Result:
        try:
            return step()
        except OSError as error:
            self.errors.append(error)
            return step()

    def work(self, journal: Journal, session: int) -> None:
        self.do(lambda: journal.append([session, 0]))
        self.do(lambda: journal.append([session, 1]))
        self.do(journal.flush)
        self.do(lambda: journal.append([session, 2]))
        if session:
            self.do(lambda: journal.compact(EXPECTED[:-1]))
            self.do(lambda: journal.append("last"))
        self.do(journal.flush)
        self.do(journal.close)


Result = TypeVar("Result")
EXPECTED: list[object] = [*([session, index] for session in range(2) for index in range(3)), "last"]


@pytest.mark.parametrize("after", [False, True], ids=["without effect", "with effect"])
def test_any_operation_may_fail_once_and_a_retry_of_the_step_works(after: bool) -> None:
    for nth in itertools.count(1):
        work = Stubborn(nth, after=after)
        work.disk.faults.clear()
        assert values_in(work.disk) == EXPECTED, f"operation {nth}"
        assert [finding for finding in verify_journal(work.disk, PATH) if finding.level == "error"] == []
        for error in work.errors:
            assert isinstance(error, NotEnoughSpaceError | DurabilityUnknownError) or error.errno == errno.ENOSPC
            assert getattr(error, "path", None) or error.filename
        if nth > work.disk.faults.calls["any"]:
            break
