"""A second copy of a run, on a drive that may be slow, late or away: written behind the training, verified, never trusted blindly.

After each commit one thread copies what the mirror lacks: data files first, then all of them are read back and verified against the
manifest, then the manifest. It needs no hard links, no locks and no replacing rename there. A failure is kept in the status
and tried again with the next commit, with growing pauses in between, and at `close`; it never stops the training. At least two verified
checkpoints stay in the mirror whatever the run keeps.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ckptfmt.checkpoint.delete import delete_checkpoint
from ckptfmt.checkpoint.directory import find_manifest, open_checkpoint_directory, read_manifest
from ckptfmt.checkpoint.verify import find_damage
from ckptfmt.disk.paths import join, make_directories
from ckptfmt.disk.protocol import Directory, Disk
from ckptfmt.errors import CheckpointError
from ckptfmt.format.layout import MANIFEST_NAME, temporary_name
from ckptfmt.run.history import HISTORY_NAME
from ckptfmt.run.run_file import RUN_FILE_NAME
from ckptfmt.run.steps import StepDirectory

MIN_GENERATIONS = 2
_COPY_BYTES = 8 * 2**20
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class MirrorStatus:
    """Where the mirror stands. `pending` are committed steps that are not verified there yet."""

    path: str
    verified: tuple[int, ...]
    pending: tuple[int, ...]
    last_error: str | None


class Mirror:
    """Keeps a second directory up to date with a run."""

    def __init__(self, disk: Disk, source: str, target: str) -> None:
        self._disk = disk
        self._source = StepDirectory(disk, source)
        self._target = StepDirectory(disk, target)
        self._verified: set[int] = set()
        self._last_error: str | None = None
        self._changed = threading.Condition()
        self._requested = 0
        self._tried = 0
        self._is_closing = False
        self._thread: threading.Thread | None = None

    def status(self) -> MirrorStatus:
        """Return where the mirror stands."""
        pending = tuple(step for step in self._wanted() if step not in self._verified)
        return MirrorStatus(self._target.path, tuple(sorted(self._verified)), pending, self._last_error)

    def update(self) -> None:
        """Copy what the mirror lacks, in the background."""
        with self._changed:
            self._requested += 1
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ckptfmt-mirror", daemon=True)
                self._thread.start()

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until what was asked for so far has been tried once; tell whether nothing is pending."""
        with self._changed:
            self._changed.wait_for(lambda: self._tried >= self._requested, timeout_seconds)
        return not self.status().pending

    def update_and_close(self) -> None:
        """Try once more what is missing, and end the thread."""
        if self._thread is None:
            return
        with self._changed:
            self._requested += 1
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()
        self._thread = None

    def fill(self, *, wanted: int = MIN_GENERATIONS) -> list[int]:
        """Bring the newest sound checkpoints from the mirror into an empty run; return their steps."""
        if not self._target.exists():
            return []
        brought: list[int] = []
        make_directories(self._disk, self._source.path)
        for entry in reversed(self._target.committed()):
            if len(brought) == wanted:
                break
            with suppress(CheckpointError):
                copy_checkpoint(self._disk, entry.path, self._source.path_of(entry.step))
                brought.append(entry.step)
        if brought:
            self._copy_small_files(self._target.path, self._source.path)
        return sorted(brought)

    def _wanted(self) -> list[int]:
        return [entry.step for entry in self._source.committed()] if self._source.exists() else []

    def _run(self) -> None:
        pause_seconds: float | None = None
        while True:
            with self._changed:
                # After a failure the next try comes with the next request, or when the pause is over.
                self._changed.wait_for(lambda: self._requested > self._tried, pause_seconds)
                request, is_last = self._requested, self._is_closing
            try:
                self._copy_missing()
                self._last_error, pause_seconds = None, None
            except (OSError, CheckpointError) as error:
                self._last_error = f"{type(error).__name__}: {error}"
                pause_seconds = min(2 * (pause_seconds or _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
            with self._changed:
                self._tried = request
                self._changed.notify_all()
            if is_last:
                return

    def _copy_missing(self) -> None:
        make_directories(self._disk, self._target.path)
        for step in self._wanted():
            if step not in self._verified:
                # A step that the run deletes while it is copied is simply not wanted any more.
                with suppress(FileNotFoundError):
                    copy_checkpoint(self._disk, self._source.path_of(step), self._target.path_of(step))
                    self._verified.add(step)
        self._copy_small_files(self._source.path, self._target.path)
        self._remove_outdated()

    def _remove_outdated(self) -> None:
        wanted = set(self._wanted())
        verified = sorted(self._verified)
        for step in verified[:-MIN_GENERATIONS]:
            if step not in wanted:
                delete_checkpoint(self._disk, self._target.path_of(step))
                self._verified.discard(step)

    def _copy_small_files(self, source: str, target: str) -> None:
        _copy_if_changed(self._disk, source, target, lambda name: name == RUN_FILE_NAME)
        with suppress(FileNotFoundError):
            self._disk.open_directory(join(source, HISTORY_NAME)).close()
            make_directories(self._disk, join(target, HISTORY_NAME))
            _copy_if_changed(self._disk, join(source, HISTORY_NAME), join(target, HISTORY_NAME), lambda name: not name.startswith("."))


def copy_checkpoint(disk: Disk, source_path: str, target_path: str) -> None:
    """Copy a checkpoint, read it back and verify it, and only then give it its manifest. What is there already is kept.

    Raises:
        CorruptError: the source is damaged, or the copy does not read back as it was written.
    """
    source = open_checkpoint_directory(disk, source_path)
    try:
        manifest = read_manifest(source)
        make_directories(disk, target_path)
        target = disk.open_directory(target_path)
        try:
            if _is_same(target, manifest.digest) and find_damage(target, manifest) is None:
                return
            with suppress(FileNotFoundError):
                target.unlink(MANIFEST_NAME)
            for entry in manifest.files():
                _copy_file(source, target, entry.name, is_kept=True)
            target.sync()
            damage = find_damage(target, manifest)
            if damage is not None:
                for entry in manifest.files():
                    with suppress(OSError):
                        target.unlink(entry.name)
                raise CheckpointError(f"{target_path}: the copy does not read back: {damage.message}")
            _copy_file(source, target, MANIFEST_NAME, is_kept=False)
            target.sync()
        finally:
            target.close()
    finally:
        source.close()


def _is_same(target: Directory, digest: str) -> bool:
    with suppress(CheckpointError, OSError):
        manifest = find_manifest(target)
        return manifest is not None and manifest.digest == digest
    return False


def _copy_file(source: Directory, target: Directory, name: str, *, is_kept: bool) -> None:
    """Copy one file under a temporary name; with `is_kept` a file of the same size is left for the verifier to judge."""
    original = source.open(name)
    try:
        if is_kept and _size_of(target, name) == original.size_bytes:
            return
        temporary = temporary_name("copy", secrets.token_hex(16))
        copy = target.create(temporary, size_bytes=original.size_bytes)
        try:
            for offset in range(0, original.size_bytes, _COPY_BYTES):
                copy.write(original.read(offset, _COPY_BYTES))
            copy.sync()
        finally:
            copy.close()
        with suppress(FileNotFoundError):
            target.unlink(name)
        target.rename(temporary, name)
    finally:
        original.close()


def _size_of(directory: Directory, name: str) -> int | None:
    try:
        file = directory.open(name)
    except OSError:
        return None
    file.close()
    return file.size_bytes


def _copy_if_changed(disk: Disk, source_path: str, target_path: str, is_wanted: Callable[[str], bool]) -> None:
    source, target = disk.open_directory(source_path), disk.open_directory(target_path)
    try:
        for name in source.names():
            if is_wanted(name):
                _copy_file(source, target, name, is_kept=name != RUN_FILE_NAME)
        target.sync()
    finally:
        source.close()
        target.close()
