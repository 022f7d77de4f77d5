"""One writer for each run: a lock that ends with its process, and a note that says who holds it.

The lock is on the run's directory itself, so there is no lock file that could be deleted under its owner or outlive it. `.lock`
is only the note: it is written by the owner, read for the message of a refusal, and means nothing without the lock.
Safety does not depend on any of this: names are unique and a commit is one rename. Where a file system has no locks the run
goes on without one.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from ckptfmt.disk.protocol import Directory, Disk, LockState
from ckptfmt.errors import CheckpointError, RunLockedError
from ckptfmt.format import canonical_json

NOTE_NAME = ".lock"
_MAX_NOTE_BYTES = 4096
_READ_ONLY = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class WriterLock:
    """The writer's lock of one run, held until `release` or the end of the process."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._directory = disk.open_directory(path)
        try:
            self.state = self._directory.try_lock()
            if self.state is LockState.BUSY:
                raise _refusal(path, _read_note(self._directory))
            if self.state is LockState.HELD:
                _write_note(self._directory)
        except BaseException:
            self._directory.close()
            raise

    def release(self) -> None:
        """Give the lock up; harmless when that has happened."""
        self._directory.close()


@contextmanager
def naming_a_read_only_run(path: str) -> Iterator[None]:
    """Add to a refusal to write what it means for the run."""
    try:
        yield
    except OSError as error:
        if error.errno in _READ_ONLY and not isinstance(error, CheckpointError) and not getattr(error, "__notes__", None):
            error.add_note(f"{path}: this run cannot be written to. Reading and restoring work. To go on, make it writable or copy it.")
        raise


def _write_note(directory: Directory) -> None:
    note = canonical_json.encode(
        {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since_utc": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    )
    temporary = f".lock.{secrets.token_hex(16)}.tmp"
    try:
        file = directory.create(temporary, size_bytes=len(note))
        try:
            file.write(note)
        finally:
            file.close()
        directory.rename(temporary, NOTE_NAME)
    except OSError as error:
        if error.errno in _READ_ONLY:
            # Nothing else could be written either: better said now, and of the run.
            raise OSError(error.errno, error.strerror, directory.path) from None
        # Only a courtesy to whoever is refused, so a full disk must not stop the owner here.
        with suppress(OSError):
            directory.unlink(temporary)


def _read_note(directory: Directory) -> dict[str, Any]:
    try:
        file = directory.open(NOTE_NAME)
    except OSError:
        return {}
    try:
        note = json.loads(file.read(0, _MAX_NOTE_BYTES))
    except (ValueError, OSError):
        return {}
    finally:
        file.close()
    return note if isinstance(note, dict) else {}


def _refusal(path: str, note: dict[str, Any]) -> RunLockedError:
    host, pid, since = note.get("host"), note.get("pid"), note.get("since_utc")
    host = host if isinstance(host, str) else None
    pid = pid if type(pid) is int else None
    since = since if isinstance(since, str) else None
    owner = f"process {pid} on {host}" if pid is not None and host is not None else "another process"
    return RunLockedError(
        f"{path}: {owner} is writing to this run{f' since {since}' if since else ''}\n"
        "Wait for it or stop it, or use another directory. Reading is possible at any time.",
        path=path,
        host=host,
        pid=pid,
        since_utc=since,
    )
