"""One writer for each run in a store: an object that says who writes, renewed while it does, and taken over when that has ended.

`.lease.json` is only ever changed by conditional writes. Its age is told by the store's own clock, so clocks that differ between machines
mean nothing. The owner counts from before its last renewal, and long before anybody may take over it renews before it writes. Every
change comes after a look at the lease. What remains is a process that is stopped for minutes between that look and its one request: of a
manifest the condition of the write finds that out. Spec 5.3.
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ckptfmt.checkpoint.store_staging import open_prefix
from ckptfmt.disk.object_store import ChangedMeanwhileError, Condition, Expected
from ckptfmt.disk.paths import make_directories
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import CheckpointError, RunLockedError, StoreUnavailableError
from ckptfmt.format import canonical_json
from ckptfmt.run.notices import warn

LEASE_NAME = ".lease.json"
RENEW_SECONDS = 20.0
# Since the last renewal: from when on the owner asks before it writes, and from when on another may take over. A request that was sent
# just before the first ends before the second.
SAFE_SECONDS = 50.0
EXPIRES_SECONDS = 120.0
_POLL_SECONDS = 2.0
_MAX_EXPIRES_SECONDS = 3600.0
_MAX_BYTES = 4096
_FORMAT = "ckptfmt-lease"


@dataclass(frozen=True, slots=True)
class _Found:
    """A lease as it lies in the store; `note` is empty where it cannot be read."""

    note: Mapping[str, Any]
    version: str

    @property
    def is_released(self) -> bool:
        return self.note.get("state") == "released"

    @property
    def expires_seconds(self) -> float:
        seconds = self.note.get("expires_seconds")
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds >= 0
        return min(float(seconds), _MAX_EXPIRES_SECONDS) if is_number and seconds is not None else EXPIRES_SECONDS


class Lease:
    """The right to write to the run at a URL, from `acquire` until `release`."""

    def __init__(self, disk: Disk, url: str) -> None:
        self._disk = disk
        self._url = url
        self._holder = secrets.token_hex(16)
        self._directory_id = ""
        self._since_utc = ""
        self._version: str | None = None
        self._safe_until = 0.0
        # What lay there instead.
        self._lost: Mapping[str, Any] | None = None
        self._pid = os.getpid()
        self._mutex = threading.RLock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_held(self) -> bool:
        """Whether it was acquired, and nothing speaks against it so far."""
        return self._version is not None and self._lost is None

    def acquire(self, directory_id: str, *, is_alone: bool) -> str | None:
        """Become the writer, or wait until it shows whether another one is alive. Return the last owner's directory, None without one.

        `directory_id` names the local directory. With `is_alone` its lock is held, so an owner from this directory has ended.

        Raises:
            RunLockedError: another process is writing.
        """
        self._directory_id, self._since_utc = directory_id, _now()
        make_directories(self._disk, self._url)
        while True:
            found = self._wait_for_turn(is_alone=is_alone)
            with suppress(FileExistsError, ChangedMeanwhileError):
                self._write("held", Condition.NOTHING if found is None else found.version)
                break
        self._thread = threading.Thread(target=self._renew_until_ended, name="ckptfmt-lease", daemon=True)
        self._thread.start()
        return None if found is None else str(found.note.get("directory", ""))

    def _is_own(self, found: _Found) -> bool:
        return found.note.get("directory") == self._directory_id and found.note.get("host") == socket.gethostname()

    def _wait_for_turn(self, *, is_alone: bool) -> _Found | None:
        """Return the lease that may be replaced, None where there is none."""
        first: _Found | None = None
        began = _seconds()
        while (found := self._read()) is not None:
            if found.is_released or (is_alone and self._is_own(found)):
                return found
            if first is not None and found.version != first.version:
                raise _refusal(self._url, found.note)
            if first is None:
                first = found
            age = self._age_seconds()
            if max(_seconds() - began, 0.0 if age is None else age) > found.expires_seconds:
                warn(f"{self._url}: {_owner(found.note)} has ended without giving the run up; it is taken over")
                return found
            time.sleep(min(_POLL_SECONDS, RENEW_SECONDS))
        return None

    def check(self) -> None:
        """Raise if it is known that this process may not write any more. Asks nobody."""
        if self._lost is not None:
            raise _refusal(self._url, self._lost, was_ours=True)
        if os.getpid() != self._pid:
            raise RunLockedError(f"{self._url}: this process was forked from the one that writes to this run\nOpen it where it is used.")

    def ask(self) -> None:
        """Raise a RunLockedError if the store says that another process has taken over; nothing if it does not answer."""
        self.check()
        with suppress(OSError):
            self._confirm()

    def before_change(self) -> None:
        """Look at the lease, and raise if nothing of the run may be changed now.

        Raises:
            RunLockedError: another process has taken over.
            StoreUnavailableError: it cannot be told.
        """
        self.check()
        try:
            self._confirm()
            if _seconds() >= self._safe_until:
                self.renew()
        except CheckpointError:
            raise
        except OSError as error:
            message = f"{self._url}: the store does not say whether this process may still write: {error.strerror}\nNothing was changed."
            raise StoreUnavailableError(message, path=self._url) from error

    def _confirm(self) -> None:
        with self._mutex:
            found = self._read()
            if found is None or found.note.get("holder") != self._holder:
                raise self._lose(found)
            # A renewal whose answer was lost may have made it another one.
            self._version = found.version

    def renew(self) -> None:
        """Say that this process is alive.

        Raises:
            RunLockedError: another process has taken over.
        """
        with self._mutex:
            self.check()
            if self._version is None:
                raise ValueError(f"{self._url}: the lease was not acquired")
            try:
                self._write("held", self._version)
            except (FileExistsError, FileNotFoundError, ChangedMeanwhileError):
                self._confirm()
                self._write("held", self._version)

    def release(self) -> None:
        """Give it up. What cannot be said to the store now, it finds out by the time."""
        self._ended.set()
        if self._thread is not None and os.getpid() == self._pid:
            self._thread.join()
        if self.is_held and os.getpid() == self._pid:
            with self._mutex, suppress(OSError, CheckpointError):
                try:
                    self._write("released", self._version or Condition.NOTHING)
                except (FileNotFoundError, ChangedMeanwhileError):
                    self._confirm()
                    self._write("released", self._version or Condition.NOTHING)
        self._version = None

    def _renew_until_ended(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            # Who needs it to be renewed hears of it then.
            with suppress(OSError, CheckpointError):
                self.renew()

    def _write(self, state: str, expected: Expected) -> None:
        note = {
            "directory": self._directory_id,
            "expires_seconds": EXPIRES_SECONDS,
            "format": _FORMAT,
            "holder": self._holder,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "renewed_at_utc": _now(),
            "since_utc": self._since_utc,
            "state": state,
            "user": _user(),
            "version": [1, 0],
        }
        began = _seconds()
        self._version = open_prefix(self._disk, self._url).write_if(LEASE_NAME, canonical_json.encode(note), expected)
        self._safe_until = began + SAFE_SECONDS

    def _read(self) -> _Found | None:
        try:
            piece = open_prefix(self._disk, self._url).read_start(LEASE_NAME, _MAX_BYTES)
        except FileNotFoundError:
            return None
        try:
            note = json.loads(piece.data)
        except ValueError:
            note = {}
        return _Found(note if isinstance(note, dict) else {}, "" if piece.status is None else piece.status.version)

    def _age_seconds(self) -> float | None:
        listing = open_prefix(self._disk, self._url).listing()
        times = [entry.modified_at for entry in listing.entries if entry.name == LEASE_NAME]
        return None if not times or times[0] is None else (listing.now - times[0]).total_seconds()

    def _lose(self, found: _Found | None) -> RunLockedError:
        self._lost = {} if found is None else found.note
        return _refusal(self._url, self._lost, was_ours=True)


def _refusal(url: str, note: Mapping[str, Any], *, was_ours: bool = False) -> RunLockedError:
    host, pid, since = note.get("host"), note.get("pid"), note.get("since_utc")
    since = since if isinstance(since, str) else None
    what = "has taken this run over" if was_ours else "is writing to this run"
    advice = (
        "It was away for too long, or somebody removed its lease. It has committed nothing since; what it has saved stays on this machine."
        if was_ours
        else "Wait for it or stop it, or use another URL. ckptfmt.load and ckpt-inspect read at any time."
    )
    return RunLockedError(
        f"{url}: {_owner(note)} {what}{f' since {since}' if since else ''}\n{advice}",
        path=url,
        host=host if isinstance(host, str) else None,
        pid=pid if type(pid) is int else None,
        since_utc=since,
    )


def _owner(note: Mapping[str, Any]) -> str:
    host, pid, user = note.get("host"), note.get("pid"), note.get("user")
    if not isinstance(host, str) or type(pid) is not int:
        return "another process"
    return f"process {pid}{f' of {user}' if isinstance(user, str) and user else ''} on {host}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds() -> float:
    """Return seconds of a clock that also counts while the machine sleeps, where there is one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
