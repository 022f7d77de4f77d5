"""One checkpoint, from its manifest, its metadata and the sizes of its files. No shard is opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from ckptfmt.checkpoint.directory import open_checkpoint_directory, read_manifest
from ckptfmt.checkpoint.metadata_file import read_metadata
from ckptfmt.disk.anywhere import AnyDisk
from ckptfmt.disk.remote import RemoteDirectory
from ckptfmt.disk.urls import is_url
from ckptfmt.format.layout import MANIFEST_NAME
from ckptfmt.format.manifest import FileEntry, Manifest, ShardEntry
from ckptfmt.format.metadata import Metadata

_DISK = AnyDisk()


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a checkpoint as its manifest declares it; `problem` says what is different on the disk.

    `identity` is the same for every name of one file, `name_count` how many names it has.
    """

    name: str
    size_bytes: int
    digest: str
    section: str | None
    problem: str | None
    identity: tuple[int, int] | None
    name_count: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint described. `files` begin with the manifest."""

    path: str
    manifest: Manifest
    metadata: Metadata
    files: Sequence[StoredFile]

    @property
    def size_bytes(self) -> int:
        """What its files take together."""
        return sum(file.size_bytes for file in self.files)

    @property
    def shared_bytes(self) -> int:
        """The part of it that other checkpoints use too, through hard links."""
        return sum(file.size_bytes for file in self.files if file.name_count > 1)


def read_checkpoint(path: str) -> Checkpoint:
    """Read what is known of a checkpoint without its tensors."""
    directory = open_checkpoint_directory(_DISK, path)
    try:
        manifest = read_manifest(directory)
        metadata = read_metadata(directory, manifest)
    finally:
        directory.close()
    return Checkpoint(path, manifest, metadata, stored_files(path, manifest))


def read_manifest_of(path: str) -> Manifest:
    """Read only the manifest."""
    directory = open_checkpoint_directory(_DISK, path)
    try:
        return read_manifest(directory)
    finally:
        directory.close()


def stored_files(path: str, manifest: Manifest) -> list[StoredFile]:
    """Return the manifest and every file that it names, compared with what the disk says of them."""
    if is_url(path):
        return _stored_objects(path, manifest)
    manifest_bytes = os.lstat(os.path.join(path, MANIFEST_NAME)).st_size
    own = FileEntry(MANIFEST_NAME, manifest_bytes, manifest.digest)
    return [_stored_file(path, entry) for entry in (own, *manifest.files())]


def _stored_objects(url: str, manifest: Manifest) -> list[StoredFile]:
    """Do as `stored_files` by what the store lists. Nobody shares an object."""
    directory = open_checkpoint_directory(_DISK, url)
    try:
        sizes = {entry.name: entry.size_bytes for entry in directory.listing().entries} if isinstance(directory, RemoteDirectory) else {}
    finally:
        directory.close()
    files = []
    for entry in (FileEntry(MANIFEST_NAME, sizes.get(MANIFEST_NAME, 0), manifest.digest), *manifest.files()):
        found_bytes = sizes.get(entry.name)
        problem = "missing" if found_bytes is None else None if found_bytes == entry.size_bytes else f"has {found_bytes:,} bytes"
        section = entry.section if isinstance(entry, ShardEntry) else None
        identity = None if found_bytes is None else (-1, hash(f"{url}/{entry.name}"))
        files.append(StoredFile(entry.name, entry.size_bytes, entry.digest, section, problem, identity, int(found_bytes is not None)))
    return files


def _stored_file(path: str, entry: FileEntry) -> StoredFile:
    section = entry.section if isinstance(entry, ShardEntry) else None
    try:
        status = os.lstat(os.path.join(path, entry.name))
    except FileNotFoundError:
        return StoredFile(entry.name, entry.size_bytes, entry.digest, section, "missing", None, 0)
    problem = None
    if not stat.S_ISREG(status.st_mode):
        problem = "not a regular file"
    elif status.st_size != entry.size_bytes:
        problem = f"has {status.st_size:,} bytes"
    identity = (status.st_dev, status.st_ino)
    return StoredFile(entry.name, entry.size_bytes, entry.digest, section, problem, identity, status.st_nlink)
