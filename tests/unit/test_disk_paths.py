"""Names, and directories made with their parents."""

import errno

import pytest

from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.paths import check_name, join, make_directories, parent_of
from ckptfmt.disk.recording import MadeDirectory, RecordingDisk, SyncedDirectory


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "a\0"])
def test_only_single_components_are_names(name):
    with pytest.raises(ValueError, match="not a single path component"):
        check_name(name)
    with pytest.raises(ValueError, match="not a single path component"):
        join("/run", name)


@pytest.mark.parametrize("name", ["a", "...", "a b", "é", ".lock", "a\\b"])
def test_everything_else_is_a_name(name):
    assert join("/run", name) == f"/run/{name}"


@pytest.mark.parametrize(("path", "parent"), [("/a/b", "/a"), ("/a/b/", "/a"), ("/a", "/"), ("/", "/"), ("a", "."), ("a/b", "a")])
def test_the_parent_of_a_path_is_where_its_last_name_lies(path, parent):
    assert parent_of(path) == parent


def test_each_level_is_synced_before_the_next_is_made():
    disk = RecordingDisk(MemoryDisk())
    make_directories(disk, "/a/b/c")
    assert disk.records == [
        MadeDirectory("/a"),
        SyncedDirectory("/"),
        MadeDirectory("/a/b"),
        SyncedDirectory("/a"),
        MadeDirectory("/a/b/c"),
        SyncedDirectory("/a/b"),
    ]


def test_a_level_that_exists_may_be_left_by_a_killed_run_and_is_synced_as_well():
    disk = RecordingDisk(MemoryDisk())
    disk.make_directory("/a")
    disk.records.clear()
    make_directories(disk, "/a/b/c/")
    assert disk.records == [
        SyncedDirectory("/"),
        MadeDirectory("/a/b"),
        SyncedDirectory("/a"),
        MadeDirectory("/a/b/c"),
        SyncedDirectory("/a/b"),
    ]
    disk.records.clear()
    make_directories(disk, "/a/b/c")
    assert disk.records == [SyncedDirectory("/a/b")]


def test_a_level_that_another_process_makes_first_is_kept():
    disk = MemoryDisk()
    # The other process is between the look and the making.
    disk.make_directory("/a")
    disk.faults.fail("open_directory", errno.ENOENT)
    make_directories(disk, "/a")
    assert disk.contents() == {"/a": None}


def test_nothing_is_synced_if_it_need_not_be_durable():
    disk = RecordingDisk(MemoryDisk())
    make_directories(disk, "a/b", durable=False)
    assert disk.records == [MadeDirectory("/a"), MadeDirectory("/a/b")]


def test_a_file_in_the_way_is_an_error():
    disk = MemoryDisk()
    disk.open_directory("/").create("file", size_bytes=0).close()
    with pytest.raises(NotADirectoryError):
        make_directories(disk, "/file")
    with pytest.raises(NotADirectoryError):
        make_directories(disk, "/file/below")


def test_an_error_of_the_disk_is_not_taken_for_a_missing_parent():
    disk = MemoryDisk()
    disk.faults.fail("make_directory", errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        make_directories(disk, "/a")
    assert disk.contents() == {}


def test_a_parent_that_may_not_be_read_matters_only_for_a_new_name():
    disk = MemoryDisk()
    disk.make_directory("/a")
    # The first open finds that /a exists, the second is that of its parent.
    disk.faults.fail("open_directory", errno.EACCES, nth=2)
    make_directories(disk, "/a")
    # The first two look for /b and /, the third is to sync the name of /b.
    disk.faults.fail("open_directory", errno.EACCES, nth=3)
    with pytest.raises(PermissionError):
        make_directories(disk, "/b")


def test_directories_are_made_on_this_machine(tmp_path, monkeypatch):
    make_directories(LocalDisk(), f"{tmp_path}/a/b")
    make_directories(LocalDisk(), f"{tmp_path}/a/b/")
    assert (tmp_path / "a" / "b").is_dir()
    make_directories(LocalDisk(), "/")
    monkeypatch.chdir(tmp_path)
    make_directories(LocalDisk(), "relative/path")
    assert (tmp_path / "relative" / "path").is_dir()
