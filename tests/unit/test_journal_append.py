"""Appending, flushing, compacting: what a session does to the disk, and what it refuses."""

from __future__ import annotations

import functools
import os
import threading
from contextlib import suppress

import pytest

from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.recording import Created, RecordingDisk, SyncedDirectory, SyncedFile, Wrote
from ckptfmt.errors import CheckpointNotFoundError, CorruptError, LimitError, NotEnoughSpaceError, UnsupportedTypeError
from ckptfmt.format.journal_record import MAX_PAYLOAD_BYTES, RECORD_OVERHEAD_BYTES, encode_value
from ckptfmt.run import journal as journal_module
from ckptfmt.run.journal import Journal
from ckptfmt.run.journal_reader import read_journal, verify_journal

PATH = "/run/progress"
RECORDS = [None, True, -1, 2**64 - 1, 0.5, "text", b"bytes", [1, [2]], {"a": {"b": [None]}}, {}]


def values_in(disk: MemoryDisk | RecordingDisk | LocalDisk, path: str = PATH) -> list[object]:
    return [value for _, value in read_journal(disk, path).iter_records()]


def killed(disk: MemoryDisk | RecordingDisk, *values: object, flush: bool = True) -> None:
    """A session that appends and is killed."""
    journal = Journal.open_for_append(disk, PATH)
    for value in values:
        journal.append(value)
    if flush:
        journal.flush()


def sizes(disk: MemoryDisk) -> list[int]:
    return [len(content) for content in disk.contents().values() if content is not None]


def test_what_is_appended_is_read_back_in_order_with_numbers_from_one() -> None:
    disk = MemoryDisk()
    with Journal.open_for_append(disk, PATH) as journal:
        assert [journal.append(value) for value in RECORDS] == list(range(1, 11))
    with Journal.open_for_append(disk, PATH) as journal:
        assert list(journal.iter_records()) == list(enumerate(RECORDS, 1))
        assert journal.last_number == 10
        assert journal.append("more") == 11
    content = read_journal(disk, PATH)
    assert list(content.iter_records()) == list(enumerate([*RECORDS, "more"], 1))
    assert (content.first_number, content.sound_count, content.torn_bytes, content.findings) == (1, 11, 0, ())
    assert verify_journal(disk, PATH) == ()


def test_opening_writes_nothing_and_the_first_append_makes_a_segment() -> None:
    disk = MemoryDisk()
    with Journal.open_for_append(disk, PATH) as journal:
        assert disk.open_directory(PATH).names() == []
        assert values_in(disk) == []
        journal.append(1)
        assert len(disk.open_directory(PATH).names()) == 1
        assert values_in(disk) == [1]


def test_an_append_is_one_write_of_the_size_of_the_record_however_many_there_are() -> None:
    disk = RecordingDisk(MemoryDisk())
    journal = Journal.open_for_append(disk, PATH)
    journal.append("x" * 100)
    begin = len(disk.records)
    for _ in range(500):
        journal.append("x" * 100)
    written = disk.records[begin:]
    payload_bytes = len(encode_value("x" * 100))
    assert [type(record) for record in written] == [Wrote] * 500
    assert {len(record.data) for record in written if isinstance(record, Wrote)} == {payload_bytes + RECORD_OVERHEAD_BYTES}


def test_a_flush_syncs_the_file_and_the_directory_once() -> None:
    disk = RecordingDisk(MemoryDisk())
    journal = Journal.open_for_append(disk, PATH)
    begin = len(disk.records)
    for _ in range(2):
        journal.append(1)
        journal.append(2)
        journal.flush()
        journal.flush()
    kinds = [type(record) for record in disk.records[begin:]]
    assert kinds == [Created, Wrote, Wrote, Wrote, SyncedFile, SyncedDirectory, Wrote, Wrote, SyncedFile]


def test_without_durability_nothing_is_synced_and_a_kill_loses_nothing_that_was_flushed() -> None:
    disk = RecordingDisk(MemoryDisk())
    journal = Journal.open_for_append(disk, PATH, durable=False)
    journal.append(1, flush=True)
    journal.close()
    assert not [record for record in disk.records if isinstance(record, SyncedFile | SyncedDirectory)]
    killed(disk, 2)
    assert values_in(disk) == [1, 2]


def test_a_durable_session_repeats_all_that_an_other_one_did_not_make_durable() -> None:
    disk = MemoryDisk()
    journal = Journal.open_for_append(disk, PATH)
    journal.append("a", flush=True)
    journal.append("b", flush=True)
    for values in (["c", "d"], ["e"]):
        with Journal.open_for_append(disk, PATH, durable=False) as journal:
            for value in values:
                journal.append(value, flush=True)
    with Journal.open_for_append(disk, PATH) as journal:
        journal.append("f", flush=True)
    assert values_in(disk) == list("abcdef")
    added = [content for _, content in sorted(disk.contents().items()) if content][-1]
    assert [value for value in "abcdef" if encode_value(value) in added] == list("bcdef")


def test_a_session_after_a_clean_end_repeats_nothing_and_one_after_a_kill_only_the_last_group() -> None:
    disk = MemoryDisk()
    with Journal.open_for_append(disk, PATH) as journal:
        journal.append("closed")
    killed(disk, *("first group " * 3, "x"))
    killed(disk, "second")
    contents = [content for _, content in sorted(disk.contents().items()) if content]
    assert [content.count(b"closed") for content in contents] == [1, 0, 0]
    assert [content.count(b"first group") // 3 for content in contents] == [0, 1, 1]
    for index in range(100):
        killed(disk, index)
    assert max(sizes(disk)) < 700
    assert values_in(disk)[4:] == list(range(100))


def test_flushing_happens_by_itself_after_so_many_records_or_so_much_time(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = RecordingDisk(MemoryDisk())
    journal = Journal.open_for_append(disk, PATH, flush_every=3)
    counts = []
    for index in range(7):
        journal.append(index)
        counts.append(sum(isinstance(record, SyncedFile) for record in disk.records))
    assert counts == [0, 0, 1, 1, 1, 2, 2]
    journal.close()

    clock = iter([0.0, 4.0, 9.0, 11.0, 12.0, 30.0])
    monkeypatch.setattr(journal_module.time, "monotonic", lambda: next(clock))
    journal = Journal.open_for_append(disk, PATH, flush_after_seconds=10)
    begin, counts = len(disk.records), []
    for index in range(6):
        journal.append(index)
        counts.append(sum(isinstance(record, SyncedFile) for record in disk.records[begin:]))
    assert counts == [0, 0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    "value",
    [object(), (1, 2), {1: 2}, {"a": {2: 3}}, 2**64, "\ud800", [functools.reduce(lambda inner, _: [inner], range(1100))]],
)
def test_a_value_that_no_reader_would_take_is_refused_before_anything_is_written(value: object) -> None:
    disk = MemoryDisk()
    journal = Journal.open_for_append(disk, PATH)
    journal.append(1)
    before = disk.contents()
    with pytest.raises(UnsupportedTypeError, match="cannot hold"):
        journal.append(value)
    assert disk.contents() == before
    assert journal.append(2) == 2


def test_a_record_of_16_mib_is_stored_and_a_larger_one_refused() -> None:
    disk = MemoryDisk()
    with Journal.open_for_append(disk, PATH) as journal:
        journal.append("small")
        journal.append(bytes(MAX_PAYLOAD_BYTES - 5))
        journal.append("after")
        with pytest.raises(LimitError, match=r"record is too large.*E053") as caught:
            journal.append(bytes(MAX_PAYLOAD_BYTES))
        assert caught.value.rule == "E053"
    found = values_in(disk)
    assert [found[0], len(found[1]), found[2]] == ["small", MAX_PAYLOAD_BYTES - 5, "after"]  # type: ignore[arg-type]


def test_compaction_replaces_all_records_and_all_files_and_numbers_go_on() -> None:
    disk = MemoryDisk()
    killed(disk, *range(50))
    with Journal.open_for_append(disk, PATH) as journal:
        for index in range(50):
            journal.append(index)
        journal.compact(["sum", 2450])
        assert len(sizes(disk)) == 1
        assert journal.append("next") == 103
    assert list(read_journal(disk, PATH).iter_records()) == [(101, "sum"), (102, 2450), (103, "next")]
    assert verify_journal(disk, PATH) == ()


def test_a_compaction_whose_values_cannot_be_stored_changes_nothing() -> None:
    disk = MemoryDisk()
    journal = Journal.open_for_append(disk, PATH)
    journal.append(1, flush=True)
    before = disk.contents()
    with pytest.raises(UnsupportedTypeError):
        journal.compact(value for value in (1, object()))
    assert disk.contents() == before


def test_what_a_killed_compaction_left_is_removed_by_the_next_writer() -> None:
    disk = MemoryDisk()
    killed(disk, 1, 2)
    old = disk.tree()
    with Journal.open_for_append(disk, PATH) as journal:
        journal.compact(["all"])
    directory = disk.open_directory(PATH)
    directory.create(".segment." + "0" * 32 + ".tmp", size_bytes=0).close()
    for inode, content in old.files.items():
        name = next(name for entries in old.directories.values() for name, target in entries.items() if target == inode)
        file = directory.create(name, size_bytes=0)
        file.write(content)
        file.close()
    assert [finding.rule for finding in verify_journal(disk, PATH)] == ["W011", "W002"]
    killed(disk, "more")
    assert values_in(disk) == ["all", "more"]
    assert verify_journal(disk, PATH) == ()


def test_a_full_disk_is_named_and_appending_goes_on_when_there_is_space_again() -> None:
    disk = MemoryDisk(capacity_bytes=3000)
    journal = Journal.open_for_append(disk, PATH)
    count = 0
    with suppress(NotEnoughSpaceError):
        while True:
            journal.append("x" * 80, flush=True)
            count += 1
    with pytest.raises(NotEnoughSpaceError, match=PATH):
        journal.append("y")
    assert values_in(disk) == ["x" * 80] * count
    disk._store._capacity_bytes = 10_000
    assert journal.append("y", flush=True) == count + 1
    assert values_in(disk) == ["x" * 80] * count + ["y"]


def test_a_failed_flush_can_be_called_again_and_the_records_are_written_anew() -> None:
    disk = MemoryDisk()
    journal = Journal.open_for_append(disk, PATH)
    journal.append("a", flush=True)
    journal.append("b")
    disk.faults.fail("sync", 5)
    with pytest.raises(OSError, match="Input/output error"):
        journal.flush()
    journal.flush()
    assert values_in(disk) == ["a", "b"]
    assert len(sizes(disk)) == 2


def test_a_journal_is_of_no_use_after_close_or_in_a_forked_child(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = MemoryDisk()
    journal = Journal.open_for_append(disk, PATH)
    journal.append(1, flush=True)
    before = disk.contents()
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        with pytest.raises(ValueError, match="another process"):
            journal.append(2)
    assert disk.contents() == before
    journal.close()
    journal.close()
    with pytest.raises(ValueError, match="closed"):
        journal.append(2)
    journal = Journal.open_for_append(disk, PATH)
    assert list(journal.iter_records()) == list(journal.iter_records()) == [(1, 1)]
    journal.release_records()
    with pytest.raises(ValueError, match="use read_journal"):
        journal.iter_records()


def test_closing_in_a_forked_child_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = MemoryDisk()
    journal = Journal.open_for_append(disk, PATH)
    journal.append(1)
    before = disk.contents()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    journal.close()
    assert disk.contents() == before


def test_several_threads_may_append_and_flush() -> None:
    disk = MemoryDisk()
    with Journal.open_for_append(disk, PATH) as journal:

        def work(thread: int) -> None:
            for index in range(50):
                journal.append([thread, index], flush=index % 10 == 0)

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = values_in(disk)
    for number in range(4):
        assert [value for value in found if value[0] == number] == [[number, index] for index in range(50)]  # type: ignore[index]


def test_a_path_without_a_directory_is_no_journal() -> None:
    disk = MemoryDisk()
    with pytest.raises(CheckpointNotFoundError, match="no such journal"):
        read_journal(disk, PATH)
    disk.open_directory("/").create("file", size_bytes=0).close()
    with pytest.raises(CheckpointNotFoundError, match="expected a directory"):
        read_journal(disk, "/file")


def test_a_segment_that_is_a_link_is_refused(tmp_path: object) -> None:
    disk, path = LocalDisk(), str(tmp_path)
    with Journal.open_for_append(disk, f"{path}/a") as journal:
        journal.append(1)
    name = os.listdir(f"{path}/a")[0]
    os.mkdir(f"{path}/b")
    os.symlink(f"{path}/a/{name}", f"{path}/b/{name}")
    with pytest.raises(CorruptError, match="E013"):
        read_journal(disk, f"{path}/b")


def test_a_journal_on_a_real_disk_survives_sessions_compaction_and_reading_meanwhile(tmp_path: object) -> None:
    disk, path = LocalDisk(), f"{tmp_path}/deep/journal"
    for session in range(3):
        with Journal.open_for_append(disk, path, flush_every=4) as journal:
            for index in range(10):
                journal.append([session, index])
                assert len(values_in(disk, path)) == 10 * session + index + 1
    with Journal.open_for_append(disk, path) as journal:
        journal.compact(value for _, value in journal.iter_records())
    assert values_in(disk, path) == [[session, index] for session in range(3) for index in range(10)]
    assert verify_journal(disk, path) == ()


@pytest.fixture
def large(tmp_path: object) -> str:
    path = f"{tmp_path}/large"
    with Journal.open_for_append(LocalDisk(), path) as journal:
        for index in range(1_000_000):
            journal.append({"key": f"item-{index}", "loss": index / 2})
    return path


@pytest.mark.slow
def test_a_million_records_are_read_with_little_more_memory_than_their_bytes(large: str) -> None:
    import time
    import tracemalloc

    begin = time.perf_counter()
    content = read_journal(LocalDisk(), large)
    assert sum(1 for _ in content.iter_records()) == 1_000_000
    assert time.perf_counter() - begin < 15, "3 s are the target on an idle machine"
    tracemalloc.start()
    content = read_journal(LocalDisk(), large)
    used_bytes, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    payload_bytes = sum(map(len, content._payloads))
    assert used_bytes < 1.3 * payload_bytes
    assert peak_bytes < 3 * payload_bytes
