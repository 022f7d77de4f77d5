"""Files and directories by what they hold. Spec fingerprint-1, 4.

A file counts by the digest of its content, a directory by the relative names and contents of all files below it; where they lie, when
they were written and in which order they are listed does not matter. Files are read in blocks, so memory is bounded.
Links are followed, as for any program that reads the data. Only the disk is asked; where it cannot tell a file's times, nothing
is remembered, and where it cannot follow links, a link is refused by name.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from ckptfmt.disk.paths import join, parent_of
from ckptfmt.disk.protocol import Directory, Disk, NotARegularFileError, ReadableFile
from ckptfmt.format.digest import Hasher, format_digest, parse_digest
from ckptfmt.run.fingerprint_cache import DigestCache, FileStatus, cache_key, is_settled

BLOCK_BYTES = 4 * 2**20
SAMPLE_BLOCK_BYTES = 2**20
SAMPLE_BLOCK_COUNT = 16
_LINK_ERRORS = frozenset({errno.ELOOP, errno.EMLINK})

Progress = Callable[[str, int, int], None]
"""Called with a path, the bytes of it that were read so far, and the bytes that will be read."""


@dataclass(frozen=True, slots=True)
class SampledFile:
    """A file or directory too large to be read whole: it counts by its size and 16 blocks of 1 MiB, spread evenly.

    A change between the blocks that leaves the size as it is goes unnoticed.
    """

    path: str | os.PathLike[str]


class DataHasher:
    """Computes digests of files and directories, with a cache and a callback for progress."""

    def __init__(self, disk: Disk, *, cache: DigestCache | None = None, progress: Progress | None = None) -> None:
        self._disk = disk
        self._cache = cache if cache is not None else DigestCache()
        self._progress = progress
        self._follow: Callable[[str], Any] | None = getattr(disk, "real_path", None)

    def digest_path(self, path: str, *, is_sampled: bool) -> tuple[str, str]:
        """Return type and digest of a file or directory.

        Raises:
            FileNotFoundError: it is not there.
            OSError: it cannot be read, is neither file nor directory, or changes all the time.
        """
        place = str(PurePath(path))
        prefix = "sampled-" if is_sampled else ""
        opened = self._open(place)
        if isinstance(opened, str):
            return f"{prefix}directory", self._digest_directory(opened, is_sampled=is_sampled)
        with closing(opened):
            return f"{prefix}file", self._digest_file(opened, place, self._real(place), is_sampled=is_sampled)

    def _real(self, path: str) -> str:
        return str(self._follow(path)) if self._follow is not None else path

    def _open(self, path: str) -> ReadableFile | str:
        """Open a file; for a directory return its path."""
        name = PurePath(path).name
        is_name = name not in ("", ".", "..")
        try:
            directory = self._disk.open_directory(parent_of(path) if is_name else path)
        except (FileNotFoundError, NotADirectoryError):
            raise _missing(path) from None
        with closing(directory):
            found = self._open_name(directory, name) if is_name else None
        return path if found is None else found

    def _open_name(self, directory: Directory, name: str) -> ReadableFile | None:
        """Open a file by its name; None for a directory. Links are followed."""
        path = join(directory.path, name)
        try:
            return directory.open(name)
        except FileNotFoundError:
            raise _missing(path) from None
        except NotARegularFileError as error:
            if error.errno == errno.EISDIR:
                return None
            if error.errno not in _LINK_ERRORS:
                raise NotARegularFileError(error.errno, "data of the fingerprint is neither a file nor a directory", path) from None
            if self._follow is None:
                raise NotARegularFileError(error.errno, "data of the fingerprint is a link; give the path that it leads to", path) from None
        try:
            target = self._open(self._real(path))
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "data of the fingerprint is a link that leads nowhere", path) from None
        return None if isinstance(target, str) else target

    def _digest_file(self, file: ReadableFile, path: str, place: str, *, is_sampled: bool) -> str:
        status = _find_status(file)
        if status is None:
            return self._read_digest(file, path, is_sampled=is_sampled)
        kind = "sampled" if is_sampled else "full"
        key = cache_key(kind, place, status)
        digest = self._cache.find(key)
        if digest is not None:
            return digest
        digest = self._read_digest(file, path, is_sampled=is_sampled)
        after = _find_status(file)
        if after is None or cache_key(kind, place, after) != key:
            raise _changing(path)
        if is_settled(status):
            self._cache.add(key, digest)
        return digest

    def _read_digest(self, file: ReadableFile, path: str, *, is_sampled: bool) -> str:
        size_bytes = file.size_bytes
        ranges = list(_sampled_ranges(size_bytes) if is_sampled else _all_ranges(size_bytes))
        total_bytes = sum(length for _, length in ranges)
        hasher = Hasher(max_threads=Hasher.AUTO) if total_bytes >= BLOCK_BYTES else Hasher()
        if is_sampled:
            hasher.update(size_bytes.to_bytes(8, "little"))
        done_bytes = 0
        for position, (offset_bytes, length) in enumerate(ranges):
            block = file.read(offset_bytes, length)
            if len(block) != length:
                raise _changing(path)
            if position + 1 < len(ranges):
                file.prefetch(*ranges[position + 1])
            hasher.update(block)
            done_bytes += length
            if self._progress is not None:
                self._progress(path, done_bytes, total_bytes)
        return format_digest(hasher.digest())

    def _digest_directory(self, path: str, *, is_sampled: bool) -> str:
        """Return the digest over all files below, in the order of their names' bytes: length and bytes of the name, digest."""
        entries = sorted(self._entries(path, b"", (), is_sampled=is_sampled))
        hasher = Hasher()
        for name, digest in entries:
            hasher.update(len(name).to_bytes(8, "little") + name + digest)
        return format_digest(hasher.digest())

    def _entries(self, path: str, prefix: bytes, above: tuple[str, ...], *, is_sampled: bool) -> Iterator[tuple[bytes, bytes]]:
        real = self._real(path)
        if real in above:
            raise OSError(errno.ELOOP, "data of the fingerprint holds a link to a directory above it", path)
        with closing(self._disk.open_directory(path)) as directory:
            below = []
            for name in directory.names():
                relative = prefix + name.encode("utf-8", "surrogateescape")
                file = self._open_name(directory, name)
                if file is None:
                    below.append((join(path, name), relative + b"/"))
                    continue
                with closing(file):
                    digest = self._digest_file(file, join(path, name), join(real, name), is_sampled=is_sampled)
                yield relative, parse_digest(digest)
        for child, relative in below:
            yield from self._entries(child, relative, (*above, real), is_sampled=is_sampled)


def _find_status(file: ReadableFile) -> FileStatus | None:
    ask: Callable[[], FileStatus | None] | None = getattr(file, "status", None)
    return None if ask is None else ask()


def _missing(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "data of the fingerprint is not there", path)


def _changing(path: str) -> OSError:
    return OSError(errno.EBUSY, "data of the fingerprint changes while it is read; wait until it is complete", path)


def _all_ranges(size_bytes: int) -> Iterator[tuple[int, int]]:
    for offset_bytes in range(0, size_bytes, BLOCK_BYTES):
        yield offset_bytes, min(BLOCK_BYTES, size_bytes - offset_bytes)


def _sampled_ranges(size_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield the first, the last and evenly spaced blocks; everything of a file that is no larger than they are together."""
    if size_bytes <= SAMPLE_BLOCK_COUNT * SAMPLE_BLOCK_BYTES:
        yield from _all_ranges(size_bytes)
        return
    for number in range(SAMPLE_BLOCK_COUNT):
        yield number * (size_bytes - SAMPLE_BLOCK_BYTES) // (SAMPLE_BLOCK_COUNT - 1), SAMPLE_BLOCK_BYTES


def field_names(paths: list[str]) -> list[str]:
    """Return a name for each of different paths: the last component, and as much of the parents as tells them apart."""
    parts = [PurePath(path).parts or (path,) for path in paths]
    counts = [1] * len(paths)
    while True:
        names = ["/".join(part[-count:]).replace("//", "/") for part, count in zip(parts, counts, strict=True)]
        groups: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            groups.setdefault(name, []).append(index)
        growing = [index for group in groups.values() if len(group) > 1 for index in group if counts[index] < len(parts[index])]
        if not growing:
            return names
        for index in growing:
            counts[index] += 1
