"""Opening a checkpoint's directory and reading its manifest: what writer, reader, verifier and deletion share. Spec 3, 4."""

from __future__ import annotations

from collections.abc import Sequence

from ckptfmt.checkpoint.info import CheckpointInfo, describe
from ckptfmt.checkpoint.unread_file import UnreadFile
from ckptfmt.disk.protocol import Directory, Disk, NotARegularFileError, ReadableFile
from ckptfmt.disk.remote import RemoteDirectory
from ckptfmt.errors import CheckpointNotFoundError, IncompleteError
from ckptfmt.format.layout import MANIFEST_NAME, MAX_MANIFEST_BYTES
from ckptfmt.format.manifest import FileEntry, Manifest, decode_manifest
from ckptfmt.format.rules import violation


def open_checkpoint_directory(disk: Disk, path: str) -> Directory:
    """Open the directory of a checkpoint that must exist."""
    try:
        return disk.open_directory(path)
    except FileNotFoundError:
        raise CheckpointNotFoundError(f"{path}: no such checkpoint\nThere is nothing under this path.", path=path) from None
    except NotADirectoryError:
        raise CheckpointNotFoundError(
            f"{path}: not a checkpoint: expected a directory, found a file\nckpt-inspect reads foreign files too.", path=path
        ) from None


def read_manifest(directory: Directory) -> Manifest:
    """Read and check the manifest.

    Raises:
        IncompleteError: there is none, so this directory is no checkpoint, or not yet.
        FormatError: it breaks a rule of the specification.
    """
    where = f"{directory.path}/{MANIFEST_NAME}"
    try:
        file = directory.open(MANIFEST_NAME)
    except FileNotFoundError:
        raise IncompleteError(
            f"{directory.path}: not a checkpoint: no manifest.json [E001]\nA save is in progress or was interrupted before its commit.",
            path=directory.path,
        ) from None
    except NotARegularFileError:
        raise violation("E013", where) from None
    try:
        if file.size_bytes > MAX_MANIFEST_BYTES:
            raise violation("E002", where, expected=f"at most {MAX_MANIFEST_BYTES} bytes", found=file.size_bytes)
        return decode_manifest(file.read(0, file.size_bytes), where=where)
    finally:
        file.close()


def find_manifest(directory: Directory) -> Manifest | None:
    """Read the manifest, or return None where there is none."""
    try:
        return read_manifest(directory)
    except IncompleteError:
        return None


def describe_directory(directory: Directory, manifest: Manifest, shards: Sequence[ReadableFile] | None = None) -> CheckpointInfo:
    """Return the info of an open checkpoint; what it shares by hard links is asked of the file system, of `shards` where they are open."""
    if isinstance(directory, RemoteDirectory):
        # In a store nothing is shared, and what is there is asked for when it is read.
        return describe(directory.path, manifest, manifest_bytes=directory.last_seen_bytes(MANIFEST_NAME), shared_bytes=0)
    sizes, shared_bytes = [], sum(shard.size_bytes for shard in shards or () if shard.link_count > 1)
    entries = manifest.files() if shards is None else [manifest.metadata]
    for name in (MANIFEST_NAME, *(entry.name for entry in entries)):
        try:
            file = directory.open(name)
        except OSError:
            # What is missing is the verifier's to report.
            continue
        sizes.append(file.size_bytes)
        shared_bytes += file.size_bytes if file.link_count > 1 else 0
        file.close()
    return describe(directory.path, manifest, manifest_bytes=sizes[0] if sizes else 0, shared_bytes=shared_bytes)


def open_named_file(directory: Directory, entry: FileEntry) -> ReadableFile:
    """Open a file that the manifest names, and check that it is a regular file of the declared size."""
    where = f"{directory.path}/{entry.name}"
    file: ReadableFile
    try:
        file = directory.open_unread(entry.name) if isinstance(directory, RemoteDirectory) else directory.open(entry.name)
    except FileNotFoundError:
        raise violation("E012", where, advice="The checkpoint is incomplete; use another copy.") from None
    except NotARegularFileError:
        raise violation("E013", where) from None
    if file.size_bytes != entry.size_bytes:
        file.close()
        expected, found = f"{entry.size_bytes} bytes", f"{file.size_bytes} bytes"
        raise violation("E014", where, expected=expected, found=found, advice="The file is truncated or damaged; use another copy.")
    return file


def open_to_read(directory: Directory, entry: FileEntry) -> ReadableFile:
    """Do as `open_named_file`, but leave it to the first read to look for a file of a store, which costs no request of its own."""
    return UnreadFile(directory, entry) if isinstance(directory, RemoteDirectory) else open_named_file(directory, entry)
