"""Copying parts of a run between directories that share nothing: no hard links, no locks, no renames that replace.

A file is written under a temporary name, synced, and renamed to a name that is free. A checkpoint gets its manifest after all its files
were read back and verified. Nothing here decides what is copied.
"""

from __future__ import annotations

import secrets
from contextlib import ExitStack, closing, suppress

from ckptfmt.checkpoint.directory import find_manifest, open_checkpoint_directory, open_named_file, read_manifest
from ckptfmt.checkpoint.verify import find_damage
from ckptfmt.disk.paths import join, make_directories
from ckptfmt.disk.protocol import Directory, Disk, NotARegularFileError
from ckptfmt.errors import CheckpointError, CorruptError
from ckptfmt.format.layout import MANIFEST_NAME, is_temporary_name, temporary_name
from ckptfmt.format.manifest import Manifest
from ckptfmt.run.history import HISTORY_NAME
from ckptfmt.run.run_file import RUN_FILE_NAME

_COPY_BYTES = 8 * 2**20
_JOURNALS = (HISTORY_NAME, "studies", "progress")


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
        CorruptError: the source is damaged, or the copy does not read back as it was written.
    """
    with closing(open_checkpoint_directory(disk, source_path)) as source:
        manifest = read_manifest(source)
        make_directories(disk, target_path)
        with closing(disk.open_directory(target_path)) as target:
            _prepare(target, manifest)
            for entry in manifest.files():
                if _size_of(target, entry.name) != entry.size_bytes:
                    _copy_file(source, target, entry.name)
            target.sync()
            _check(target, manifest)
            _copy_file(source, target, MANIFEST_NAME)
            target.sync()


def _prepare(target: Directory, manifest: Manifest) -> None:
    """Remove an old manifest, then what does not belong to the new one."""
    with suppress(FileNotFoundError):
        target.unlink(MANIFEST_NAME)
        target.sync()
    named = {entry.name for entry in manifest.files()}
    for name in target.names():
        if name not in named and (is_temporary_name(name) or name.endswith((".safetensors", ".zst"))):
            with suppress(FileNotFoundError):
                target.unlink(name)


def _check(target: Directory, manifest: Manifest) -> None:
    damage = find_damage(target, manifest)
    if damage is None:
        return
    # Copied anew at the next try.
    for entry in manifest.files():
        with suppress(OSError):
            target.unlink(entry.name)
    raise CorruptError(f"{target.path}: the copy does not read back: {damage.message}", rule=damage.rule, path=damage.path)


def _is_there(target: Directory, manifest: Manifest) -> bool:
    try:
        found = find_manifest(target)
        if found is None or found.digest != manifest.digest:
            return False
        for entry in manifest.files():
            open_named_file(target, entry).close()
    except CheckpointError:
        return False
    return True


def copy_run_file(disk: Disk, source_path: str, target_path: str) -> None:
    """Copy run.json, where there is one that differs."""
    make_directories(disk, target_path)
    with closing(disk.open_directory(source_path)) as source, closing(disk.open_directory(target_path)) as target:
        if RUN_FILE_NAME in source.names() and _read(source, RUN_FILE_NAME) != _read(target, RUN_FILE_NAME):
            _copy_file(source, target, RUN_FILE_NAME)
            target.sync()


def copy_journals(disk: Disk, source_path: str, target_path: str) -> None:
    """Copy the history, and the journals of studies and progress."""
    for name in _JOURNALS:
        _copy_journals_below(disk, join(source_path, name), join(target_path, name))


def _copy_journals_below(disk: Disk, source_path: str, target_path: str) -> None:
    """Copy journals: their segments only grow, and those that are gone in the source were replaced by the others."""
    try:
        source = disk.open_directory(source_path)
    except (FileNotFoundError, NotADirectoryError):
        return
    with closing(source):
        make_directories(disk, target_path)
        with closing(disk.open_directory(target_path)) as target:
            names = [name for name in source.names() if not name.startswith(".")]
            for name in names:
                try:
                    if _size_of(source, name) != _size_of(target, name) or _size_of(source, name) is None:
                        _copy_file(source, target, name)
                except NotARegularFileError:
                    _copy_journals_below(disk, join(source_path, name), join(target_path, name))
                except FileNotFoundError:
                    # Replaced by a newer segment meanwhile.
                    continue
            target.sync()
            for name in set(target.names()) - set(names):
                with suppress(OSError):
                    target.unlink(name)


def _copy_file(source: Directory, target: Directory, name: str) -> None:
    original = source.open(name)
    try:
        temporary = temporary_name("copy", secrets.token_hex(16))
        copy = target.create(temporary, size_bytes=original.size_bytes)
        try:
            for offset in range(0, original.size_bytes, _COPY_BYTES):
                copy.write(original.read(offset, min(_COPY_BYTES, original.size_bytes - offset)))
            copy.sync()
        finally:
            copy.close()
        with suppress(FileNotFoundError):
            target.unlink(name)
        target.rename(temporary, name)
    finally:
        original.close()


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
