"""Seals of directories that other programs wrote: which files belong to one, with their digests. Spec seal-1.

Sealing syncs every file before it writes the seal, so a directory whose seal verifies is whole on the disk too.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.paths import join
from ckptfmt.disk.protocol import Directory, Disk, NotARegularFileError
from ckptfmt.errors import CheckpointNotFoundError, CorruptError, FormatError, IncompleteError, UnsupportedVersionError
from ckptfmt.format import canonical_json
from ckptfmt.format.digest import ZEROED, Hasher, digest_of, format_digest, short
from ckptfmt.format.layout import temporary_name

SEAL_NAME = "ckptfmt-seal.json"
_MAX_SEAL_BYTES = 16 * 2**20
_BLOCK_BYTES = 8 * 2**20
_MEMBERS = {"format", "version", "sealed_at_utc", "files", "digest"}
_FILE_MEMBERS = {"name", "size_bytes", "digest"}

PathLike = str | os.PathLike[str]


def seal_directory(path: PathLike, *, disk: Disk | None = None) -> str:
    """Make every file of a directory durable, write a seal with their digests, and return the seal's own digest.

    Raises:
        CheckpointNotFoundError: there is no such directory.
        NotARegularFileError: it holds a link or a special file.
    """
    disk = disk or LocalDisk()
    directory = _open(disk, os.fspath(path))
    try:
        files = [_entry(name, inner, below) for name, inner, below in _walk(disk, directory, "")]
        document = {
            "format": "ckptfmt-seal",
            "version": [1, 0],
            "sealed_at_utc": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "files": sorted(files, key=lambda entry: entry["name"]),
            "digest": ZEROED,
        }
        document["digest"] = format_digest(digest_of(canonical_json.encode(document)))
        _publish(directory, canonical_json.encode(document))
        return str(document["digest"])
    finally:
        directory.close()


def check_seal(path: PathLike, *, disk: Disk | None = None) -> str:
    """Check a sealed directory, every byte, and return the seal's digest.

    Raises:
        IncompleteError: it has no seal, so whoever wrote it may not have finished.
        CorruptError: a file is missing, has another size or other bytes, or the seal itself is damaged.
        CheckpointNotFoundError: there is no such directory.
    """
    disk = disk or LocalDisk()
    directory = _open(disk, os.fspath(path))
    try:
        document = _read(directory)
        for entry in document["files"]:
            _check_file(disk, directory.path, entry)
        return str(document["digest"])
    finally:
        directory.close()


def _open(disk: Disk, path: str) -> Directory:
    try:
        return disk.open_directory(path)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointNotFoundError(f"{path}: no such directory", path=path) from None


def _walk(disk: Disk, directory: Directory, prefix: str) -> Iterator[tuple[str, Directory, str]]:
    """Yield (whole name, directory, name in it) of each file; every directory is synced when its files have been seen."""
    for name in directory.names():
        if name.startswith(".") or (not prefix and name == SEAL_NAME):
            continue
        try:
            inner = disk.open_directory(join(directory.path, name))
        except NotADirectoryError:
            yield prefix + name, directory, name
            continue
        try:
            yield from _walk(disk, inner, f"{prefix}{name}/")
        finally:
            inner.close()
    directory.sync()


def _entry(name: str, directory: Directory, below: str) -> dict[str, Any]:
    directory.sync_file(below)
    file = directory.open(below)
    try:
        hasher = Hasher()
        for offset in range(0, file.size_bytes, _BLOCK_BYTES):
            hasher.update(file.read(offset, _BLOCK_BYTES))
        return {"name": name, "size_bytes": file.size_bytes, "digest": format_digest(hasher.digest())}
    finally:
        file.close()


def _publish(directory: Directory, data: bytes) -> None:
    temporary = temporary_name("seal", secrets.token_hex(16))
    file = directory.create(temporary, size_bytes=len(data))
    try:
        file.write(data)
        file.sync()
    except BaseException:
        file.close()
        directory.unlink(temporary)
        raise
    file.close()
    directory.rename(temporary, SEAL_NAME)
    directory.sync()


def _read(directory: Directory) -> dict[str, Any]:
    where = f"{directory.path}/{SEAL_NAME}"
    try:
        file = directory.open(SEAL_NAME)
    except FileNotFoundError:
        raise IncompleteError(
            f"{directory.path}: not sealed: no {SEAL_NAME}\nWhoever wrote it has not finished, or does not seal.", path=directory.path
        ) from None
    try:
        if file.size_bytes > _MAX_SEAL_BYTES:
            raise _damaged(where, f"{file.size_bytes:,} bytes are too many for a seal")
        data = file.read(0, file.size_bytes)
    finally:
        file.close()
    try:
        document = canonical_json.decode(data, where=where, rule="E003", max_depth=4)
    except FormatError as error:
        raise _damaged(where, str(error).partition(": ")[2] or str(error)) from None
    if type(document) is not dict or document.get("format") != "ckptfmt-seal":
        raise _damaged(where, "not a seal")
    version = document.get("version")
    if type(version) is not list or version[:1] != [1]:
        raise UnsupportedVersionError(f"{where}: version {version} is not known here\nUpdate ckptfmt.", path=where)
    if document.keys() != _MEMBERS or type(document["digest"]) is not str or not _are_files(document["files"]):
        raise _damaged(where, "its members are not those of a seal")
    if (
        canonical_json.encode(document) != data
        or format_digest(digest_of(canonical_json.encode({**document, "digest": ZEROED}))) != (document["digest"])
    ):
        raise _damaged(where, "its own digest differs")
    return document


def _are_files(files: Any) -> bool:
    return type(files) is list and all(
        type(entry) is dict
        and entry.keys() == _FILE_MEMBERS
        and type(entry["name"]) is str
        and type(entry["size_bytes"]) is int
        and not {"", ".", ".."} & set(entry["name"].split("/"))
        for entry in files
    )


def _check_file(disk: Disk, path: str, entry: dict[str, Any]) -> None:
    *parents, name = entry["name"].split("/")
    where = f"{path}/{entry['name']}"
    try:
        directory = disk.open_directory("/".join([path, *parents]))
        try:
            file = directory.open(name)
        finally:
            directory.close()
    except (FileNotFoundError, NotADirectoryError, NotARegularFileError):
        raise _damaged(where, "missing, or no regular file") from None
    try:
        if file.size_bytes != entry["size_bytes"]:
            raise _damaged(where, f"size differs: seal {entry['size_bytes']} bytes, file {file.size_bytes} bytes")
        hasher = Hasher()
        for offset in range(0, file.size_bytes, _BLOCK_BYTES):
            hasher.update(file.read(offset, _BLOCK_BYTES))
    finally:
        file.close()
    found = format_digest(hasher.digest())
    if found != entry["digest"]:
        raise _damaged(where, f"digest differs: seal {short(entry['digest'])}, file {short(found)}")


def _damaged(where: str, what: str) -> CorruptError:
    return CorruptError(f"{where}: {what}\nThe directory is damaged or was changed after it was sealed.", path=where)
