"""What files were found to hold, remembered by their size, times and inode, so that unchanged files are not read again.

A hint, nothing more: a cache that is missing, damaged, unreadable or cannot be written costs time and changes no answer. It holds
digests and numbers, never paths as text.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import PurePath
from typing import Any, Protocol

from ckptfmt.disk.paths import parent_of
from ckptfmt.disk.protocol import Directory, Disk
from ckptfmt.errors import FormatError
from ckptfmt.format import canonical_json
from ckptfmt.format.digest import digest_of, format_digest, is_digest
from ckptfmt.format.layout import temporary_name

MAX_CACHE_BYTES = 16 * 2**20
MAX_ENTRIES = 50_000
VERSION = 1
# A file that changed so recently may change again within the same tick of a coarse clock.
SETTLED_NS = 3 * 10**9


class FileStatus(Protocol):
    """What a disk can tell about an open file without reading it."""

    @property
    def size_bytes(self) -> int: ...
    @property
    def modified_ns(self) -> int: ...
    @property
    def changed_ns(self) -> int: ...
    @property
    def inode(self) -> int: ...


def cache_key(kind: str, path: str, status: FileStatus) -> str:
    """Return the key of a file: its place, and what changes whenever its content does."""
    place = digest_of(path.encode("utf-8", "surrogateescape")).hex()[:16]
    return f"{kind} {place} {status.inode} {status.size_bytes} {status.modified_ns} {status.changed_ns}"


def is_settled(status: FileStatus) -> bool:
    """Tell whether the times of a file are so old that a later change must show in them."""
    return time.time_ns() - max(status.modified_ns, status.changed_ns) > SETTLED_NS


class DigestCache:
    """Digests by key. Entries that were used last are kept longest. `is_changed` tells whether something was learned."""

    def __init__(self, entries: Mapping[str, str] | None = None) -> None:
        self._entries = dict(entries or {})
        self.is_changed = False

    def find(self, key: str) -> str | None:
        """Return the digest under a key, None where it is not known."""
        digest = self._entries.pop(key, None)
        if digest is not None:
            self._entries[key] = digest
        return digest

    def add(self, key: str, digest: str) -> None:
        """Remember a digest."""
        self._entries.pop(key, None)
        self._entries[key] = digest
        self.is_changed = True

    def encode(self) -> bytes:
        """Return the cache as a document that carries a digest of its entries."""
        entries = [[key, digest] for key, digest in self._entries.items()][-MAX_ENTRIES:]
        return canonical_json.encode({"version": VERSION, "check": _check_of(entries), "entries": entries})

    def __len__(self) -> int:
        return len(self._entries)


def _check_of(entries: list[Any]) -> str:
    return format_digest(digest_of(canonical_json.encode(entries)))


def decode_cache(data: bytes) -> DigestCache:
    """Return the cache in these bytes; an empty one if anything about them is wrong."""
    try:
        document = canonical_json.decode(data, where="cache", rule="E003", max_depth=8)
    except FormatError:
        return DigestCache()
    if type(document) is not dict or document.get("version") != VERSION:
        return DigestCache()
    entries = document.get("entries")
    if type(entries) is not list or len(entries) > MAX_ENTRIES or document.get("check") != _check_of(entries):
        return DigestCache()
    pairs = [entry for entry in entries if type(entry) is list and len(entry) == 2 and type(entry[0]) is str and is_digest(entry[1])]
    return DigestCache(dict(pairs))


def read_cache(disk: Disk, path: str) -> DigestCache:
    """Read a cache; an empty one where there is none that can be used."""
    try:
        directory = disk.open_directory(parent_of(path))
    except OSError:
        return DigestCache()
    try:
        file = directory.open(PurePath(path).name)
    except (OSError, ValueError):
        return DigestCache()
    else:
        try:
            return decode_cache(file.read(0, file.size_bytes)) if file.size_bytes <= MAX_CACHE_BYTES else DigestCache()
        except OSError:
            return DigestCache()
        finally:
            file.close()
    finally:
        directory.close()


def write_cache(disk: Disk, path: str, cache: DigestCache) -> bool:
    """Put a cache in place, in a directory that exists already; tell whether that was possible."""
    try:
        directory = disk.open_directory(parent_of(path))
    except OSError:
        return False
    try:
        return _replace(directory, PurePath(path).name, cache.encode())
    finally:
        directory.close()


def _replace(directory: Directory, name: str, data: bytes) -> bool:
    temporary = temporary_name("data-digests", secrets.token_hex(16))
    try:
        file = directory.create(temporary, size_bytes=len(data))
        try:
            file.write(data)
        finally:
            file.close()
        directory.rename(temporary, name)
    except (OSError, ValueError):
        with suppress(OSError):
            directory.unlink(temporary)
        return False
    return True
