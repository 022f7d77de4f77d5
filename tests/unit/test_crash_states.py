"""The crash engine is proven on the replacement of one file, whose every step is known to be needed."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress

import pytest

from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.paths import make_directories
from ckptfmt.disk.recording import RecordingDisk
from tests.crash.crash_states import CrashState, iter_states

OLD = b"old" * 400
NEW = b"new" * 700


def record(job: Callable[[RecordingDisk], None], initial: MemoryDisk) -> RecordingDisk:
    recording = RecordingDisk(MemoryDisk(initial.tree()))
    job(recording)
    return recording


def disk_with_old_file() -> MemoryDisk:
    disk = MemoryDisk()
    directory = disk.open_directory("/")
    file = directory.create("file", size_bytes=len(OLD))
    file.write(OLD)
    file.close()
    return disk


def replace(steps: str) -> Callable[[RecordingDisk], None]:
    """Replace the file by the named steps, in their order, and acknowledge it."""

    def job(disk: RecordingDisk) -> None:
        directory = disk.open_directory("/")
        file = directory.create("tmp", size_bytes=len(NEW))
        file.write(NEW)
        actions: dict[str, Callable[[], None]] = {
            "sync-file": file.sync,
            "rename": lambda: directory.rename("tmp", "file"),
            "sync-directory": directory.sync,
        }
        for step in steps.split():
            actions[step]()
        file.close()
        disk.record_mark("replaced")

    return job


def is_violation(state: CrashState) -> bool:
    content = state.disk.contents().get("/file")
    allowed = [NEW] if "replaced" in state.acknowledged_marks else [OLD, NEW]
    return content not in allowed


def violations(steps: str, *, weak: bool) -> list[CrashState]:
    initial = disk_with_old_file()
    recording = record(replace(steps), initial)
    return [state for state in iter_states(recording.records, initial.tree(), weak=weak) if is_violation(state)]


@pytest.mark.parametrize("weak", [True, False])
def test_full_recipe_of_replacing_a_file_has_no_violation(weak: bool) -> None:
    assert violations("sync-file rename sync-directory", weak=weak) == []


@pytest.mark.parametrize("weak", [True, False])
@pytest.mark.parametrize(
    "steps",
    [
        pytest.param("rename sync-directory", id="no file sync"),
        pytest.param("sync-file rename", id="no directory sync"),
        pytest.param("rename sync-file sync-directory", id="rename before file sync"),
        pytest.param("sync-file sync-directory rename", id="directory sync before rename"),
    ],
)
def test_each_broken_recipe_shows_violations(steps: str, weak: bool) -> None:
    assert violations(steps, weak=weak)


def test_the_kill_state_of_every_cut_is_what_was_visible_then() -> None:
    initial = disk_with_old_file()
    recording = record(replace("sync-file rename sync-directory"), initial)
    killed = {s.cut_index: s.disk.contents() for s in iter_states(recording.records, initial.tree()) if "killed" in s.description}
    assert killed[0] == {"/file": OLD}
    assert killed[1] == {"/file": OLD, "/tmp": b""}
    assert killed[2] == {"/file": OLD, "/tmp": NEW}
    assert killed[4] == {"/file": NEW}


def test_unsynced_bytes_come_whole_missing_halved_zeroed_and_torn() -> None:
    content = bytes(range(1, 251)) * 8

    def job(disk: RecordingDisk) -> None:
        directory = disk.open_directory("/")
        file = directory.create("file", size_bytes=len(content))
        directory.sync()
        file.write(content)
        file.close()

    recording = record(job, MemoryDisk())
    found = {state.disk.contents().get("/file") for state in iter_states(recording.records, MemoryDisk().tree()) if state.cut_index == 3}
    sectors = [content[start : start + 512] for start in range(0, len(content), 512)]
    torn = b"".join(bytes(len(sector)) if index % 2 == 0 else sector for index, sector in enumerate(sectors))
    assert {content, content[:1000], bytes(2000), content[:1000] + bytes(1000), torn} <= found
    assert b"" in {state.disk.contents().get("/file") for state in iter_states(recording.records, MemoryDisk().tree())}


def test_synced_bytes_are_always_there() -> None:
    def job(disk: RecordingDisk) -> None:
        directory = disk.open_directory("/")
        file = directory.create("journal", size_bytes=0)
        file.write(b"a" * 1000)
        file.sync()
        directory.sync()
        disk.record_mark("first")
        file.write(b"b" * 1000)
        file.close()

    recording = record(job, MemoryDisk())
    states = [state for state in iter_states(recording.records, MemoryDisk().tree()) if state.acknowledged_marks]
    contents = [state.disk.contents()["/journal"] or b"" for state in states]
    assert all(content.startswith(b"a" * 1000) for content in contents)
    assert len(set(contents)) >= 5


def test_a_new_directory_is_lost_with_its_contents_until_its_parent_is_synced() -> None:
    def job(disk: RecordingDisk) -> None:
        disk.make_directory("/run")
        directory = disk.open_directory("/run")
        file = directory.create("file", size_bytes=1)
        file.write(b"x")
        file.sync()
        file.close()
        directory.sync()
        disk.record_mark("before")
        disk.open_directory("/").sync()
        disk.record_mark("after")

    recording = record(job, MemoryDisk())
    found: dict[tuple[str, ...], list[dict[str, bytes | None]]] = {}
    for state in iter_states(recording.records, MemoryDisk().tree()):
        found.setdefault(state.acknowledged_marks, []).append(state.disk.contents())
    whole = {"/run": None, "/run/file": b"x"}
    assert {} in found[("before",)]
    assert found[("before", "after")] == [whole]


def test_make_directories_leaves_only_durable_levels_below_the_deepest() -> None:
    def job(disk: RecordingDisk) -> None:
        make_directories(disk, "/a/b/c")
        disk.record_mark("made")

    recording = record(job, MemoryDisk())
    for state in iter_states(recording.records, MemoryDisk().tree()):
        if state.acknowledged_marks:
            assert "/a/b/c" in state.disk.contents()


def test_the_weak_model_reorders_names_and_the_ordered_model_does_not() -> None:
    def job(disk: RecordingDisk) -> None:
        directory = disk.open_directory("/")
        for name in ("first", "second"):
            directory.create(name, size_bytes=0).close()

    recording = record(job, MemoryDisk())
    weak = {tuple(state.disk.contents()) for state in iter_states(recording.records, MemoryDisk().tree(), weak=True)}
    ordered = {tuple(state.disk.contents()) for state in iter_states(recording.records, MemoryDisk().tree(), weak=False)}
    assert weak - ordered == {("/second",)}
    assert ordered == {(), ("/first",), ("/first", "/second")}


def test_a_removed_name_may_come_back_and_a_link_keeps_the_content() -> None:
    def job(disk: RecordingDisk) -> None:
        directory = disk.open_directory("/")
        assert directory.link_from(directory, "file", "kept")
        directory.sync()
        directory.unlink("file")

    initial = disk_with_old_file()
    recording = record(job, initial)
    found = [state.disk.contents() for state in iter_states(recording.records, initial.tree()) if state.cut_index == 3]
    assert found == [{"/kept": OLD}]
    earlier = [state.disk.contents() for state in iter_states(recording.records, initial.tree()) if state.cut_index < 3]
    assert earlier == [{"/file": OLD}, {"/file": OLD, "/kept": OLD}]


def test_a_renamed_directory_is_followed_by_its_open_handle() -> None:
    def job(disk: RecordingDisk) -> None:
        root = disk.open_directory("/")
        disk.make_directory("/step")
        step = disk.open_directory("/step")
        root.rename("step", "trash")
        step.create("late", size_bytes=0).close()
        step.sync()
        root.sync()

    recording = record(job, MemoryDisk())
    found = [state.disk.contents() for state in iter_states(recording.records, MemoryDisk().tree())]
    assert {"/trash": None, "/trash/late": b""} in found
    assert {"/step": None, "/step/late": b""} in found


def create_many(count: int) -> Callable[[RecordingDisk], None]:
    def job(disk: RecordingDisk) -> None:
        directory = disk.open_directory("/")
        for index in range(count):
            file = directory.create(f"file{index:02}", size_bytes=4)
            file.write(b"data")
            file.close()

    return job


def test_no_state_is_given_out_twice() -> None:
    recording = record(create_many(4), MemoryDisk())
    states = [
        (state.acknowledged_marks, tuple(state.disk.contents().items())) for state in iter_states(recording.records, MemoryDisk().tree())
    ]
    assert len(states) == len(set(states))


@pytest.mark.parametrize("weak", [True, False])
def test_many_pending_changes_are_sampled_in_the_same_way_each_time(weak: bool) -> None:
    recording = record(create_many(12), MemoryDisk())

    def describe(seed: int) -> list[str]:
        return [state.description for state in iter_states(recording.records, MemoryDisk().tree(), weak=weak, seed=seed, limit=500)]

    assert describe(1) == describe(1)
    assert describe(1) != describe(2)
    assert len(describe(1)) <= 500


def test_a_limit_is_spread_over_all_cuts() -> None:
    recording = record(create_many(6), MemoryDisk())
    cuts = {state.cut_index for state in iter_states(recording.records, MemoryDisk().tree(), limit=40)}
    assert cuts == set(range(len(recording.records) + 1))


def test_states_do_not_share_what_they_hold() -> None:
    initial = disk_with_old_file()
    recording = record(replace("sync-file rename sync-directory"), initial)
    for state in iter_states(recording.records, initial.tree()):
        directory = state.disk.open_directory("/")
        for name in directory.names():
            directory.unlink(name)
    assert initial.contents() == {"/file": OLD}
    assert violations("sync-file rename sync-directory", weak=True) == []


@pytest.mark.parametrize("failing_operation", range(1, 12))
def test_directories_are_durable_also_after_an_earlier_attempt_that_was_cut_short(failing_operation: int) -> None:
    inner = MemoryDisk()
    inner.faults.fail("any", errno.EIO, nth=failing_operation)
    disk = RecordingDisk(inner)
    with suppress(OSError):
        make_directories(disk, "/a/b/c")
    make_directories(disk, "/a/b/c")
    disk.record_mark("made")
    for state in iter_states(disk.records, MemoryDisk().tree()):
        assert "/a/b/c" in state.disk.contents() or not state.acknowledged_marks, state.description
