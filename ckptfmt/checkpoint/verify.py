"""Verifying: everything that is wrong with a checkpoint, as findings, without ever raising because of damage. Spec 12.

The reader's own checks are called, each by itself, so that verifier and reader cannot disagree about a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Lock
from typing import Any

from ckptfmt.checkpoint.directory import open_checkpoint_directory, read_manifest
from ckptfmt.checkpoint.many_files import ManyFiles
from ckptfmt.checkpoint.many_slots import check_slots
from ckptfmt.checkpoint.metadata_file import read_metadata
from ckptfmt.checkpoint.shard_file import ShardFile, uses_by_shard
from ckptfmt.checkpoint.tensor_store import TensorStore
from ckptfmt.disk.protocol import Directory, Disk, ReadableFile
from ckptfmt.errors import FormatError, IncompleteError
from ckptfmt.format.layout import MANIFEST_NAME, VERSION, is_temporary_name
from ckptfmt.format.manifest import Manifest, ShardEntry
from ckptfmt.format.metadata import Metadata
from ckptfmt.format.references import check_references
from ckptfmt.format.rules import TITLES, shown, visible
from ckptfmt.state.tree import outline_state

LEVELS = ("full", "quick")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that verify has to say. `level` is "error" or "warning"; `path` is the file."""

    rule: str
    level: str
    path: str
    tensor: str | None
    expected: Any
    found: Any
    message: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The outcome of verifying one checkpoint. `ok` means no errors; warnings may be there."""

    path: str
    level: str
    findings: tuple[Finding, ...]
    verified_bytes: int

    @property
    def ok(self) -> bool:
        """Whether the checkpoint is sound."""
        return all(finding.level != "error" for finding in self.findings)


def verify_checkpoint(disk: Disk, path: str, *, level: str = "full", on_bytes: Callable[[int], None] | None = None) -> VerifyReport:
    """Check a checkpoint against every rule of the specification.

    "full" hashes every byte; "quick" checks manifest, metadata, headers, names and sizes, but no tensor's data.
    `on_bytes` is told how many bytes were hashed since the last call.
    """
    if level not in LEVELS:
        raise ValueError(f"level={level!r}: expected one of {', '.join(LEVELS)}")
    with ExitStack() as stack:
        directory = open_checkpoint_directory(disk, path)
        stack.callback(directory.close)
        verifier = _Verifier(directory, stack, on_bytes or (lambda _: None))
        verifier.run(is_full=level == "full")
        return VerifyReport(path, level, tuple(verifier.findings), verifier.verified_bytes)


def find_damage(directory: Directory, manifest: Manifest) -> Finding | None:
    """Hash every file that a manifest names, whether or not the manifest is there yet; return the first error."""
    with ExitStack() as stack:
        verifier = _Verifier(directory, stack, lambda _: None)
        verifier.check_files(manifest, is_full=True)
        return next((finding for finding in verifier.findings if finding.level == "error"), None)


class _Verifier:
    def __init__(self, directory: Directory, stack: ExitStack, on_bytes: Callable[[int], None]) -> None:
        self.directory = directory
        self.stack = stack
        self.on_bytes = on_bytes
        self.findings: list[Finding] = []
        self.verified_bytes = 0

    def run(self, *, is_full: bool) -> None:
        """Check everything, beginning with the manifest that is there."""
        try:
            manifest = read_manifest(self.directory)
        except IncompleteError:
            self._warn_or_fail("E001", MANIFEST_NAME, "error")
            return
        except FormatError as error:
            self._fail(error)
            return
        self._check_surroundings(manifest)
        self.check_files(manifest, is_full=is_full)

    def check_files(self, manifest: Manifest, *, is_full: bool) -> None:
        """Check every file that a manifest names."""
        files = ManyFiles(self.directory, len(manifest.shards))
        self.stack.callback(files.close)
        try:
            metadata = read_metadata(self.directory, manifest)
        except FormatError as error:
            self._fail(error)
            for entry in manifest.shards:
                self._open_file(files, entry)
            return
        self._note_unknown(manifest.metadata.name, metadata.unknown_members)
        try:
            outline_state(metadata.tree, metadata.tensors.__getitem__)
            check_references(metadata.tree, metadata.tensors, where=f"{self.directory.path}/{manifest.metadata.name}")
        except FormatError as error:
            self._fail(error)
        shards = self._open_shards(files, manifest, metadata)
        if is_full:
            self._check_slots(metadata, shards)

    def _fail(self, error: FormatError) -> None:
        message = str(error).partition("\n")[0]
        path = error.path or self.directory.path
        self.findings.append(Finding(error.rule or "E008", "error", path, error.tensor, error.expected, error.found, message))

    def _warn_or_fail(self, rule: str, name: str, level: str, found: Any = None) -> None:
        path = f"{self.directory.path}/{name}"
        message = f"{visible(path)}: {TITLES[rule]}" + (f": {shown(found)}" if found else "") + f" [{rule}]"
        self.findings.append(Finding(rule, level, path, None, None, found, message))

    def _check_surroundings(self, manifest: Manifest) -> None:
        if manifest.version[1] > VERSION[1]:
            self._warn_or_fail("W003", MANIFEST_NAME, "warning", f"{manifest.version[0]}.{manifest.version[1]}")
        self._note_unknown(MANIFEST_NAME, tuple(sorted(manifest.extra)))
        named = {file.name for file in manifest.files()} | {MANIFEST_NAME}
        for name in self.directory.names():
            if name not in named:
                self._warn_or_fail("W002" if is_temporary_name(name) else "W001", name, "warning")

    def _note_unknown(self, name: str, members: tuple[str, ...]) -> None:
        for member in members:
            self._warn_or_fail("W004", name, "warning", member)

    def _open_file(self, files: ManyFiles, entry: ShardEntry) -> ReadableFile | None:
        try:
            return files.open(entry, is_read=False)
        except FormatError as error:
            self._fail(error)
            return None

    def _open_shards(self, files: ManyFiles, manifest: Manifest, metadata: Metadata) -> dict[int, ShardFile]:
        """Open each shard and check its header; a shard with a bad header stays in, because its data can still be checked."""
        shards = {}
        uses = uses_by_shard(metadata)
        for index, entry in enumerate(manifest.shards):
            file = self._open_file(files, entry)
            if file is None:
                continue
            shard = shards[index] = ShardFile(file, entry, metadata.shards[index], where=f"{self.directory.path}/{entry.name}")
            try:
                shard.check_header(uses[index])
            except FormatError as error:
                self._fail(error)
        return shards

    def _check_slots(self, metadata: Metadata, shards: Mapping[int, ShardFile]) -> None:
        """Hash every slot, stale ones too, and decode what is encoded."""
        slots = [(index, slot) for index in shards for slot in range(len(metadata.shards[index].sizes))]
        store = TensorStore(metadata, shards, verify=True)
        encoded = [slot for slot in slots if store.decoder.encoding(slot) is not None]
        store.verify_slots([slot for slot in slots if store.decoder.encoding(slot) is None], on_bytes=self._count, on_damage=self._fail)
        lock = Lock()

        def fail(error: FormatError) -> None:
            with lock:
                self._fail(error)

        def count(size_bytes: int) -> None:
            with lock:
                self._count(size_bytes)

        reachable = [slot for slot in encoded if store.decoder.is_reachable(slot)]
        check_slots(store.decoder, reachable, on_bytes=count, on_damage=fail)

    def _count(self, size_bytes: int) -> None:
        self.verified_bytes += size_bytes
        self.on_bytes(size_bytes)
