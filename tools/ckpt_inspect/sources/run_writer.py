"""Who writes to a run right now: the note in it says who, the lock on its directory says whether that still holds.

Looking must not get in the way of a run that is starting, so the system's list of locks is asked before the lock itself: for a moment
a probe is a lock too. It is left to what the list cannot show, which is a writer on another machine.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

if sys.platform != "win32":
    import fcntl

_NOTE_NAME = ".lock"
_MAX_NOTE_BYTES = 4096
_LOCK_LIST = "/proc/locks"


@dataclass(frozen=True, slots=True)
class RunWriter:
    """A process that holds the lock of a run, as it says itself."""

    host: str
    pid: int
    since_utc: str


def find_writer(path: str) -> RunWriter | None:
    """Return the process that is writing to a run, None where there is none."""
    writer = find_last_writer(path)
    if writer is None or sys.platform == "win32":
        return None
    try:
        held = _is_listed(os.stat(path), writer.pid)
        if held or (held is False and writer.host == socket.gethostname()):
            return writer if held else None
        return writer if _is_held(path) else None
    except OSError:
        return None


def is_locked(path: str) -> bool:
    """Tell whether a process holds the lock of a directory, as far as this machine knows."""
    if sys.platform == "win32":
        return False
    try:
        held = _is_listed(os.stat(path), None)
        return _is_held(path) if held is None else held
    except OSError:
        return False


def find_last_writer(path: str) -> RunWriter | None:
    """Return the process that wrote to a run last, whether it still does or has ended."""
    return _find_note(os.path.join(path, _NOTE_NAME))


def _find_note(path: str) -> RunWriter | None:
    with suppress(OSError, ValueError):
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        try:
            note: Any = json.loads(os.read(number, _MAX_NOTE_BYTES))
        finally:
            os.close(number)
        if isinstance(note, dict):
            host, pid, since = note.get("host"), note.get("pid"), note.get("since_utc")
            if isinstance(host, str) and type(pid) is int and isinstance(since, str):
                return RunWriter(host, pid, since)
    return None


def _is_listed(status: os.stat_result, pid: int | None) -> bool | None:
    """Tell whether the system lists an exclusive lock on a file; None where it has no such list.

    Some file systems list another device than `stat` names; there the process has to be the right one, where it is known.
    """
    device = (os.major(status.st_dev), os.minor(status.st_dev))
    try:
        with open(_LOCK_LIST, encoding="ascii") as file:
            lines = [line.split() for line in file]
    except OSError:
        return None
    for line in lines:
        if line[1:2] == ["FLOCK"] and line[3:4] == ["WRITE"] and len(line) > 5:
            major, minor, inode = line[5].split(":")
            if int(inode) == status.st_ino and ((int(major, 16), int(minor, 16)) == device or pid is None or line[4] == str(pid)):
                return True
    return False


def _is_held(path: str) -> bool:
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(number)
    return False
