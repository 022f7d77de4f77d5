"""The reader among writers: what it opens belongs together, and whatever happens to the directory later does not reach it. Spec 12.4."""

import errno
import os

import numpy as np
import pytest

from ckptfmt.checkpoint.delete import delete_checkpoint
from ckptfmt.checkpoint.reader import OpenCheckpoint
from ckptfmt.checkpoint.saving import check_options
from ckptfmt.checkpoint.verify import verify_checkpoint
from ckptfmt.checkpoint.writer import write_checkpoint
from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.errors import CorruptError, IncompleteError
from ckptfmt.state.tree import encode_state


def save(disk, number, **options):
    state = {"model": {"w": np.full(50, number)}, "other": {"b": np.full(3, number)}, "number": number}
    return write_checkpoint(disk, "c", encode_state(state), check_options(**options))


def number_in(checkpoint):
    state = checkpoint.load()
    assert set(state["model"]["w"]) == set(state["other"]["b"]) == {state["number"]}
    return state["number"]


class Racing:
    """A disk whose directories let something happen right before the n-th file is opened."""

    def __init__(self, disk, *, before_open, then):
        self._disk = disk
        self._before_open = before_open
        self._then = then
        self.opened = []

    def open_directory(self, path):
        directory = self._disk.open_directory(path)
        racing = self

        class Directory:
            path = directory.path

            def open(self, name):
                racing.opened.append(name)
                if len(racing.opened) in racing._before_open:
                    racing._then()
                return directory.open(name)

            def close(self):
                directory.close()

        return Directory()


@pytest.fixture
def disk():
    disk = MemoryDisk()
    save(disk, 1)
    return disk


@pytest.mark.parametrize("before_open", range(1, 8))
def test_a_reader_sees_the_old_or_the_new_checkpoint_whole(disk, before_open):
    racing = Racing(disk, before_open={before_open}, then=lambda: save(disk, 2, overwrite=True))
    with OpenCheckpoint(racing, "c") as checkpoint:
        assert number_in(checkpoint) in (1, 2)


def test_a_reader_follows_as_many_overwrites_as_come_between(disk):
    numbers = iter(range(2, 22))
    racing = Racing(disk, before_open=set(range(2, 22)), then=lambda: save(disk, next(numbers), overwrite=True))
    with OpenCheckpoint(racing, "c") as checkpoint:
        assert number_in(checkpoint) == 21


def test_a_reader_that_meets_a_deletion_says_that_nothing_is_there(disk):
    racing = Racing(disk, before_open={2}, then=lambda: delete_checkpoint(disk, "c"))
    with pytest.raises((IncompleteError, FileNotFoundError)):
        OpenCheckpoint(racing, "c")


def test_every_file_is_open_before_the_first_tensor_is_given(disk):
    racing = Racing(disk, before_open=set(), then=None)
    with OpenCheckpoint(racing, "c") as checkpoint:
        opened = len(racing.opened)
        delete_checkpoint(disk, "c")
        assert number_in(checkpoint) == 1
        assert len(racing.opened) == opened


def test_a_missing_file_of_a_manifest_that_stays_is_an_error(disk):
    directory = disk.open_directory("c")
    directory.unlink(next(name for name in directory.names() if name.startswith("other")))
    with pytest.raises(CorruptError) as caught:
        OpenCheckpoint(disk, "c")
    assert caught.value.rule == "E012"


def read_all(disk):
    with OpenCheckpoint(disk, "c") as checkpoint:
        return number_in(checkpoint)


@pytest.mark.parametrize("kind", ["open_directory", "open", "read", "map_private"])
def test_an_error_of_the_disk_passes_through_with_its_path(disk, kind):
    for nth in range(1, calls_of(disk, kind) + 1):
        disk.faults.fail(kind, errno.EIO, nth=nth)
        with pytest.raises(OSError, match="c") as caught:
            read_all(disk)
        assert caught.value.errno == errno.EIO
        assert caught.value.filename.startswith("c")
        disk.faults.clear()
    assert read_all(disk) == 1


def calls_of(disk, kind):
    """How many operations of this kind one reading takes, but for those that only describe the files."""
    before = disk.faults.calls[kind]
    read_all(disk)
    described = 4 if kind == "open" else 0
    return disk.faults.calls[kind] - before - described


@pytest.mark.parametrize("kind", ["open_directory", "names", "open", "read", "map_private"])
def test_an_error_of_the_disk_while_verifying_is_no_finding(disk, kind):
    disk.faults.fail(kind, errno.EIO, times=None)
    with pytest.raises(OSError, match="c") as caught:
        verify_checkpoint(disk, "c")
    assert caught.value.errno == errno.EIO


def test_a_failed_opening_leaves_no_file_open(tmp_path):
    state = {f"s{number}": {"w": np.full(3, number)} for number in range(20)}
    path = str(tmp_path / "c")
    write_checkpoint(LocalDisk(), path, encode_state(state), check_options())
    (tmp_path / "c" / next(name for name in os.listdir(path) if name.startswith("s19"))).unlink()
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    for _ in range(3):
        with pytest.raises(CorruptError):
            OpenCheckpoint(LocalDisk(), path)
    assert not before or len(os.listdir("/proc/self/fd")) == before
