"""The local disk where the contract does not reach: interrupted and short calls, refusals of file systems, descriptors."""

import ctypes
import errno
import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.protocol import LockState, NotARegularFileError


@pytest.fixture
def disk():
    return LocalDisk()


@pytest.fixture
def directory(disk, tmp_path):
    opened = disk.open_directory(str(tmp_path))
    yield opened
    opened.close()


def pattern(size_bytes):
    return (bytes(range(251)) * (size_bytes // 251 + 1))[:size_bytes]


def failing(code):
    def fail(*arguments, **options):
        raise OSError(code, os.strerror(code))

    return fail


def put(directory, name, content=b""):
    file = directory.create(name, size_bytes=len(content))
    file.write(content)
    file.close()


def get(directory, name):
    reader = directory.open(name)
    content = bytes(reader.map_private())
    reader.close()
    return content


def test_an_interrupt_in_the_middle_of_a_write_poisons_the_file(directory, monkeypatch):
    real_write, calls = os.write, []

    def write_then_interrupt(number, data):
        calls.append(number)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real_write(number, data[:10])

    file = directory.create("file", size_bytes=20)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write_then_interrupt)
        with pytest.raises(KeyboardInterrupt):
            file.write(bytes(20))
    with pytest.raises(OSError, match="earlier write or sync failed"):
        file.sync()
    file.close()


def test_a_view_with_a_zero_in_its_shape_writes_nothing(directory):
    file = directory.create("file", size_bytes=0)
    file.write(memoryview((ctypes.c_char * 0)()))
    file.close()
    assert get(directory, "file") == b""


def test_short_reads_are_continued(directory, monkeypatch):
    put(directory, "file", pattern(10_000))
    real_pread, real_preadv = os.pread, os.preadv
    monkeypatch.setattr(os, "pread", lambda number, size, offset: real_pread(number, min(size, 700), offset))
    monkeypatch.setattr(os, "preadv", lambda number, buffers, offset: real_preadv(number, [buffers[0][:700]], offset))
    reader = directory.open("file")
    assert reader.read(100, 9_000) == pattern(10_000)[100:9_100]
    reader.close()


def test_a_file_that_shrank_is_read_short_and_not_mapped(directory, tmp_path):
    put(directory, "file", pattern(10_000))
    reader = directory.open("file")
    os.chmod(tmp_path / "file", 0o600)
    os.truncate(tmp_path / "file", 1_000)
    assert reader.read(0, 10_000) == pattern(1_000)
    assert reader.read(5_000, 10) == b""
    with pytest.raises(OSError, match="shrank") as caught:
        reader.map_private()
    assert caught.value.filename == str(tmp_path / "file")
    reader.close()


def test_a_refused_hint_is_ignored(directory, monkeypatch):
    put(directory, "file", b"content")
    reader = directory.open("file")
    monkeypatch.setattr(os, "posix_fadvise", failing(errno.ENOSYS))
    reader.prefetch(0, 7)
    assert reader.read(0, 7) == b"content"
    reader.close()


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EACCES])
def test_a_file_system_without_links_says_so(directory, monkeypatch, code):
    put(directory, "file")
    monkeypatch.setattr(os, "link", failing(code))
    assert directory.link_from(directory, "file", "linked") is False
    assert directory.names() == ["file"]


def test_a_link_that_fails_names_both_paths(directory, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", failing(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left") as caught:
        directory.link_from(directory, "file", "linked")
    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path / "file"), str(tmp_path / "linked"))


def test_a_file_of_another_kind_of_disk_is_not_linked(directory):
    other = MemoryDisk().open_directory("/")
    assert directory.link_from(other, "file", "linked") is False
    assert other.link_from(directory, "file", "linked") is False


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_sync_directories_is_used_all_the_same(directory, monkeypatch, code):
    monkeypatch.setattr(os, "fsync", failing(code))
    directory.sync()


def test_a_failed_sync_of_a_directory_names_it(directory, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error") as caught:
        directory.sync()
    assert caught.value.filename == str(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_says_so(directory, monkeypatch, code):
    monkeypatch.setattr(fcntl, "flock", failing(code))
    assert directory.try_lock() is LockState.UNSUPPORTED


def test_a_lock_that_fails_names_the_directory(directory, tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error") as caught:
        directory.try_lock()
    assert caught.value.filename == str(tmp_path)


def test_threads_may_list_one_directory_at_the_same_time(directory, tmp_path):
    names = [f"file{index:04}" for index in range(2_000)]
    for name in names:
        (tmp_path / name).touch()
    barrier = threading.Barrier(4)

    def list_names():
        barrier.wait()
        return [directory.names() == names for _ in range(10)]

    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(list_names) for _ in range(4)]
    assert all(all(result.result()) for result in results)


def test_no_error_leaves_a_descriptor_open(directory, disk, tmp_path, monkeypatch):
    put(directory, "file")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    before = sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else pytest.skip("needs /proc")
    for name in ("folder", "fifo"):
        with pytest.raises(NotARegularFileError):
            directory.open(name)
    with pytest.raises(FileExistsError):
        directory.create("file", size_bytes=0)
    with pytest.raises(OSError, match="large"):
        directory.create("large", size_bytes=1 << 62)
    second = disk.open_directory(str(tmp_path))
    assert directory.try_lock() is LockState.HELD
    assert second.try_lock() is LockState.BUSY
    second.close()
    directory._lock.close()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_an_error_of_close_is_reported_once(directory, monkeypatch):
    real_close = os.close

    def close_and_fail(number):
        real_close(number)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    file = directory.create("file", size_bytes=0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", close_and_fail)
        with pytest.raises(OSError, match="Input/output error") as caught:
            file.close()
        file.close()
    assert str(caught.value.filename).endswith("file")


def test_a_system_without_directory_descriptors_is_told_so(disk, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "supports_dir_fd", set())
    with pytest.raises(OSError, match="no directory descriptors"):
        disk.open_directory(str(tmp_path))
