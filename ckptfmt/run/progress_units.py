"""Checkpoints of single units: results that are too large for a record, and states such as the model of a fold. Spec 17.5.

They lie under `units/<digest of the key>` and are durable before the record that names them is written. Without a record they are
what a killed process left; the next one that finishes the unit removes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from secrets import token_hex
from typing import Any

from ckptfmt.checkpoint.delete import delete_checkpoint
from ckptfmt.checkpoint.reader import OpenCheckpoint
from ckptfmt.checkpoint.saving import check_options
from ckptfmt.checkpoint.verify import Finding, verify_checkpoint
from ckptfmt.checkpoint.writer import write_checkpoint
from ckptfmt.disk.paths import join
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import CheckpointError, CheckpointNotFoundError
from ckptfmt.format.digest import short
from ckptfmt.format.rules import violation
from ckptfmt.run.progress_records import Content, UnitLink, content_digest, inline_tensors, key_digest
from ckptfmt.state.tree import EncodedState

UNITS_NAME = "units"
_NAME_DIGITS = 32


class UnitCheckpoints:
    """The `units/` of one progress."""

    def __init__(self, disk: Disk, path: str, *, durable: bool) -> None:
        self._disk = disk
        self.path = join(path, UNITS_NAME)
        self._is_durable = durable

    def path_of(self, link: UnitLink) -> str:
        """Return the path of a checkpoint that a record names."""
        return join(self.path, link.name)

    def store(self, plain: Any, result: EncodedState, metrics: Mapping[str, int | float], state: EncodedState | None) -> Content:
        """Return what a record says of a unit, after what it names is durable."""
        name = key_digest(plain).hex()[:_NAME_DIGITS]
        state_link = None if state is None else self._write(f"{name}-state", state)
        tensors = inline_tensors(result)
        if tensors is None:
            return Content(None, (), metrics, self._write(name, result), state_link)
        return Content(result.tree, tensors, metrics, None, state_link)

    def _write(self, name: str, state: EncodedState) -> UnitLink:
        # A name that is taken may belong to somebody who does the same unit at the same time.
        name = f"{name}-{token_hex(4)}" if name in self._names() else name
        info = write_checkpoint(self._disk, join(self.path, name), state, check_options(durable=self._is_durable))
        return UnitLink(name, info.digest, content_digest(state))

    def load(self, link: UnitLink, *, device: Any = "cpu") -> Any:
        """Load a checkpoint that a record names.

        Raises:
            CorruptError: it is damaged, or not the one that was recorded.
            CheckpointNotFoundError: it is gone.
        """
        with OpenCheckpoint(self._disk, self.path_of(link), device=device) as checkpoint:
            if checkpoint.manifest.digest != link.manifest:
                raise violation("E004", self.path_of(link), expected=short(link.manifest), found=short(checkpoint.manifest.digest))
            return checkpoint.load()

    def remove_leftovers(self, plain: Any, kept: Content) -> None:
        """Remove what killed processes left of a unit that is done now, by a process that holds its claim."""
        stem = key_digest(plain).hex()[:_NAME_DIGITS]
        names = {link.name for link in kept.links}
        for name in self._names():
            if name.startswith(stem) and name not in names:
                with suppress(OSError, CheckpointError):
                    delete_checkpoint(self._disk, join(self.path, name))

    def discard(self, content: Content) -> None:
        """Remove checkpoints of one's own that no record names."""
        for link in content.links:
            with suppress(OSError, CheckpointError):
                delete_checkpoint(self._disk, self.path_of(link))

    def verify(self, link: UnitLink, *, level: str) -> tuple[Finding, ...]:
        """Return what is wrong with a checkpoint that a record names."""
        path = self.path_of(link)
        findings: tuple[Finding, ...] = ()
        try:
            findings = verify_checkpoint(self._disk, path, level=level).findings
            with OpenCheckpoint(self._disk, path) as checkpoint:
                digest = checkpoint.manifest.digest
        except CheckpointNotFoundError:
            return (Finding("E012", "error", path, None, None, None, f"{path}: checkpoint of a unit is missing [E012]"),)
        except CheckpointError:
            # What keeps it from being opened is among the findings.
            return findings
        if digest != link.manifest:
            error = violation("E004", path, expected=short(link.manifest), found=short(digest))
            return (*findings, Finding("E004", "error", path, None, link.manifest, digest, str(error)))
        return findings

    def _names(self) -> list[str]:
        try:
            directory = self._disk.open_directory(self.path)
        except FileNotFoundError:
            return []
        try:
            return directory.names()
        finally:
            directory.close()
