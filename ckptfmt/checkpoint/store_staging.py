"""The commit on an object store: the steps of `staging` where nothing can be renamed or locked. Spec 5.2.

Every file is uploaded under its final name, which no save uses twice, and is whole or not there at all. One conditional write of the
manifest commits: of two saves at once, the second finds the manifest changed, and fails. What a save removes are only files that the
manifest named which it replaced, and litter of long ago, so no save can remove what another is about to name.
"""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from datetime import datetime, timedelta

from ckptfmt.checkpoint.directory import open_named_file
from ckptfmt.checkpoint.staging import Staging, discard_files
from ckptfmt.disk.object_store import ChangedMeanwhileError, Condition, Expected
from ckptfmt.disk.paths import make_directories
from ckptfmt.disk.protocol import Directory, Disk, WritableFile
from ckptfmt.disk.remote import RemoteDirectory
from ckptfmt.disk.urls import is_url
from ckptfmt.errors import CheckpointExistsError, DurabilityUnknownError, FormatError, RunLockedError
from ckptfmt.format.layout import MANIFEST_NAME, MAX_MANIFEST_BYTES, is_data_name, is_temporary_name
from ckptfmt.format.manifest import FileEntry, Manifest, decode_manifest

# Older than this, a file that no manifest names is of a save that was interrupted.
LITTER_SECONDS = 24 * 3600.0
_UNIQUE_BYTES = 16


def open_staging(disk: Disk, path: str, *, overwrite: bool, durable: bool) -> Staging | StoreStaging:
    """Begin a save where it belongs. A store has no save that is not durable."""
    return StoreStaging(disk, path, overwrite=overwrite) if is_url(path) else Staging(disk, path, overwrite=overwrite, durable=durable)


class StoreStaging:
    """One save below one prefix. Use as a context manager: leaving it without `publish` aborts. Its methods are those of `Staging`."""

    def __init__(self, disk: Disk, path: str, *, overwrite: bool) -> None:
        self.path = path
        make_directories(disk, path)
        self.directory = open_prefix(disk, path)
        self._began = time.monotonic()
        self._made: list[str] = []
        self._unfinished: set[WritableFile] = set()
        self._is_published = False
        self._expected: Expected = Condition.NOTHING
        self._may_overwrite = overwrite
        self.previous = self._find_previous(overwrite=overwrite)

    def __enter__(self) -> StoreStaging:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_published:
            self.abort()
        self.directory.close()

    def _find_previous(self, *, overwrite: bool) -> Manifest | None:
        try:
            piece = self.directory.read_start(MANIFEST_NAME, MAX_MANIFEST_BYTES + 1)
        except FileNotFoundError:
            return None
        self._expected = Condition.ANYTHING if piece.status is None else piece.status.version
        try:
            previous = decode_manifest(piece.data, where=f"{self.path}/{MANIFEST_NAME}")
        except FormatError:
            if not overwrite:
                raise _exists(self.path, "a damaged checkpoint is stored here") from None
            return None
        if not overwrite:
            raise _exists(self.path, f"a checkpoint is stored here already (step {previous.step}, {previous.created_at_utc})")
        return previous

    def check_space(self, needed_bytes: int) -> None:
        """Do nothing: a store has no end that could be asked for."""

    def create(self, stem: str, *, size_bytes: int) -> WritableFile:
        """Begin a file under its final name. The name has no digest, which is not known yet, but a part that nobody uses twice."""
        suffix = ".msgpack.zst" if stem == "metadata" else ".safetensors"
        name = f"{stem}-{secrets.token_hex(_UNIQUE_BYTES)}{suffix}"
        self._made.append(name)
        file = self.directory.create(name, size_bytes=size_bytes)
        self._unfinished.add(file)
        return file

    def seal(self, file: WritableFile, temporary: str, *, stem: str, digest_hex: str, suffix: str) -> str:
        """Let a written file appear; return its name."""
        try:
            file.sync()
        finally:
            self._unfinished.discard(file)
            file.close()
        return temporary

    @property
    def last_created(self) -> str:
        """The name of the file that was created last."""
        return self._made[-1]

    def adopt(self, source: Directory, entry: FileEntry) -> str | None:
        """Let the store copy a shard of a base that it holds, and return its name here.

        Raises:
            CorruptError: the base lacks the file, or has it in another size.
            FileNotFoundError: the base lies elsewhere; writing from memory is better than fetching it.
        """
        stem, _, rest = entry.name.rpartition("-")
        name = f"{stem}-{secrets.token_hex(_UNIQUE_BYTES)}{rest[rest.index('.') :] if '.' in rest else ''}"
        open_named_file(source, entry).close()
        self._made.append(name)
        if not self.directory.link_from(source, entry.name, name):
            raise FileNotFoundError(f"{source.path}/{entry.name}: not in the store of {self.path}")
        return name

    def shared_bytes(self, name: str) -> int:
        """Return 0: no two checkpoints of a store share a file."""
        return 0

    def publish(self, manifest: bytes, *, digest: str) -> None:
        """Commit with one conditional write, then remove what the manifest before named, and old litter.

        Raises:
            CheckpointExistsError, RunLockedError: another save was committed meanwhile; nothing of it was changed.
            DurabilityUnknownError: the store did not answer; the checkpoint may be there or not, and is whole if it is.
        """
        new = decode_manifest(manifest, where=f"{self.path}/{MANIFEST_NAME}")
        if time.monotonic() - self._began > LITTER_SECONDS / 2:
            # So slow that somebody may have taken its files for litter.
            for entry in new.files():
                open_named_file(self.directory, entry).close()
        # Set first: whatever interrupts the write, its files must stay if it takes place.
        self._is_published = True
        try:
            self.directory.write_if(MANIFEST_NAME, manifest, self._expected)
        except (FileExistsError, ChangedMeanwhileError):
            self._is_published = False
            if not self._may_overwrite:
                raise _exists(self.path, "another save was committed here meanwhile") from None
            raise RunLockedError(
                f"{self.path}: another save was committed here, or this checkpoint was deleted, while this one was being written\n"
                "What is there was not changed. Make sure that there is one writer, and save again.",
                path=self.path,
            ) from None
        except (PermissionError, FileNotFoundError):
            self._is_published = False
            raise
        except OSError as error:
            if not self._is_visible(digest):
                raise DurabilityUnknownError(
                    f"{self.path}: the store did not confirm the manifest: {error.strerror}\n"
                    "The checkpoint is there as a whole or not at all. Nothing older was removed. Look, and save again.",
                    path=self.path,
                ) from error
        with suppress(OSError, FormatError):
            self._sweep(new)

    def _is_visible(self, digest: str) -> bool:
        with suppress(OSError, FormatError):
            piece = self.directory.read_start(MANIFEST_NAME, MAX_MANIFEST_BYTES + 1)
            return decode_manifest(piece.data, where=self.path).digest == digest
        return False

    def _sweep(self, new: Manifest) -> None:
        """Remove what is not needed any more. The commit stands, so a failure here is left to the next save."""
        named = {file.name for file in new.files()}
        for file in self.previous.files() if self.previous is not None else ():
            if file.name not in named:
                self.directory.unlink(file.name)
        sweep_litter(self.directory, named)

    def abort(self) -> None:
        """Remove what this save has written; what was there before stays."""
        discard_files(self.directory, self._unfinished, self._made)


def open_prefix(disk: Disk, path: str) -> RemoteDirectory:
    """Open a prefix of a store."""
    directory = disk.open_directory(path)
    if not isinstance(directory, RemoteDirectory):
        raise ValueError(f"{path}: expected a URL of an object store")
    return directory


def sweep_litter(directory: RemoteDirectory, named: set[str]) -> None:
    """Remove what saves left that were interrupted long ago, by the store's own clock: files that nobody names, and parts of files."""
    listing = directory.listing()
    before = listing.now - timedelta(seconds=LITTER_SECONDS)
    for entry in listing.entries:
        is_ours = is_data_name(entry.name) or is_temporary_name(entry.name)
        if is_ours and not entry.is_prefix and entry.name not in named and _is_older(entry.modified_at, before):
            directory.unlink(entry.name)
    directory.store.abort_uploads(directory.key, before=before)


def _is_older(modified_at: datetime | None, before: datetime) -> bool:
    return modified_at is not None and modified_at < before


def delete_from_store(directory: RemoteDirectory) -> None:
    """Delete a checkpoint: its manifest, what that names, and old litter. What a save is writing at this moment stays."""
    names: list[str] = []
    with suppress(FileNotFoundError, FormatError):
        piece = directory.read_start(MANIFEST_NAME, MAX_MANIFEST_BYTES + 1)
        names = [file.name for file in decode_manifest(piece.data, where=directory.path).files()]
    directory.unlink(MANIFEST_NAME)
    for name in names:
        directory.unlink(name)
    sweep_litter(directory, set())


def _exists(path: str, what: str) -> CheckpointExistsError:
    return CheckpointExistsError(f"{path}: {what}\nPass overwrite=True to replace it, or save under another path.", path=path)
