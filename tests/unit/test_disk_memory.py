"""The memory disk: copies, capacity, planned failures."""

import errno

import pytest

from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.memory_store import Tree
from ckptfmt.disk.protocol import LockState


def put(disk, name, content=b"content"):
    file = disk.open_directory("/").create(name, size_bytes=len(content))
    file.write(content)
    file.sync()
    file.close()


def save(disk):
    """A job with an operation of each kind that can change or sync something."""
    disk.make_directory("/step")
    directory = disk.open_directory("/step")
    directory.try_lock()
    file = directory.create("tmp", size_bytes=7)
    file.write(b"con")
    file.write(b"tent")
    file.sync()
    file.close()
    directory.rename("tmp", "file")
    directory.link_from(directory, "file", "linked")
    directory.unlink("linked")
    directory.sync()
    reader = directory.open("file")
    reader.map_private()
    assert reader.read(0, 7) == b"content"
    directory.free_bytes()
    directory.names()
    directory.close()


def test_a_copy_is_independent_of_its_original():
    disk = MemoryDisk()
    put(disk, "file")
    copy = MemoryDisk(disk.tree())
    copy.open_directory("/").unlink("file")
    put(copy, "other")
    put(disk, "third")
    assert sorted(disk.contents()) == ["/file", "/third"]
    assert sorted(copy.contents()) == ["/other"]


def test_a_copy_holds_what_open_files_hold_but_neither_locks_nor_plans():
    disk = MemoryDisk()
    disk.faults.fail("unlink", errno.EIO)
    root = disk.open_directory("/")
    assert root.try_lock() is LockState.HELD
    file = root.create("file", size_bytes=0)
    file.write(b"half")
    copy = MemoryDisk(disk.tree())
    file.write(b" and half")
    assert copy.contents() == {"/file": b"half"}
    assert copy.open_directory("/").try_lock() is LockState.HELD
    copy.open_directory("/").unlink("file")


def test_a_disk_is_made_from_plain_dictionaries():
    disk = MemoryDisk(Tree({0: {"a": 1, "one": 2, "two": 2}, 1: {}}, {2: b"shared"}))
    assert disk.contents() == {"/a": None, "/one": b"shared", "/two": b"shared"}
    disk.open_directory("/").unlink("one")
    put(disk, "new")
    assert disk.contents() == {"/a": None, "/two": b"shared", "/new": b"content"}


def test_a_path_with_two_dots_is_refused():
    with pytest.raises(ValueError, match="holds no"):
        MemoryDisk().open_directory("/a/..")


def test_the_root_is_neither_made_nor_removed():
    with pytest.raises(FileExistsError):
        MemoryDisk().make_directory("/")
    with pytest.raises(OSError, match="busy"):
        MemoryDisk().remove_directory("/")


def test_a_full_disk_takes_a_part_and_poisons_the_file():
    disk = MemoryDisk(capacity_bytes=10)
    file = disk.open_directory("/").create("file", size_bytes=16)
    with pytest.raises(OSError, match="No space left") as caught:
        file.write(b"0123456789abcdef")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/file")
    assert disk.contents() == {"/file": b"0123456789"}
    with pytest.raises(OSError, match="earlier write or sync failed"):
        file.sync()
    file.close()


def test_space_comes_back_when_the_last_name_is_gone_and_the_writer_closed():
    disk = MemoryDisk(capacity_bytes=10)
    root = disk.open_directory("/")
    file = root.create("file", size_bytes=10)
    file.write(b"0123456789")
    assert root.link_from(root, "file", "linked")
    root.unlink("file")
    root.unlink("linked")
    assert root.free_bytes() == 0
    file.close()
    assert root.free_bytes() == 10
    put(disk, "a", b"01234")
    put(disk, "b", b"01234")
    root.rename("a", "b")
    assert root.free_bytes() == 5


def test_the_nth_operation_of_a_kind_fails_once():
    disk = MemoryDisk()
    disk.faults.fail("create", errno.EACCES, nth=2)
    put(disk, "first")
    with pytest.raises(PermissionError) as caught:
        put(disk, "second")
    assert caught.value.filename == "/second"
    put(disk, "second")
    assert sorted(disk.contents()) == ["/first", "/second"]


def test_an_operation_can_fail_from_then_on_until_the_plan_is_cleared():
    disk = MemoryDisk()
    put(disk, "file")
    disk.faults.fail("sync", errno.EIO, times=None)
    for name in ("a", "b", "c"):
        with pytest.raises(OSError, match="Input/output error"):
            put(disk, name)
    disk.faults.clear()
    put(disk, "d")


def test_an_operation_can_report_failure_although_it_was_done():
    disk = MemoryDisk()
    put(disk, "old")
    disk.faults.fail_after("rename", errno.ENOENT)
    with pytest.raises(FileNotFoundError) as caught:
        disk.open_directory("/").rename("old", "new")
    assert (caught.value.filename, caught.value.filename2) == ("/old", "/new")
    assert list(disk.contents()) == ["/new"]


def test_short_writes_are_continued_and_may_end_in_an_error():
    disk = MemoryDisk()
    disk.faults.shorten_write(2)
    put(disk, "whole")
    assert disk.contents()["/whole"] == b"content"
    assert disk.faults.calls["write"] == 2
    disk.faults.shorten_write(3)
    disk.faults.fail("write", errno.EIO, nth=2)
    with pytest.raises(OSError, match="Input/output error"):
        put(disk, "part")
    assert disk.contents()["/part"] == b"con"


def test_a_write_that_takes_nothing_is_an_error_and_not_a_loop():
    disk = MemoryDisk()
    disk.faults.shorten_write(0)
    with pytest.raises(OSError, match="wrote nothing"):
        put(disk, "file")


def test_a_failed_sync_is_never_repeated():
    disk = MemoryDisk()
    file = disk.open_directory("/").create("file", size_bytes=0)
    disk.faults.fail("sync", errno.EIO)
    for _ in range(3):
        with pytest.raises(OSError, match="Input/output error"):
            file.sync()
    assert disk.faults.calls["sync"] == 1
    file.close()


def test_a_failing_close_is_reported_once_and_the_content_is_kept():
    disk = MemoryDisk()
    file = disk.open_directory("/").create("file", size_bytes=0)
    file.write(b"content")
    disk.faults.fail("close", errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        file.close()
    file.close()
    assert disk.contents() == {"/file": b"content"}


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_says_so(code):
    disk = MemoryDisk()
    disk.faults.fail("lock", code)
    assert disk.open_directory("/").try_lock() is LockState.UNSUPPORTED
    disk.faults.fail("lock", errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        disk.open_directory("/").try_lock()


def test_a_disk_without_links_says_so():
    disk = MemoryDisk()
    root = disk.open_directory("/")
    put(disk, "file")
    for code in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EACCES):
        disk.faults.fail("link", code)
        assert not root.link_from(root, "file", "linked")
    assert not root.link_from(MemoryDisk(disk.tree()).open_directory("/"), "file", "linked")
    disk.faults.fail("link", errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        root.link_from(root, "file", "linked")
    assert root.names() == ["file"]


def test_a_disk_that_cannot_sync_directories_is_used_all_the_same():
    disk = MemoryDisk()
    disk.faults.fail("sync_directory", errno.EINVAL)
    disk.open_directory("/").sync()
    disk.faults.fail("sync_directory", errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        disk.open_directory("/").sync()


def test_failing_every_operation_in_turn_ends_with_a_run_that_succeeds():
    failed_count = 0
    while True:
        disk = MemoryDisk()
        disk.faults.fail("any", errno.EIO, nth=failed_count + 1)
        try:
            save(disk)
        except OSError:
            failed_count += 1
        else:
            break
    assert failed_count == disk.faults.calls["any"] == 17
