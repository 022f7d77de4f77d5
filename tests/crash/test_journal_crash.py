"""P6 under every crash: what was flushed is there, what is there is a prefix of what was appended, and the next writer works.

Each workload is recorded once; every state that a kill or a power cut may leave of it is read by the real reader and continued by the real
writer. Then steps are taken out of the code one by one, and each time the same check must find a state that breaks a promise.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator

import pytest

from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.paths import make_directories
from ckptfmt.disk.protocol import Disk
from ckptfmt.disk.recording import RecordingDisk, RecordingWritableFile
from ckptfmt.errors import CorruptError
from ckptfmt.format.journal_record import RECORD_OVERHEAD_BYTES, encode_value
from ckptfmt.run import journal_chain, journal_scan, journal_snapshot
from ckptfmt.run.journal import Journal
from ckptfmt.run.journal_chain import Chain
from ckptfmt.run.journal_reader import read_journal, verify_journal
from ckptfmt.run.journal_salvage import salvage
from tests.crash.crash_states import CrashState, iter_states

PATH = "/study/journal"


def value(index: int) -> dict[str, object]:
    """A record that is longer than a sector every third time."""
    return {"index": index, "text": f"{index:03d}" * (250 if index % 3 == 2 else 30)}


class Script:
    """A writer's work, with the model of it: each generation's values in the order in which they were appended.

    A mark says which generation had how many acknowledged records.
    """

    def __init__(self, disk: RecordingDisk, before: list[object] | None = None) -> None:
        self.disk = disk
        self.generations: list[list[object]] = [list(before or [])]
        self.minimums = [0]
        self._next_index = len(self.generations[0])
        self._journal: Journal | None = None

    @property
    def journal(self) -> Journal:
        if self._journal is None:
            self._journal = Journal.open_for_append(self.disk, PATH)
        return self._journal

    def append(self, count: int = 1) -> None:
        for _ in range(count):
            self.generations[-1].append(value(self._next_index))
            self.journal.append(value(self._next_index))
            self._next_index += 1

    def flush(self) -> None:
        self.journal.flush()
        self._acknowledge()

    def compact(self, count: int) -> None:
        self.generations.append(self.generations[-1][-count:] if count else [])
        self.minimums.append(count)
        self.journal.compact(self.generations[-1])
        self._acknowledge()

    def kill(self) -> None:
        """Stop without a word; what was written is visible and not durable."""
        self._journal = None

    def close(self) -> None:
        self.journal.close()
        self._acknowledge()
        self._journal = None

    def _acknowledge(self) -> None:
        self.disk.record_mark(f"{len(self.generations) - 1} {len(self.generations[-1])}")


def first_append(script: Script) -> None:
    script.append()
    script.flush()


def several_flushes(script: Script) -> None:
    for count in (1, 3, 2):
        script.append(count)
        script.flush()
    script.append(2)
    script.close()


def restart_after_kill(script: Script) -> None:
    script.append(2)
    script.flush()
    script.append(2)
    script.kill()
    script.append(2)
    script.flush()
    script.kill()
    script.append()
    script.kill()
    script.append()
    script.close()


def restart_after_nothing_was_flushed(script: Script) -> None:
    script.append(3)
    script.kill()
    script.append()
    script.kill()
    script.append()
    script.flush()


def compaction(script: Script) -> None:
    script.append(3)
    script.flush()
    script.append()
    script.compact(2)
    script.append(2)
    script.flush()


def compaction_of_several_sessions(script: Script) -> None:
    script.append(2)
    script.close()
    script.append(2)
    script.flush()
    script.kill()
    script.compact(3)
    script.kill()
    script.append()
    script.flush()
    script.compact(0)
    script.append()
    script.close()


def failed_flush(script: Script) -> None:
    script.append(2)
    script.flush()
    script.append(2)
    script.disk._inner.faults.fail("sync", 5)
    with pytest.raises(OSError, match="Input/output"):
        script.flush()
    script.append()
    script.flush()
    script.disk._inner.faults.fail("sync_directory", 5)
    script.kill()
    with pytest.raises(OSError, match="Input/output"):
        script.journal.append("never")
    script.append()
    script.flush()


WORKLOADS = [
    first_append,
    several_flushes,
    restart_after_kill,
    restart_after_nothing_was_flushed,
    compaction,
    compaction_of_several_sessions,
    failed_flush,
]


def run(workload: Callable[[Script], None], initial: MemoryDisk | None = None, before: list[object] | None = None) -> Script:
    script = Script(RecordingDisk(MemoryDisk(initial.tree() if initial else None)), before)
    workload(script)
    return script


def values_of(disk: Disk) -> list[object]:
    try:
        content = read_journal(disk, PATH)
    except FileNotFoundError:
        return []
    values = [found for _, found in content.iter_records()]
    assert content.sound_count == len(values)
    return values


def check(script: Script, state: CrashState) -> None:
    """Check the promises on one state."""
    generation, count = map(int, state.acknowledged_marks[-1].split()) if state.acknowledged_marks else (0, 0)
    found = values_of(state.disk)
    allowed = [
        found == values[: len(found)] and len(found) >= (count if index == generation else script.minimums[index])
        for index, values in enumerate(script.generations)
        if index >= generation
    ]
    assert any(allowed), f"{len(found)} records, acknowledged {count}: {state.description}"
    with Journal.open_for_append(state.disk, PATH) as again:
        assert [value for _, value in again.iter_records()] == found
        again.append("next")
    assert values_of(state.disk) == [*found, "next"]
    assert not [finding for finding in verify_journal(state.disk, PATH) if finding.level == "error"]


def check_all(workload: Callable[[Script], None], *, weak: bool = True) -> None:
    script = run(workload)
    for state in states(script, weak=weak):
        check(script, state)


def states(script: Script, *, weak: bool, initial: MemoryDisk | None = None, limit: int | None = None) -> Iterator[CrashState]:
    return iter_states(script.disk.records, (initial or MemoryDisk()).tree(), weak=weak, limit=limit)


@pytest.mark.parametrize("weak", [True, False], ids=["weak", "ordered"])
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.__name__)
def test_every_state_after_a_crash_holds_what_was_flushed(workload: Callable[[Script], None], weak: bool) -> None:
    check_all(workload, weak=weak)


@pytest.mark.parametrize("weak", [True, False], ids=["weak", "ordered"])
def test_a_second_crash_on_top_of_a_first_one_loses_nothing_either(weak: bool) -> None:
    script = run(several_flushes)
    for state in states(script, weak=weak, limit=25):
        before = values_of(state.disk)
        second = run(restart_after_kill, state.disk, before)
        for later in states(second, weak=weak, initial=state.disk, limit=25):
            # What the first crash left on the disk is durable, so it counts as acknowledged.
            assert values_of(later.disk)[: len(before)] == before
            check(second, later)


def damaged_journal() -> MemoryDisk:
    """A journal that was closed, with a flipped bit in the middle."""
    script = run(several_flushes)
    path, content = next((path, content) for path, content in script.disk._inner.contents().items() if content)
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 1
    disk = MemoryDisk()
    make_directories(disk, PATH)
    file = disk.open_directory(PATH).create(path.rpartition("/")[2], size_bytes=0)
    file.write(damaged)
    file.close()
    return disk


@pytest.mark.parametrize("weak", [True, False], ids=["weak", "ordered"])
def test_a_crash_during_salvage_leaves_the_damage_or_the_prefix_and_every_byte(weak: bool) -> None:
    initial = damaged_journal()
    original = next(content for content in initial.contents().values() if content)
    disk = RecordingDisk(MemoryDisk(initial.tree()))
    report = salvage(disk, PATH)
    kept = values_of(disk)
    assert kept == [value(index) for index in range(report.kept_count)]
    assert len(kept) > 1
    for state in iter_states(disk.records, initial.tree(), weak=weak):
        assert original in state.disk.contents().values()
        try:
            assert values_of(state.disk) == kept
        except CorruptError:
            salvage(state.disk, PATH)
            assert values_of(state.disk) == kept
        with Journal.open_for_append(state.disk, PATH) as again:
            again.append("next")
        assert values_of(state.disk) == [*kept, "next"]


def spliced_journals() -> Iterator[MemoryDisk]:
    """Journals whose records are each sound by themselves, and not in the order in which they were written."""
    script = Script(RecordingDisk(MemoryDisk()))
    script.append(4)
    script.flush()
    path, content = next((path, content) for path, content in script.disk._inner.contents().items() if content)
    records, end = [], len(content)
    for index in reversed(range(4)):
        size_bytes = RECORD_OVERHEAD_BYTES + len(encode_value(value(index)))
        records.insert(0, content[end - size_bytes : end])
        end -= size_bytes
    for order in ([0, 2, 1, 3], [0, 2, 3], [0, 1, 1, 2, 3], [1, 0, 2, 3], [1, 2, 3], [0, 1, 2, 0]):
        disk = MemoryDisk()
        make_directories(disk, PATH)
        file = disk.open_directory(PATH).create(path.rpartition("/")[2], size_bytes=0)
        file.write(content[:end] + b"".join(records[index] for index in order))
        file.close()
        yield disk


def test_records_that_do_not_follow_each_other_are_refused() -> None:
    for disk in spliced_journals():
        with pytest.raises(CorruptError) as caught:
            values_of(disk)
        assert caught.value.rule == "E055"


Mutant = Callable[[pytest.MonkeyPatch], None]


def without(owner: object, name: str, *changes: tuple[str, str]) -> Mutant:
    """Return a mutant: a function in whose source some text is replaced."""

    def apply(monkeypatch: pytest.MonkeyPatch) -> None:
        function = getattr(owner, name)
        users = [module for module in (owner, journal_scan) if getattr(module, name, None) is function]
        source = textwrap.dedent(inspect.getsource(function))
        for text, instead in changes:
            assert source.count(text) == 1, f"{name} has not one {text!r}"
            source = source.replace(text, instead)
        scope: dict[str, object] = {}
        exec(f"from __future__ import annotations\n{source}", function.__globals__, scope)
        for user in users:
            monkeypatch.setattr(user, name, scope[name])

    return apply


def both(*mutants: Mutant) -> Mutant:
    """Return a mutant with the faults of several."""

    def apply(monkeypatch: pytest.MonkeyPatch) -> None:
        for mutant in mutants:
            mutant(monkeypatch)

    return apply


def no_file_is_ever_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RecordingWritableFile, "sync", lambda self: None)


def the_next_session_trusts_what_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Chain, "find_base", lambda self, is_durable: self.position)


no_file_sync_when_flushing = without(Journal, "_commit", ("segment.file.sync()", "pass"))
no_directory_sync_when_flushing = without(Journal, "_commit", ("self._directory.sync()", "pass"))
no_file_sync_of_a_snapshot = without(journal_snapshot, "_write_file", ("        file.sync()\n", ""))
no_sync_before_removal = without(Journal, "_remove_replaced", ("self._directory.sync()", "pass"))
removal_before_the_rename_is_durable = both(no_sync_before_removal, without(Journal, "replace", ("self._directory.sync()", "pass")))
no_digest_check = without(journal_chain, "take_records", ("link != data[end:needed]", "False"))
repeats_may_be_missing = without(journal_chain, "is_complete", ("header.kind != SNAPSHOT", "False"))
a_sound_record_behind_is_damage = without(journal_scan, "_check_acknowledged", ("record.acknowledged", "record.number"))
no_chain_check = without(journal_chain, "take_records", ("previous != link or found_number != number + 1 or ", ""))


@pytest.mark.parametrize(
    ("mutant", "workload"),
    [
        pytest.param(no_file_is_ever_synced, first_append, id="no file sync at all"),
        pytest.param(no_file_sync_when_flushing, first_append, id="no file sync when flushing"),
        pytest.param(no_directory_sync_when_flushing, first_append, id="no directory sync on creation"),
        pytest.param(no_file_sync_of_a_snapshot, compaction, id="no file sync of a snapshot"),
        pytest.param(removal_before_the_rename_is_durable, compaction, id="removal before the rename is durable"),
        pytest.param(no_digest_check, several_flushes, id="no digest check"),
        pytest.param(repeats_may_be_missing, restart_after_kill, id="half of what is repeated is enough"),
        pytest.param(a_sound_record_behind_is_damage, several_flushes, id="a sound record behind a bad one is damage"),
        pytest.param(the_next_session_trusts_what_is_visible, restart_after_kill, id="nothing is repeated"),
    ],
)
def test_without_this_step_a_crash_breaks_the_promise(
    mutant: Mutant, workload: Callable[[Script], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    with pytest.raises((AssertionError, CorruptError)):
        check_all(workload)


def test_without_the_chain_check_spliced_records_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    no_chain_check(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test_records_that_do_not_follow_each_other_are_refused()
