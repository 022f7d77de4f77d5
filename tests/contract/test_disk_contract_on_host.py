"""The part of the disk contract that needs a file system of this machine: links, permissions, other processes."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ckptfmt.disk.protocol import Directory, LockState, NotARegularFileError
from tests.contract.disk_harness import Harness, get, put

REPOSITORY = Path(__file__).parents[2]


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o444), (0o002, 0o444), (0o077, 0o400)])
@pytest.mark.parametrize("size_bytes", [0, 8 * 2**20])
def test_new_files_are_read_only_and_honour_the_umask(
    host_harness: Harness, host_directory: Directory, mask: int, mode: int, size_bytes: int
) -> None:
    with umask(mask):
        file = host_directory.create("file", size_bytes=size_bytes)
    file.write(b"written all the same")
    file.close()
    assert (host_harness.host / "file").stat().st_mode & 0o7777 == mode


def test_links_are_not_followed_when_reading(host_harness: Harness, host_directory: Directory) -> None:
    put(host_directory, "file", b"content")
    (host_harness.host / "link").symlink_to("file")
    with pytest.raises(NotARegularFileError) as caught:
        host_directory.open("link")
    assert caught.value.filename == host_harness.path("link")


def test_links_are_not_followed_when_creating(host_harness: Harness, host_directory: Directory) -> None:
    (host_harness.host / "link").symlink_to(host_harness.host / "elsewhere")
    with pytest.raises(FileExistsError):
        host_directory.create("link", size_bytes=0)
    assert host_directory.names() == ["link"]


def test_a_link_is_replaced_and_not_followed_by_rename(host_harness: Harness, host_directory: Directory) -> None:
    put(host_directory, "victim", b"untouched")
    put(host_directory, "new", b"new")
    (host_harness.host / "link").symlink_to("victim")
    host_directory.rename("new", "link")
    assert get(host_directory, "victim") == b"untouched"
    assert get(host_directory, "link") == b"new"


def test_a_hard_link_of_a_link_stays_a_link(host_harness: Harness, host_directory: Directory) -> None:
    (host_harness.host / "link").symlink_to("/etc/hostname")
    assert host_directory.link_from(host_directory, "link", "copy")
    with pytest.raises(NotARegularFileError):
        host_directory.open("copy")


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    # Addresses of sockets are short, so it is bound by a relative path.
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


@pytest.mark.parametrize("make", [make_fifo, make_socket, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_not_a_regular_file_is_refused_at_once(
    host_harness: Harness, host_directory: Directory, make: Callable[[Path], None]
) -> None:
    make(host_harness.host / "odd")
    started = time.monotonic()
    with pytest.raises(NotARegularFileError) as caught:
        host_directory.open("odd")
    assert time.monotonic() - started < 0.5
    assert caught.value.filename == host_harness.path("odd")


def test_a_directory_swapped_for_a_link_does_not_redirect_writes(host_harness: Harness) -> None:
    host = host_harness.host
    for name in ("inside", "outside"):
        host_harness.disk.make_directory(host_harness.path(name))
    inside = host_harness.disk.open_directory(host_harness.path("inside"))
    (host / "inside").rename(host / "moved")
    (host / "inside").symlink_to(host / "outside")
    put(inside, "file", b"content")
    inside.close()
    assert (host / "moved" / "file").read_bytes() == b"content"
    assert list((host / "outside").iterdir()) == []


def test_names_that_are_not_text_are_listed_and_removed(host_harness: Harness, host_directory: Directory) -> None:
    (host_harness.host / os.fsdecode(b"\xff\xfe")).touch()
    (name,) = host_directory.names()
    host_directory.unlink(name)
    assert host_directory.names() == []


def test_short_writes_are_continued(host_directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write, sizes = os.write, []

    def write_little(number: int, data: memoryview) -> int:
        sizes.append(real_write(number, data[:1000]))
        return sizes[-1]

    file = host_directory.create("file", size_bytes=4500)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write_little)
        file.write(bytes(range(250)) * 18)
    file.sync()
    file.close()
    assert sizes == [1000, 1000, 1000, 1000, 500]
    assert get(host_directory, "file") == bytes(range(250)) * 18


def test_a_write_that_takes_nothing_is_an_error_and_not_a_loop(host_directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    file = host_directory.create("file", size_bytes=1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda number, data: 0)
        with pytest.raises(OSError, match="wrote nothing"):
            file.write(b"x")
    file.close()


def test_a_limit_of_the_system_is_met_with_a_named_error_and_a_poisoned_file(host_harness: Harness, host_directory: Directory) -> None:
    file = host_directory.create("file", size_bytes=4096)
    with largest_file(1000), pytest.raises(OSError) as caught:  # noqa: PT011
        file.write(bytes(4096))
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == host_harness.path("file")
    assert (host_harness.host / "file").stat().st_size == 1000
    with pytest.raises(OSError, match="earlier write or sync failed"):
        file.write(b"x")
    with pytest.raises(OSError, match="earlier write or sync failed"):
        file.sync()
    file.close()


def test_a_full_disk_is_reported_after_a_part_was_written(
    host_harness: Harness, host_directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write = os.write

    def write_until_full(number: int, data: memoryview) -> int:
        if os.fstat(number).st_size >= 1000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(number, data[:1000])

    file = host_directory.create("file", size_bytes=4096)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write_until_full)
        with pytest.raises(OSError, match="No space left") as caught:
            file.write(bytes(4096))
    assert caught.value.filename == host_harness.path("file")
    file.close()
    host_directory.unlink("file")


def test_a_failed_sync_is_never_repeated(host_harness: Harness, host_directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fail(number: int) -> None:
        calls.append(number)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    file = host_directory.create("file", size_bytes=1)
    file.write(b"x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output error") as caught:
            file.sync()
    assert caught.value.filename == host_harness.path("file")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", calls.append)
        for call in (file.sync, lambda: file.write(b"y")):
            with pytest.raises(OSError, match="earlier write or sync failed") as again:
                call()
            assert (again.value.errno, again.value.filename) == (errno.EIO, host_harness.path("file"))
    assert len(calls) == 1
    file.close()
    assert (host_harness.host / "file").read_bytes() == b"x"


HOLD_LOCK = """
import sys, time
from ckptfmt.disk.local import LocalDisk
directory = LocalDisk().open_directory(sys.argv[1])
print(directory.try_lock().value, flush=True)
time.sleep(60)
"""


def test_a_lock_ends_when_its_process_is_killed(host_harness: Harness, host_directory: Directory) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD_LOCK, host_harness.root], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert host_directory.try_lock() is LockState.BUSY
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert host_directory.try_lock() is LockState.HELD
    finally:
        holder.kill()
        holder.communicate()


FORK_UNDER_LOCK = """
import os, sys
from ckptfmt.disk.local import LocalDisk
parent, other = (LocalDisk().open_directory(sys.argv[1]) for _ in range(2))
states = [parent.try_lock()]
wait, go = os.pipe()
tried, tell = os.pipe()
if (child := os.fork()) == 0:
    state = parent.try_lock()
    parent.close()
    os.write(tell, b"x")
    os.read(wait, 1)
    os._exit(0 if state.value == "busy" else 1)
os.read(tried, 1)
states.append(other.try_lock())
parent.close()
# The child is alive, and must not keep the lock.
states.append(other.try_lock())
os.write(go, b"x")
_, status = os.waitpid(child, 0)
other.close()
print(*[state.value for state in states], os.waitstatus_to_exitcode(status))
"""


def test_a_forked_child_neither_holds_nor_ends_the_lock_of_its_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORK_UNDER_LOCK, str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "held busy held 0\n"


def test_a_handle_that_is_forgotten_is_missed(host_harness: Harness) -> None:
    directory = host_harness.disk.open_directory(host_harness.root)
    with pytest.warns(ResourceWarning, match="was not closed"):
        del directory


def test_links_of_a_path_are_followed(host_harness: Harness, host_directory: Directory) -> None:
    put(host_directory, "file", b"1")
    (host_harness.host / "link").symlink_to("file")
    assert host_harness.disk.real_path(host_harness.path("link")) == host_harness.disk.real_path(host_harness.path("file"))


def test_the_status_of_an_open_file_follows_its_changes(host_harness: Harness, host_directory: Directory) -> None:
    put(host_directory, "file", b"1")
    file = host_directory.open("file")
    before = file.status()
    path = host_harness.host / "file"
    path.chmod(0o600)
    path.write_bytes(b"12")
    os.utime(path, ns=(5, 7))
    after = file.status()
    file.close()
    assert before is not None
    assert after is not None
    assert (before.size_bytes, after.size_bytes, after.modified_ns) == (1, 2, 7)
    assert before.inode == after.inode == path.stat().st_ino
    assert after.changed_ns > before.changed_ns
