"""Trying out file systems: real ones, one in memory that is told to fail, and ones that are odd."""

from __future__ import annotations

import errno
import os

import pytest

from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.probe import Answer, probe
from ckptfmt.disk.probe_host import MOUNT_LIST, Mount, describe_mount, find_mount, probe_host


@pytest.fixture
def memory():
    disk = MemoryDisk()
    disk.make_directory("/d")
    return disk


def answers(trials):
    return {trial.name: trial.answer.value for trial in trials if trial.answer is not Answer.WORKS}


class OddDirectory:
    """A directory whose names pass through a function first."""

    def __init__(self, inner, rename_name):
        self.inner = inner
        self.change = rename_name

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def create(self, name, *, size_bytes):
        return self.inner.create(self.change(name), size_bytes=size_bytes)


class OddDisk:
    """A disk whose directories are odd."""

    def __init__(self, inner, make):
        self.inner = inner
        self.make = make

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def open_directory(self, path):
        return self.make(self.inner.open_directory(path))


def test_a_sound_disk_passes_every_trial_and_keeps_nothing(memory):
    trials = probe(memory, "/d")

    # A disk in memory has no times.
    assert answers(trials) == {"clock": "unknown"}
    assert memory.contents() == {"/d": None}


@pytest.mark.parametrize(
    ("kind", "code", "expected"),
    [
        ("make_directory", errno.EROFS, {"write": "failed"}),
        ("link", errno.EPERM, {"hard_links": "different"}),
        ("link", errno.EIO, {"hard_links": "failed"}),
        ("lock", errno.ENOLCK, {"lock": "different"}),
        ("sync_directory", errno.EIO, {"directory_sync": "failed"}),
        ("rename", errno.EIO, {"rename_over": "failed"}),
        ("map_private", errno.ENODEV, {"private_map": "failed"}),
        ("free_bytes", errno.EIO, {"free_bytes": "failed"}),
    ],
)
def test_what_a_disk_refuses_is_the_answer_of_its_trial(memory, kind, code, expected):
    memory.faults.fail(kind, code, times=None)

    assert {name: answer for name, answer in answers(probe(memory, "/d")).items() if name != "clock"} == expected
    assert memory.contents() == {"/d": None}


def test_any_one_failure_is_an_answer_and_never_an_error(memory):
    for nth in range(2, 200):
        memory.faults.clear()
        before = memory.faults.calls["any"]
        memory.faults.fail("any", errno.EIO, nth=nth)
        trials = probe(memory, "/d")
        if memory.faults.calls["any"] - before < nth:
            break
        told = answers(trials)
        left = [path for path in memory.contents() if path != "/d"]
        assert len(told) > 1 or not left, f"operation {nth} failed and nothing was told"
        assert "removal" in told or not left
        memory.faults.clear()
        for path in sorted(left, reverse=True):
            if memory.contents()[path] is None:
                memory.remove_directory(path)
            else:
                folder = memory.open_directory(os.path.dirname(path))
                folder.unlink(os.path.basename(path))
                folder.close()
    else:
        pytest.fail("the probe never came to its end")
    assert nth > 60


def test_a_full_disk_cannot_be_written(memory):
    full = MemoryDisk(capacity_bytes=10)
    full.make_directory("/d")
    trials = probe(full, "/d")

    assert [(trial.name, trial.answer) for trial in trials] == [("write", Answer.FAILED), ("removal", Answer.WORKS)]
    assert trials[0].found == "no space left on device"


def test_names_that_differ_in_case_may_be_one(memory):
    disk = OddDisk(memory, lambda inner: OddDirectory(inner, str.lower))

    assert answers(probe(disk, "/d"))["case"] == "different"


@pytest.mark.parametrize("longest", [143, 100, 8])
def test_the_length_of_names_is_measured(memory, longest):
    def check(name):
        if len(name) > longest and name.startswith("n"):
            raise OSError(errno.ENAMETOOLONG, "File name too long")
        return name

    trials = {trial.name: trial for trial in probe(OddDisk(memory, lambda inner: OddDirectory(inner, check)), "/d")}

    assert (trials["name_length"].answer, trials["name_length"].value) == (Answer.DIFFERENT, longest)


def test_a_missing_directory_is_an_error(memory, tmp_path):
    with pytest.raises(FileNotFoundError):
        probe(memory, "/nowhere")
    with pytest.raises(FileNotFoundError):
        probe_host(str(tmp_path / "nowhere"))


def test_an_interrupt_leaves_nothing_behind(memory):
    class Interrupted(OddDirectory):
        def try_lock(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe(OddDisk(memory, lambda inner: Interrupted(inner, str)), "/d")

    assert memory.contents() == {"/d": None}


# This machine


def test_this_machine_is_tried_and_left_as_it_was(tmp_path):
    trials = {trial.name: trial for trial in probe_host(str(tmp_path))}

    assert os.listdir(tmp_path) == []
    for name in ("write", "exclusive_create", "rename_over", "open_after_unlink", "private_map", "directory_sync", "removal"):
        assert trials[name].answer is Answer.WORKS, trials[name]
    assert trials["sync_seconds"].value > 0
    assert trials["free_bytes"].value > 0


def test_a_second_process_is_refused_the_lock_where_locks_work(tmp_path):
    held = LocalDisk().open_directory(str(tmp_path))
    trials = {trial.name: trial for trial in probe_host(str(tmp_path))}

    assert trials["lock"].answer is (Answer.WORKS if held.try_lock().value == "held" else Answer.DIFFERENT)
    held.close()


def memory_directories():
    """Directories of this machine that lie in memory, as far as anything can be written there."""
    with open(MOUNT_LIST, encoding="utf-8") as file:
        points = [line.split()[4] for line in file if " - tmpfs " in line or " - ramfs " in line]
    return [point for point in points if os.access(point, os.W_OK) and not point.startswith("/sys")]


def test_what_lies_in_memory_is_told_so():
    assert next(describe_mount(Mount("/t", "tmpfs", frozenset()))).answer is Answer.FAILED
    for point in memory_directories()[:1]:
        trials = {trial.name: trial for trial in probe_host(point)}
        assert (trials["file_system"].answer, trials["file_system"].value) == (Answer.FAILED, "tmpfs")
        assert trials["write"].answer is Answer.WORKS


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 22 0:26 / /mnt/my\\040drive rw,relatime - fuse.rclone drive: rw,user_id=0
32 22 0:27 / /mnt/nfs ro,relatime shared:5 master:1 - nfs4 server:/x rw,vers=4.2
33 22 8:1 / /mnt/fast rw - ext4 /dev/sda1 rw,nobarrier
34 22 0:29 / /mnt/nfs/local rw - xfs /dev/sdb rw
35 22 0:30 / /mnt/nfs/local rw - btrfs /dev/sdc rw
short line
"""


@pytest.mark.parametrize(
    ("path", "kind", "expected"),
    [
        ("/home/x", "ext4", {}),
        ("/mnt/my drive/runs", "fuse.rclone", {"file_system": "different"}),
        ("/mnt/nfs/runs", "nfs4", {"file_system": "different"}),
        ("/mnt/nfsx", "ext4", {}),
        ("/mnt/fast", "ext4", {"write_barriers": "failed"}),
        ("/mnt/nfs/local/runs", "btrfs", {}),
    ],
)
def test_mounts_are_found_and_judged(tmp_path, path, kind, expected):
    (tmp_path / "mountinfo").write_text(MOUNTS)
    mount = find_mount(path, str(tmp_path / "mountinfo"))

    assert mount.kind == kind
    assert answers(describe_mount(mount)) == expected


def test_a_system_without_a_list_of_mounts_tells_nothing(tmp_path):
    assert find_mount("/", str(tmp_path / "nothing")) is None
    assert [trial.answer for trial in describe_mount(None)] == [Answer.UNKNOWN]
