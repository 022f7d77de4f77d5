"""The disks that the contract is run against, and the two lines that most of its cases begin with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.protocol import Directory, Disk
from ckptfmt.disk.recording import RecordingDisk


@dataclass(frozen=True)
class Harness:
    """A disk with an empty directory at `root`, which is also one of this machine where `is_on_host`."""

    disk: Disk
    root: str
    is_on_host: bool

    def path(self, name: str) -> str:
        """Return the path of a name in the root."""
        return f"{self.root}/{name}"

    @property
    def host(self) -> Path:
        """The root, for the system's own calls."""
        return Path(self.root)


def local(tmp_path: Path) -> Harness:
    """Make a disk of this machine."""
    return Harness(LocalDisk(), str(tmp_path), is_on_host=True)


def memory(tmp_path: Path) -> Harness:
    """Make a disk in memory."""
    disk = MemoryDisk()
    disk.make_directory("/root")
    return Harness(disk, "/root", is_on_host=False)


def recording_local(tmp_path: Path) -> Harness:
    """Make a recording of a disk of this machine."""
    return Harness(RecordingDisk(LocalDisk()), str(tmp_path), is_on_host=True)


def recording_memory(tmp_path: Path) -> Harness:
    """Make a recording of a disk in memory."""
    harness = memory(tmp_path)
    return Harness(RecordingDisk(harness.disk), harness.root, is_on_host=False)


# A new disk is added here.
HARNESSES: list[Callable[[Path], Harness]] = [local, memory, recording_local, recording_memory]
HOST_HARNESSES: list[Callable[[Path], Harness]] = [local, recording_local]


def put(directory: Directory, name: str, content: bytes) -> None:
    """Write a file and sync it."""
    file = directory.create(name, size_bytes=len(content))
    file.write(content)
    file.sync()
    file.close()


def get(directory: Directory, name: str) -> bytes:
    """Read a file."""
    file = directory.open(name)
    try:
        return file.read(0, file.size_bytes)
    finally:
        file.close()
