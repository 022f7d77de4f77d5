"""The recording disk: what is recorded, in which order, and what is not."""

import errno

import pytest

from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.recording import (
    Created,
    Linked,
    MadeDirectory,
    Marked,
    RecordingDisk,
    RemovedDirectory,
    Renamed,
    SyncedDirectory,
    SyncedFile,
    Unlinked,
    Wrote,
)


def test_everything_that_changes_or_syncs_something_is_recorded_in_order():
    disk = RecordingDisk(MemoryDisk())
    disk.make_directory("/run/")
    directory = disk.open_directory("run")
    first = directory.create("a", size_bytes=4)
    second = directory.create("b", size_bytes=1)
    first.write(b"ab")
    second.write(bytearray(b"x"))
    first.write(memoryview(b"cd"))
    first.sync()
    first.close()
    second.close()
    directory.rename("a", "c")
    directory.link_from(directory, "c", "d")
    directory.unlink("b")
    directory.sync()
    disk.record_mark("saved")
    directory.unlink("c")
    directory.unlink("d")
    disk.remove_directory("/run")
    directory.close()
    assert disk.records == [
        MadeDirectory("/run"),
        Created("/run", "a", 1),
        Created("/run", "b", 2),
        Wrote(1, 0, b"ab"),
        Wrote(2, 0, b"x"),
        Wrote(1, 2, b"cd"),
        SyncedFile(1),
        Renamed("/run", "a", "c"),
        Linked("/run", "c", "/run", "d"),
        Unlinked("/run", "b"),
        SyncedDirectory("/run"),
        Marked("saved"),
        Unlinked("/run", "c"),
        Unlinked("/run", "d"),
        RemovedDirectory("/run"),
    ]


def test_reading_and_asking_leave_no_record():
    disk = RecordingDisk(MemoryDisk())
    directory = disk.open_directory("/")
    directory.create("file", size_bytes=0).close()
    before = list(disk.records)
    directory.names()
    directory.open("file").map_private()
    directory.free_bytes()
    directory.try_lock()
    directory.close()
    assert disk.records == before


def test_what_failed_is_not_recorded():
    inner = MemoryDisk()
    disk = RecordingDisk(inner)
    directory = disk.open_directory("/")
    file = directory.create("file", size_bytes=0)
    before = list(disk.records)
    for kind in ("create", "sync", "rename", "unlink", "sync_directory", "make_directory", "remove_directory", "link"):
        inner.faults.fail(kind, errno.EIO)
    failing = [
        lambda: directory.create("other", size_bytes=0),
        file.sync,
        lambda: directory.rename("file", "other"),
        lambda: directory.unlink("file"),
        directory.sync,
        lambda: disk.make_directory("/folder"),
        lambda: disk.remove_directory("/folder"),
        lambda: directory.link_from(directory, "file", "other"),
    ]
    for call in failing:
        with pytest.raises(OSError, match="Input/output error"):
            call()
    assert disk.records == before


def test_a_link_that_the_disk_cannot_make_is_not_recorded():
    inner = MemoryDisk()
    disk = RecordingDisk(inner)
    directory = disk.open_directory("/")
    directory.create("file", size_bytes=0).close()
    inner.faults.fail("link", errno.EXDEV)
    assert not directory.link_from(directory, "file", "other")
    assert not directory.link_from(inner.open_directory("/"), "file", "other")
    assert disk.records == [Created("/", "file", 1)]


def test_a_write_that_failed_is_recorded_once_because_some_of_it_may_have_arrived():
    inner = MemoryDisk(capacity_bytes=3)
    disk = RecordingDisk(inner)
    file = disk.open_directory("/").create("file", size_bytes=6)
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            file.write(b"abcdef")
    assert disk.records == [Created("/", "file", 1), Wrote(1, 0, b"abcdef")]


def test_paths_follow_a_directory_that_is_renamed_while_it_is_open():
    disk = RecordingDisk(MemoryDisk())
    disk.make_directory("/a")
    disk.make_directory("/a/inner")
    disk.make_directory("/ab")
    root, inner, other = (disk.open_directory(path) for path in ("/", "/a/inner", "/ab"))
    root.rename("a", "b")
    disk.records.clear()
    inner.sync()
    other.sync()
    assert disk.records == [SyncedDirectory("/b/inner"), SyncedDirectory("/ab")]
    assert inner.path == "/a/inner"
