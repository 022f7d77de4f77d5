"""Who works on what: claims of several processes that share one progress. Spec 17.4.

A claim lives in a file of its claimer under `claims/`, and counts while the claimer holds the lock of its writer's directory: the claims
of a killed process lapse with it. Taking claims is one at a time, under the lock of `claims/` itself, which is held for moments.
Where a file system has no locks, claims are advisory and lapse after LEASE_SECONDS. Nothing here is durable, and need not be.
"""

from __future__ import annotations

import re
import secrets
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ckptfmt.disk.paths import join, make_directories
from ckptfmt.disk.protocol import Directory, Disk, LockState, WritableFile
from ckptfmt.errors import RunLockedError

CLAIMS_NAME = "claims"
LEASE_SECONDS = 3600.0
DIGEST_BYTES = 16
_ENTRY = struct.Struct(f"<Bd{DIGEST_BYTES}s")
_TAKEN, _RELEASED = 1, 0
_FULL_BYTES = 2**20
_WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.0005
_NAME = re.compile(r"([0-9a-f]{16})-[0-9a-f]{16}\.claims")


class _Others:
    """What one other claimer has claimed, as far as its file was read."""

    def __init__(self) -> None:
        self.offset_bytes = 0
        self.taken: dict[bytes, float] = {}


class Claims:
    """The claims of one writer, and what it knows of those of others."""

    def __init__(self, disk: Disk, path: str, writers_path: str, writer: str) -> None:
        make_directories(disk, path, durable=False)
        self._disk = disk
        self._path = path
        self._writers_path = writers_path
        self._writer = writer
        self._directory = disk.open_directory(path)
        self._own: dict[bytes, float] = {}
        self._file: WritableFile | None = None
        self._file_name = ""
        self._file_bytes = 0
        self._others: dict[str, _Others] = {}

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Keep everybody else from claiming while the block runs."""
        directory = self._disk.open_directory(self._path)
        try:
            deadline = time.monotonic() + _WAIT_SECONDS
            while directory.try_lock() is LockState.BUSY:
                if time.monotonic() > deadline:
                    raise RunLockedError(
                        f"{self._path}: another process has kept this locked for {_WAIT_SECONDS:.0f} s\n"
                        "A process that shares this progress may be stopped; end it or let it go on.",
                        path=self._path,
                    )
                time.sleep(_POLL_SECONDS)
            yield
        finally:
            directory.close()

    def of_others(self) -> set[bytes]:
        """Return what others are working on; to be asked in one's turn."""
        files = {name: match[1] for name in self._directory.names() if (match := _NAME.fullmatch(name)) and match[1] != self._writer}
        self._others = {name: self._others.get(name, _Others()) for name in files}
        alive: dict[str, LockState] = {}
        claimed: set[bytes] = set()
        for name, writer in files.items():
            if writer not in alive:
                alive[writer] = self._state_of(writer)
            if alive[writer] is LockState.HELD:
                with suppress(OSError):
                    self._directory.unlink(name)
                continue
            taken = self._read(name)
            lapsed_at = time.time() - LEASE_SECONDS if alive[writer] is LockState.UNSUPPORTED else 0.0
            claimed.update(digest for digest, at in taken.items() if at > lapsed_at)
        return claimed

    def take(self, digests: list[bytes]) -> None:
        """Claim keys by their digests; to be done in one's turn."""
        if self._file is None or self._file_bytes > _FULL_BYTES + 4 * _ENTRY.size * len(self._own):
            self._begin_file()
        now = time.time()
        self._append(_TAKEN, digests, now)
        self._own.update(dict.fromkeys(digests, now))

    def release(self, digests: list[bytes]) -> None:
        """Give claims up, so that others may take them."""
        given_up = [digest for digest in digests if self._own.pop(digest, None) is not None]
        if given_up:
            self._append(_RELEASED, given_up, time.time())

    def forget(self, digest: bytes) -> None:
        """Drop a claim on a unit that was finished: its record says more than the claim."""
        self._own.pop(digest, None)

    def close(self, *, is_owner: bool) -> None:
        """Give everything up. In a forked child only the files are closed."""
        try:
            if self._file is not None:
                self._file.close()
                if is_owner:
                    with suppress(OSError):
                        self._directory.unlink(self._file_name)
                self._file = None
        finally:
            self._directory.close()

    def _state_of(self, writer: str) -> LockState:
        """Return BUSY for a claimer that is alive, HELD for one that is not."""
        try:
            directory = self._disk.open_directory(join(self._writers_path, writer))
        except FileNotFoundError:
            return LockState.HELD
        try:
            return directory.try_lock()
        finally:
            directory.close()

    def _read(self, name: str) -> dict[bytes, float]:
        others = self._others[name]
        try:
            _, others.offset_bytes = _read_entries(self._directory, name, others.taken, others.offset_bytes)
        except FileNotFoundError:
            return {}
        return others.taken

    def _append(self, kind: int, digests: list[bytes], at: float) -> None:
        if self._file is not None:
            data = b"".join(_ENTRY.pack(kind, at, digest) for digest in digests)
            self._file.write(data)
            self._file_bytes += len(data)

    def _begin_file(self) -> None:
        """Begin a file with what is still claimed, and remove the one before."""
        old, old_name = self._file, self._file_name
        name = f"{self._writer}-{secrets.token_hex(8)}.claims"
        file = self._directory.create(name, size_bytes=_ENTRY.size * len(self._own))
        try:
            data = b"".join(_ENTRY.pack(_TAKEN, at, digest) for digest, at in self._own.items())
            file.write(data)
        except BaseException:
            file.close()
            with suppress(OSError):
                self._directory.unlink(name)
            raise
        self._file, self._file_name, self._file_bytes = file, name, len(data)
        if old is not None:
            old.close()
            with suppress(OSError):
                self._directory.unlink(old_name)


def read_claims(disk: Disk, path: str) -> dict[str, set[bytes]]:
    """Return what each writer has claimed in `path`, as digests of keys; what it has finished since is among it."""
    try:
        directory = disk.open_directory(path)
    except FileNotFoundError:
        return {}
    claimed: dict[str, set[bytes]] = {}
    try:
        for name in directory.names():
            if match := _NAME.fullmatch(name):
                with suppress(FileNotFoundError):
                    claimed.setdefault(match[1], set()).update(_read_entries(directory, name, {}, 0)[0])
    finally:
        directory.close()
    return claimed


def _read_entries(directory: Directory, name: str, taken: dict[bytes, float], offset_bytes: int) -> tuple[dict[bytes, float], int]:
    """Read what is new in a file of claims into `taken`, and return that and where the next entry begins."""
    file = directory.open(name)
    try:
        data = file.read(offset_bytes, max(0, file.size_bytes - offset_bytes))
    finally:
        file.close()
    whole_bytes = len(data) // _ENTRY.size * _ENTRY.size
    for kind, at, digest in _ENTRY.iter_unpack(data[:whole_bytes]):
        if kind == _TAKEN:
            taken[digest] = at
        else:
            taken.pop(digest, None)
    return taken, offset_bytes + whole_bytes


def remove_claims_of(disk: Disk, path: str, writer: str) -> None:
    """Remove what an earlier session of a writer left in `path`: it is dead, because the caller holds the writer's lock."""
    try:
        directory = disk.open_directory(path)
    except FileNotFoundError:
        return
    try:
        for name in directory.names():
            match = _NAME.fullmatch(name)
            if match and match[1] == writer:
                with suppress(OSError):
                    directory.unlink(name)
    finally:
        directory.close()
