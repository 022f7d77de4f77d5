"""What every disk must do: the contract of ckptfmt.disk.protocol, run against each implementation."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest

from ckptfmt.disk.protocol import Directory, LockState, NotARegularFileError
from tests.contract.disk_harness import Harness, get, put

BAD_NAMES = ["", ".", "..", "a/b", "/a", "../a", "a/", "a\0b"]


def test_what_was_written_is_read_back(directory: Directory) -> None:
    put(directory, "file", b"content")
    assert get(directory, "file") == b"content"
    assert directory.names() == ["file"]


def test_pieces_of_every_buffer_type_are_appended_in_order(directory: Directory) -> None:
    file = directory.create("file", size_bytes=0)
    for piece in (b"bytes ", bytearray(b"bytearray "), memoryview(b"view "), b"", memoryview(bytearray(b"\1\0\2\0")).cast("H")):
        file.write(piece)
    file.close()
    assert get(directory, "file") == b"bytes bytearray view \1\0\2\0"


def test_a_buffer_that_is_not_contiguous_is_refused_and_does_not_spoil_the_file(directory: Directory) -> None:
    file = directory.create("file", size_bytes=0)
    with pytest.raises(TypeError):
        file.write(memoryview(b"abcdef")[::2])
    file.write(b"fine")
    file.sync()
    file.close()
    assert get(directory, "file") == b"fine"


def test_a_reserved_size_that_is_not_reached_leaves_no_trace(directory: Directory) -> None:
    file = directory.create("file", size_bytes=5 * 2**20)
    file.write(b"short")
    file.close()
    assert get(directory, "file") == b"short"


def test_a_file_may_grow_past_its_reserved_size_and_after_a_sync(directory: Directory) -> None:
    content = bytes(range(256)) * 16_400
    file = directory.create("file", size_bytes=4 * 2**20)
    file.write(content)
    file.sync()
    file.write(b"more")
    file.sync()
    file.close()
    assert get(directory, "file") == content + b"more"


def test_an_existing_name_is_not_created_again(directory: Directory) -> None:
    put(directory, "file", b"first")
    with pytest.raises(FileExistsError):
        directory.create("file", size_bytes=0)
    assert get(directory, "file") == b"first"


def test_a_name_of_a_directory_is_not_created_as_a_file(harness: Harness, directory: Directory) -> None:
    harness.disk.make_directory(harness.path("name"))
    with pytest.raises(FileExistsError):
        directory.create("name", size_bytes=0)


def test_closing_twice_is_harmless_and_using_a_closed_handle_is_refused(harness: Harness) -> None:
    directory = harness.disk.open_directory(harness.root)
    file = directory.create("file", size_bytes=1)
    file.write(b"x")
    file.close()
    file.close()
    reader = directory.open("file")
    reader.close()
    reader.close()
    directory.close()
    directory.close()
    late: list[Callable[[], object]] = [
        lambda: file.write(b"late"),
        file.sync,
        lambda: reader.read(0, 1),
        reader.map_private,
        directory.names,
        directory.sync,
        directory.free_bytes,
        directory.try_lock,
        lambda: directory.open("file"),
        lambda: directory.create("other", size_bytes=0),
    ]
    for call in late:
        with pytest.raises(ValueError, match="closed"):
            call()


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_not_a_single_component_is_refused_everywhere(directory: Directory, name: str) -> None:
    put(directory, "file", b"")
    calls: list[Callable[[], object]] = [
        lambda: directory.create(name, size_bytes=0),
        lambda: directory.open(name),
        lambda: directory.unlink(name),
        lambda: directory.rename(name, "other"),
        lambda: directory.rename("file", name),
        lambda: directory.link_from(directory, name, "other"),
        lambda: directory.link_from(directory, "file", name),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="single path component"):
            call()
    assert directory.names() == ["file"]


def test_a_name_that_is_too_long_is_an_error_of_the_system(directory: Directory) -> None:
    put(directory, "file", b"")
    with pytest.raises(OSError, match="too long"):
        directory.create("n" * 256, size_bytes=0)
    with pytest.raises(OSError, match="too long"):
        directory.rename("file", "n" * 256)
    assert directory.names() == ["file"]


def test_rename_replaces_atomically(directory: Directory) -> None:
    put(directory, "old", b"old")
    put(directory, "new", b"new")
    directory.rename("new", "old")
    assert directory.names() == ["old"]
    assert get(directory, "old") == b"new"


def test_renaming_one_name_of_a_file_over_another_leaves_both(directory: Directory) -> None:
    put(directory, "one", b"content")
    assert directory.link_from(directory, "one", "two")
    directory.rename("one", "two")
    assert directory.names() == ["one", "two"]


def test_a_file_and_a_directory_do_not_replace_each_other(harness: Harness, directory: Directory) -> None:
    put(directory, "file", b"content")
    harness.disk.make_directory(harness.path("folder"))
    with pytest.raises(IsADirectoryError):
        directory.rename("file", "folder")
    with pytest.raises(NotADirectoryError):
        directory.rename("folder", "file")
    assert get(directory, "file") == b"content"


def test_a_directory_can_be_renamed_while_it_is_open(harness: Harness, directory: Directory) -> None:
    harness.disk.make_directory(harness.path("folder"))
    folder = harness.disk.open_directory(harness.path("folder"))
    directory.rename("folder", "moved")
    put(folder, "file", b"content")
    assert folder.path == harness.path("folder")
    folder.close()
    moved = harness.disk.open_directory(harness.path("moved"))
    assert get(moved, "file") == b"content"
    moved.close()


def test_a_directory_replaces_only_an_empty_one(harness: Harness, directory: Directory) -> None:
    for name in ("first", "second", "empty"):
        harness.disk.make_directory(harness.path(name))
    second = harness.disk.open_directory(harness.path("second"))
    put(second, "file", b"")
    second.close()
    with pytest.raises(OSError, match="not empty"):
        directory.rename("first", "second")
    directory.rename("second", "empty")
    assert directory.names() == ["empty", "first"]


def test_an_open_file_survives_the_removal_of_its_name(directory: Directory) -> None:
    put(directory, "file", b"content")
    reader = directory.open("file")
    memory = reader.map_private()
    directory.unlink("file")
    assert reader.read(0, 7) == b"content"
    reader.close()
    assert bytes(memory) == b"content"


def test_an_open_file_survives_being_replaced(directory: Directory) -> None:
    put(directory, "file", b"old")
    put(directory, "other", b"new")
    reader = directory.open("file")
    directory.rename("other", "file")
    assert reader.read(0, 3) == b"old"
    reader.close()
    assert get(directory, "file") == b"new"


def test_a_file_whose_name_is_removed_can_still_be_written(directory: Directory) -> None:
    file = directory.create("file", size_bytes=7)
    directory.unlink("file")
    file.write(b"content")
    file.sync()
    file.close()
    assert directory.names() == []


def test_ranges_end_at_the_end_of_the_file(directory: Directory) -> None:
    put(directory, "file", b"0123456789")
    reader = directory.open("file")
    assert reader.size_bytes == 10
    assert reader.read(0, 4) == b"0123"
    assert reader.read(8, 4) == b"89"
    assert reader.read(10, 1) == b""
    assert reader.read(2**62, 2**62) == b""
    assert reader.read(3, 0) == b""
    reader.prefetch(0, 10)
    for offset_bytes, size_bytes in ((-1, 1), (0, -1)):
        with pytest.raises(ValueError, match="negative"):
            reader.read(offset_bytes, size_bytes)
    reader.close()


def test_what_is_appended_after_opening_is_not_read(directory: Directory) -> None:
    file = directory.create("file", size_bytes=0)
    file.write(b"before")
    reader = directory.open("file")
    file.write(b"after")
    assert reader.size_bytes == 6
    assert reader.read(0, 100) == b"before"
    assert bytes(reader.map_private()) == b"before"
    reader.close()
    file.close()


def test_mapped_memory_and_its_file_are_independent(directory: Directory) -> None:
    put(directory, "file", b"a" * 10_000)
    reader = directory.open("file")
    first, second = reader.map_private(), reader.map_private()
    reader.close()
    assert not first.readonly
    first[0:3] = b"xyz"
    assert bytes(second[0:3]) == b"aaa"
    assert get(directory, "file") == b"a" * 10_000
    directory.unlink("file")
    assert bytes(first[0:4]) == b"xyza"
    assert bytes(second[9_999:]) == b"a"


def test_an_empty_file_maps_to_empty_memory(directory: Directory) -> None:
    put(directory, "file", b"")
    reader = directory.open("file")
    memory = reader.map_private()
    reader.close()
    assert memory.nbytes == 0
    assert not memory.readonly


def test_linked_names_share_content_and_survive_each_other(harness: Harness, directory: Directory) -> None:
    harness.disk.make_directory(harness.path("next"))
    following = harness.disk.open_directory(harness.path("next"))
    put(directory, "file", b"content")
    assert following.link_from(directory, "file", "linked")
    directory.unlink("file")
    assert get(following, "linked") == b"content"
    assert directory.names() == ["next"]
    following.close()


def test_a_link_over_an_existing_name_or_from_a_missing_one_is_an_error(directory: Directory) -> None:
    put(directory, "file", b"content")
    put(directory, "taken", b"other")
    with pytest.raises(FileExistsError):
        directory.link_from(directory, "file", "taken")
    with pytest.raises(FileNotFoundError):
        directory.link_from(directory, "missing", "new")
    assert get(directory, "taken") == b"other"


def test_a_directory_cannot_be_linked(harness: Harness, directory: Directory) -> None:
    harness.disk.make_directory(harness.path("folder"))
    assert not directory.link_from(directory, "folder", "other")
    assert directory.names() == ["folder"]


def test_a_directory_is_not_a_regular_file(harness: Harness, directory: Directory) -> None:
    harness.disk.make_directory(harness.path("folder"))
    with pytest.raises(NotARegularFileError) as caught:
        directory.open("folder")
    assert caught.value.filename == harness.path("folder")
    with pytest.raises(OSError, match="folder"):
        directory.unlink("folder")


def test_directories_are_made_and_removed_one_at_a_time(harness: Harness, directory: Directory) -> None:
    disk = harness.disk
    with pytest.raises(FileNotFoundError):
        disk.make_directory(harness.path("a/b"))
    disk.make_directory(harness.path("a"))
    disk.make_directory(harness.path("a/b"))
    with pytest.raises(FileExistsError):
        disk.make_directory(harness.path("a"))
    with pytest.raises(OSError, match="not empty"):
        disk.remove_directory(harness.path("a"))
    disk.remove_directory(harness.path("a/b"))
    disk.remove_directory(harness.path("a"))
    with pytest.raises(FileNotFoundError):
        disk.remove_directory(harness.path("a"))
    assert directory.names() == []


def test_only_an_existing_directory_is_opened(harness: Harness, directory: Directory) -> None:
    put(directory, "file", b"")
    with pytest.raises(FileNotFoundError):
        harness.disk.open_directory(harness.path("missing"))
    with pytest.raises(NotADirectoryError):
        harness.disk.open_directory(harness.path("file"))
    with pytest.raises(NotADirectoryError):
        harness.disk.make_directory(harness.path("file/below"))
    with pytest.raises(NotADirectoryError):
        harness.disk.remove_directory(harness.path("file"))


def test_a_removed_directory_that_is_still_open_takes_no_new_files(harness: Harness) -> None:
    harness.disk.make_directory(harness.path("folder"))
    folder = harness.disk.open_directory(harness.path("folder"))
    harness.disk.remove_directory(harness.path("folder"))
    with pytest.raises(FileNotFoundError):
        folder.create("file", size_bytes=0)
    assert folder.names() == []
    folder.close()


def test_errors_name_the_whole_path_and_survive_pickling(harness: Harness, directory: Directory) -> None:
    calls: list[Callable[[], object]] = [
        lambda: directory.open("missing"),
        lambda: directory.unlink("missing"),
        lambda: directory.rename("missing", "other"),
        lambda: directory.link_from(directory, "missing", "other"),
        lambda: harness.disk.open_directory(harness.path("missing")),
        lambda: harness.disk.remove_directory(harness.path("missing")),
    ]
    for call in calls:
        with pytest.raises(FileNotFoundError) as caught:
            call()
        assert caught.value.filename == harness.path("missing")
        assert harness.path("missing") in str(caught.value)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(FileNotFoundError) as caught:
        directory.rename("missing", "other")
    assert caught.value.filename2 == harness.path("other")


def test_a_file_that_is_there_can_be_synced_and_others_cannot(harness: Harness, directory: Directory) -> None:
    put(directory, "file", b"content")
    directory.sync_file("file")
    assert get(directory, "file") == b"content"
    with pytest.raises(FileNotFoundError):
        directory.sync_file("missing")
    harness.disk.make_directory(harness.path("inner"))
    with pytest.raises(NotARegularFileError):
        directory.sync_file("inner")


def test_there_is_free_space_and_names_can_be_synced(directory: Directory) -> None:
    assert directory.free_bytes() > 0
    put(directory, "file", b"")
    directory.sync()


def test_one_handle_locks_a_directory_and_close_frees_it(harness: Harness, directory: Directory) -> None:
    other = harness.disk.open_directory(harness.root)
    assert directory.try_lock() is LockState.HELD
    assert directory.try_lock() is LockState.HELD
    assert other.try_lock() is LockState.BUSY
    put(other, "file", b"locks do not stop writes")
    directory.close()
    assert other.try_lock() is LockState.HELD
    other.close()


def test_a_lock_leaves_no_file_and_covers_one_directory(harness: Harness, directory: Directory) -> None:
    harness.disk.make_directory(harness.path("inner"))
    inner = harness.disk.open_directory(harness.path("inner"))
    assert directory.try_lock() is LockState.HELD
    assert inner.try_lock() is LockState.HELD
    assert directory.names() == ["inner"]
    assert inner.names() == []
    inner.close()


def test_a_path_is_made_absolute_and_must_exist(harness: Harness, directory: Directory) -> None:
    put(directory, "file", b"1")
    real = harness.disk.real_path(harness.path("file"))
    assert real.startswith("/")
    assert real == harness.disk.real_path(harness.root) + "/file"
    with pytest.raises(FileNotFoundError) as caught:
        harness.disk.real_path(harness.path("gone"))
    assert caught.value.filename == harness.path("gone")
