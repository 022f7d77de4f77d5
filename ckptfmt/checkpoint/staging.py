"""The commit, step by step: how files become a checkpoint, or nothing. Spec 5.

Each method is one step of the specification, in its order. Nothing becomes visible before `publish` renames the manifest;
whatever fails before that is undone by `abort`, and what a kill leaves is swept by the next save. Files that
the previous manifest names are touched by nobody until the new one is durable.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from ckptfmt.checkpoint.directory import find_manifest, open_named_file
from ckptfmt.disk.paths import make_directories
from ckptfmt.disk.protocol import Directory, Disk, LockState, WritableFile
from ckptfmt.errors import (
    CheckpointError,
    CheckpointExistsError,
    CorruptError,
    DurabilityUnknownError,
    FormatError,
    NotEnoughSpaceError,
    RunLockedError,
)
from ckptfmt.format.layout import MANIFEST_NAME, STEM_LENGTHS_HEX, is_data_name, is_temporary_name, temporary_name
from ckptfmt.format.manifest import FileEntry, Manifest

SLACK_BYTES = 2**20


class Staging:
    """One save into one directory. Use as a context manager: leaving it without `publish` aborts."""

    def __init__(self, disk: Disk, path: str, *, overwrite: bool, durable: bool) -> None:
        self.path = path
        self._disk = disk
        self._durable = durable
        self._made: list[str] = []
        self._unfinished: set[WritableFile] = set()
        self._is_locked = self._may_sweep = False
        self._is_published = False
        self._is_new = _make_checkpoint_directory(disk, path, durable=durable)
        self.directory = disk.open_directory(path)
        try:
            self._lock()
            self.previous = self._find_previous(overwrite=overwrite)
            self._sweep_litter()
            self._taken = set(self.directory.names())
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_published:
            self.abort()
        self._close()

    def _close(self) -> None:
        if self._is_new and self._is_locked and not self._is_published:
            # Only an empty directory goes, and under the lock: two writers may have found it missing at the same time.
            with suppress(OSError):
                self._disk.remove_directory(self.path)
        self.directory.close()

    def _lock(self) -> None:
        state = self.directory.try_lock()
        if state is LockState.BUSY:
            raise RunLockedError(
                f"{self.path}: another process or thread is saving into this checkpoint\nWait for it, or save under another path.",
                path=self.path,
            )
        self._is_locked = self._may_sweep = state is LockState.HELD

    def _find_previous(self, *, overwrite: bool) -> Manifest | None:
        try:
            previous = find_manifest(self.directory)
        except FormatError:
            if not overwrite:
                raise CheckpointExistsError(
                    f"{self.path}: a damaged checkpoint is stored here\nPass overwrite=True to replace it, or save under another path.",
                    path=self.path,
                ) from None
            # What a damaged manifest names is unknown, so nothing may be taken for litter before the commit.
            self._may_sweep = False
            return None
        if previous is not None and not overwrite:
            raise CheckpointExistsError(
                f"{self.path}: a checkpoint is stored here already (step {previous.step}, {previous.created_at_utc})\n"
                "Pass overwrite=True to replace it, or save under another path.",
                path=self.path,
            )
        return previous

    def _sweep_litter(self) -> None:
        """Remove what an interrupted save left, once the manifest that says so is known to be durable."""
        litter = self._unnamed(self.previous)
        if litter and self._may_sweep:
            self._sync_directory()
            self._remove(litter)

    def _unnamed(self, manifest: Manifest | None) -> list[str]:
        named = {file.name for file in manifest.files()} if manifest else set()
        return [name for name in self.directory.names() if is_temporary_name(name) or (is_data_name(name) and name not in named)]

    def _remove(self, names: list[str]) -> None:
        for name in names:
            with suppress(FileNotFoundError):
                self.directory.unlink(name)

    def _sync_directory(self) -> None:
        if self._durable:
            self.directory.sync()

    def _sync_file(self, name: str) -> None:
        # A base that was saved without syncs may not be on the disk yet.
        if self._durable:
            self.directory.sync_file(name)

    def check_space(self, needed_bytes: int) -> None:
        """Refuse a save that cannot fit, before its first byte."""
        free_bytes = self.directory.free_bytes()
        if needed_bytes + SLACK_BYTES > free_bytes:
            raise not_enough_space(self.path, needed_bytes + SLACK_BYTES, free_bytes)

    def create(self, stem: str, *, size_bytes: int) -> WritableFile:
        """Create a temporary file that `seal` gives its name."""
        name = temporary_name(stem, secrets.token_hex(16))
        self._made.append(name)
        file = self.directory.create(name, size_bytes=size_bytes)
        self._unfinished.add(file)
        return file

    def discard(self, file: WritableFile, temporary: str) -> None:
        """Remove a file that was created here and is not wanted any more."""
        self._unfinished.discard(file)
        with suppress(OSError):
            file.close()
        with suppress(FileNotFoundError):
            self.directory.unlink(temporary)
        self._made.remove(temporary)

    def drop(self, name: str) -> None:
        """Remove a file that was made or taken over here and is not wanted any more."""
        with suppress(FileNotFoundError):
            self.directory.unlink(name)
        self._made.remove(name)
        self._taken.discard(name)

    def seal(self, file: WritableFile, temporary: str, *, stem: str, digest_hex: str, suffix: str) -> str:
        """Make a written file durable and give it the name of its digest; return that name."""
        self._finish(file)
        name = self._free_name(lambda length: f"{stem}-{digest_hex[:length]}{suffix}")
        self.directory.rename(temporary, name)
        self._made[self._made.index(temporary)] = name
        return name

    @property
    def last_created(self) -> str:
        """The temporary name of the file that was created last."""
        return self._made[-1]

    def _free_name(self, name_of: Callable[[int], str]) -> str:
        """Return a name that no file has: an old one is never replaced, because an old manifest may name it."""
        for length in STEM_LENGTHS_HEX:
            name = name_of(length)
            if name not in self._taken:
                self._taken.add(name)
                return name
        raise CheckpointExistsError(
            f"{self.path}/{name_of(8)}: every name for this file is taken\nRemove the files left here.", path=self.path
        )

    def adopt(self, source: Directory, entry: FileEntry, *, stem: str | None = None) -> str | None:
        """Take over a shard of a base by a hard link; return its name here, or None where links do not work.

        It keeps its name where that is free; with `stem` it is given one that begins so.

        Raises:
            CorruptError: the base lacks the file, or has it in another size.
        """
        if stem is None and self._holds(entry):
            self._sync_file(entry.name)
            return entry.name
        open_named_file(source, entry).close()
        own_stem, _, rest = entry.name.rpartition("-")
        start = f"{own_stem if stem is None else stem}-"
        digest_hex = entry.digest.rpartition(":")[2]
        suffix = rest[rest.index(".") :] if "." in rest else ""
        is_free = entry.name not in self._taken and stem is None
        name = entry.name if is_free else self._free_name(lambda length: f"{start}{digest_hex[:length]}{suffix}")
        if not self.directory.link_from(source, entry.name, name):
            return None
        self._taken.add(name)
        self._made.append(name)
        self._sync_file(name)
        return name

    def _holds(self, entry: FileEntry) -> bool:
        """Tell whether the previous manifest names this very file, and it is here in its full size."""
        known = (entry.name, entry.digest, entry.size_bytes)
        if self.previous is None or known not in [(file.name, file.digest, file.size_bytes) for file in self.previous.files()]:
            return False
        try:
            open_named_file(self.directory, entry).close()
        except CorruptError:
            return False
        return True

    def shared_bytes(self, name: str) -> int:
        """Return the size of a file here that has further names, 0 if this is its only one."""
        file = self.directory.open(name)
        try:
            return file.size_bytes if file.link_count > 1 else 0
        finally:
            file.close()

    def publish(self, manifest: bytes, *, digest: str) -> None:
        """Commit: make the names durable, put the manifest in place, make that durable, remove what it replaces.

        Raises:
            DurabilityUnknownError: the checkpoint is visible and whole, but the disk did not confirm the last step.
        """
        self._sync_directory()
        file = self.create("manifest", size_bytes=len(manifest))
        temporary = self.last_created
        file.write(manifest)
        self._finish(file)
        self._replace_manifest(temporary, digest)
        try:
            self._sync_directory()
        except OSError as error:
            raise DurabilityUnknownError(
                f"{self.path}: the checkpoint is committed, but the disk did not confirm it: {error.strerror}\n"
                "It may be lost in a power cut. Nothing older was removed. Check the disk and save again.",
                path=self.path,
            ) from error
        if self._is_locked:
            self._remove_replaced(digest)

    def _finish(self, file: WritableFile) -> None:
        try:
            if self._durable:
                file.sync()
        finally:
            self._unfinished.discard(file)
            file.close()

    def _replace_manifest(self, temporary: str, digest: str) -> None:
        # Set first: an interrupt right after the rename must not make `abort` remove what is committed.
        self._is_published = True
        try:
            self.directory.rename(temporary, MANIFEST_NAME)
        except OSError:
            # A network file system may report the failure of a rename that took place. Where it cannot be told, all files stay.
            with suppress(FormatError, OSError):
                visible = find_manifest(self.directory)
                self._is_published = visible is not None and visible.digest == digest
                if self._is_published:
                    return
            raise

    def _remove_replaced(self, digest: str) -> None:
        """Remove what only older manifests named. The commit stands, so a failure here is left to the next sweep."""
        with suppress(OSError, FormatError):
            visible = find_manifest(self.directory)
            if visible is not None and visible.digest == digest:
                self._remove(self._unnamed(visible))

    def abort(self) -> None:
        """Remove what this save has written; what was there before stays."""
        discard_files(self.directory, self._unfinished, self._made)


def discard_files(directory: Directory, unfinished: Iterable[WritableFile], names: Iterable[str]) -> None:
    """Close files and remove names, whatever fails of it."""
    # Closed first: a file that is open keeps its space after its name is gone.
    for file in tuple(unfinished):
        with suppress(OSError):
            file.close()
    for name in names:
        with suppress(OSError):
            directory.unlink(name)


def _make_checkpoint_directory(disk: Disk, path: str, *, durable: bool) -> bool:
    """Make the directory and its parents durable names; tell whether it is new."""
    try:
        disk.open_directory(path).close()
    except FileNotFoundError:
        make_directories(disk, path, durable=durable)
        return True
    make_directories(disk, path, durable=durable)
    return False


def not_enough_space(path: str, needed_bytes: int, free_bytes: int) -> NotEnoughSpaceError:
    """Return the error for a disk that is too full."""
    missing = max(0, needed_bytes - free_bytes)
    return NotEnoughSpaceError(
        f"{path}: not enough space: needed {needed_bytes:,} bytes, free {free_bytes:,} bytes\n"
        f"Free at least {missing:,} bytes. Nothing was changed.",
        path=path,
        needed_bytes=needed_bytes,
        free_bytes=free_bytes,
    )


def is_full(error: OSError) -> bool:
    """Tell whether an error of the system means that there is no space."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def naming_a_full_disk(path: str) -> Iterator[None]:
    """Raise a NotEnoughSpaceError where the system reports in the block that the disk has become full."""
    try:
        yield
    except OSError as error:
        if isinstance(error, CheckpointError) or not is_full(error):
            raise
        where = str(error.filename or path)
        raise NotEnoughSpaceError(
            f"{where}: the disk became full during the save: {error.strerror}\n"
            "Free some space and save again. What was stored here before is unchanged.",
            path=where,
        ) from error
