"""Copying checkpoints and `run.json` between directories that share nothing: no hard links, no locks, no renames that replace.

A file is written under a temporary name, synced, and renamed to a name that is free. A checkpoint gets its manifest after all its files
were read back and verified. Where `run.json` is replaced, its new content is durable under another name while it has none, and is
found there. An object store has nothing but whole objects, which come under their own names. Nothing here decides what is copied.
"""

from __future__ import annotations

import errno
import secrets
from contextlib import ExitStack, closing, suppress

from ckptfmt.checkpoint.delete import delete_checkpoint
from ckptfmt.checkpoint.directory import find_manifest, open_checkpoint_directory, open_named_file, read_manifest
from ckptfmt.checkpoint.verify import find_damage
from ckptfmt.disk.paths import make_directories
from ckptfmt.disk.protocol import Directory, Disk, ReadableFile, WritableFile
from ckptfmt.disk.remote import RemoteDirectory
from ckptfmt.disk.remote_files import RemoteReadableFile
from ckptfmt.errors import CheckpointError, CheckpointNotFoundError, CorruptError
from ckptfmt.format.layout import MANIFEST_NAME, is_data_name, is_temporary_name, temporary_name
from ckptfmt.format.manifest import Manifest
from ckptfmt.run.run_file import RUN_FILE_NAME, RunFile, find_run_file

MIN_GENERATIONS = 2
_COPY_BYTES = 8 * 2**20


def is_copied(disk: Disk, source_path: str, target_path: str) -> bool:
    """Tell cheaply whether a checkpoint was copied and verified before: its manifest came last, and every file has its size."""
    with ExitStack() as stack:
        try:
            source = stack.enter_context(closing(disk.open_directory(source_path)))
            target = stack.enter_context(closing(disk.open_directory(target_path)))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return _is_there(target, read_manifest(source))


def copy_checkpoint(disk: Disk, source_path: str, target_path: str) -> None:
    """Copy a checkpoint, read it back and verify it, and only then give it its manifest.

    Raises:
        CorruptError: the source is damaged.
        OSError: the disk refuses, or the copy does not read back as it was written (EIO).
    """
    with closing(open_checkpoint_directory(disk, source_path)) as source:
        manifest = read_manifest(source)
        make_directories(disk, target_path)
        with closing(disk.open_directory(target_path)) as target:
            has_manifest = MANIFEST_NAME in target.names()
        if has_manifest:
            # Another one, or one that lacks a file.
            delete_checkpoint(disk, target_path)
            make_directories(disk, target_path)
        with closing(disk.open_directory(target_path)) as target:
            _remove_unnamed(target, {entry.name for entry in manifest.files()})
            for entry in manifest.files():
                if _size_of(target, entry.name) != entry.size_bytes:
                    _copy_file(source, target, entry.name)
            target.sync()
            _check(source, target, manifest)
            _copy_file(source, target, MANIFEST_NAME)
            target.sync()


def delete_copy(disk: Disk, path: str) -> None:
    """Delete a copy, or what is left of one that was cut short; a store would keep that for a day, in case somebody is still saving."""
    with suppress(CheckpointNotFoundError):
        with closing(open_checkpoint_directory(disk, path)) as target:
            if MANIFEST_NAME not in target.names():
                _remove_unnamed(target, set())
        delete_checkpoint(disk, path)


def _remove_unnamed(target: Directory, named: set[str]) -> None:
    """Remove what a copy that was interrupted left."""
    for name in target.names():
        if name not in named and (is_temporary_name(name) or is_data_name(name)):
            with suppress(FileNotFoundError):
                target.unlink(name)


def _check(source: Directory, target: Directory, manifest: Manifest) -> None:
    damage = find_damage(target, manifest)
    if damage is None:
        return
    # Copied anew at the next try.
    for entry in manifest.files():
        with suppress(OSError):
            target.unlink(entry.name)
    own = find_damage(source, manifest)
    if own is not None:
        raise CorruptError(own.message, rule=own.rule, path=own.path, tensor=own.tensor)
    raise OSError(errno.EIO, f"the copy does not read back as it was written ({damage.rule})", damage.path)


def is_same_state(found: Manifest, manifest: Manifest) -> bool:
    """Tell whether one of two manifests is of the other's checkpoint, as it is or compressed since."""
    if found.digest == manifest.digest:
        return True
    described = [(each.created_at_utc, each.step, each.fingerprint, each.tensor_count, each.tensor_bytes) for each in (found, manifest)]
    return described[0] == described[1] and any(feature.startswith("codec:") for each in (found, manifest) for feature in each.requires)


def _is_there(target: Directory, manifest: Manifest) -> bool:
    try:
        found = find_manifest(target)
        if found is None or not is_same_state(found, manifest):
            return False
        for entry in found.files():
            open_named_file(target, entry).close()
    except CheckpointError:
        return False
    return True


def copy_run_file(disk: Disk, source_path: str, target_path: str) -> None:
    """Copy run.json, where there is one that differs."""
    make_directories(disk, target_path)
    with closing(disk.open_directory(source_path)) as source, closing(disk.open_directory(target_path)) as target:
        name = _find_run_file_name(source)
        if name is not None and _read(source, name) != _read(target, RUN_FILE_NAME):
            _copy_file(source, target, name, RUN_FILE_NAME)
            for left in filter(is_temporary_name, target.names()):
                with suppress(OSError):
                    target.unlink(left)


def find_identity(disk: Disk, path: str) -> RunFile | None:
    """Return what run.json says, or a copy of it that was about to take its place; None where it cannot be told."""
    try:
        with closing(disk.open_directory(path)) as directory:
            name = _find_run_file_name(directory)
            return None if name is None else find_run_file(directory, name)
    except (FileNotFoundError, CheckpointError):
        return None


def _find_run_file_name(directory: Directory) -> str | None:
    names = directory.names()
    if RUN_FILE_NAME in names:
        return RUN_FILE_NAME
    for name in filter(is_temporary_name, names):
        with suppress(CheckpointError, OSError):
            if find_run_file(directory, name) is not None:
                return name
    return None


def _copy_file(source: Directory, target: Directory, name: str, target_name: str | None = None) -> None:
    target_name = target_name or name
    original = source.open(name)
    try:
        if isinstance(target, RemoteDirectory):
            # What a store has appears whole, so it needs no other name; only the manifest must not replace another one.
            _fill(target.create(target_name, size_bytes=original.size_bytes, can_replace=target_name != MANIFEST_NAME), original)
            return
        temporary = temporary_name("copy", secrets.token_hex(16))
        try:
            _write(original, target, temporary)
        except BaseException:
            with suppress(OSError):
                target.unlink(temporary)
            raise
        if target_name in target.names():
            # In this order, so that one of the two names is there at any moment.
            target.sync()
            target.unlink(target_name)
        target.rename(temporary, target_name)
    finally:
        original.close()


def _write(original: ReadableFile, target: Directory, name: str) -> None:
    _fill(target.create(name, size_bytes=original.size_bytes), original)


def _fill(copy: WritableFile, original: ReadableFile) -> None:
    # Of a store several ranges are read at a time, if they are asked for together.
    step_bytes = _COPY_BYTES if not isinstance(original, RemoteReadableFile) else _COPY_BYTES * 8
    try:
        for offset in range(0, original.size_bytes, step_bytes):
            copy.write(original.read(offset, min(step_bytes, original.size_bytes - offset)))
        copy.sync()
    finally:
        copy.close()


def _read(directory: Directory, name: str) -> bytes | None:
    try:
        file = directory.open(name)
    except FileNotFoundError:
        return None
    try:
        return file.read(0, file.size_bytes)
    finally:
        file.close()


def _size_of(directory: Directory, name: str) -> int | None:
    try:
        file = directory.open(name)
    except OSError:
        return None
    file.close()
    return file.size_bytes
