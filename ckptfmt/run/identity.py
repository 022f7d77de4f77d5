"""Whether a run is the same experiment as the one that is opened, and what follows from that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import FormatError, UnsupportedVersionError
from ckptfmt.format.manifest import Manifest
from ckptfmt.run.fingerprint import Fingerprint, checked_fingerprint, compare, mismatch_error
from ckptfmt.run.notices import warn
from ckptfmt.run.run_file import RUN_FILE_NAME, RunFile, find_run_file, write_run_file

MODES = ("error", "warn", "ignore", "restart")


class Identity:
    """The fingerprint of a run against the one that it was opened with."""

    def __init__(self, disk: Disk, path: str, fingerprint: Fingerprint | None, *, on_mismatch: str, allow_changes: Sequence[str]) -> None:
        if on_mismatch not in MODES:
            raise ValueError(f"on_mismatch={on_mismatch!r}: expected one of {', '.join(MODES)}")
        self._disk = disk
        self._path = path
        self._fingerprint = checked_fingerprint(fingerprint)
        self._on_mismatch = on_mismatch
        self._allow_changes = tuple(allow_changes)
        self._stored: RunFile | None = None
        self._is_damaged = False
        self._is_established = False

    @property
    def document(self) -> Mapping[str, Any] | None:
        """The fingerprint that checkpoints carry from now on."""
        if self._fingerprint is not None:
            return self._fingerprint.to_document()
        return None if self._stored is None else self._stored.fingerprint

    def read(self, newest: Manifest | None) -> None:
        """Read run.json. Where it is missing or damaged, the newest checkpoint says what the run is."""
        from_newest = None if newest is None else RunFile(newest.created_at_utc, newest.fingerprint)
        self._stored, self._is_damaged = from_newest, False
        try:
            directory = self._disk.open_directory(self._path)
        except FileNotFoundError:
            return
        try:
            self._stored = find_run_file(directory) or from_newest
        except UnsupportedVersionError:
            raise
        except FormatError as error:
            self._is_damaged = True
            message = f"{error}\nThe identity of the run is taken from {'its newest checkpoint' if newest else 'the program'}."
            warn(message)
        finally:
            directory.close()

    def check(self) -> str | None:
        """Compare; return "mismatch" if everything is to be set aside, None to go on.

        Raises:
            FingerprintMismatchError: it is another experiment, and on_mismatch is "error".
        """
        stored = None if self._stored is None else self._stored.fingerprint
        if stored is None or self._fingerprint is None:
            return None
        differences = compare(stored, self._fingerprint, allow=self._allow_changes)
        notable = [difference for difference in differences if difference.severity in ("error", "warning")]
        if not notable:
            return None
        error = mismatch_error(stored, notable, where=self._path)
        if any(difference.severity == "error" for difference in notable):
            if self._on_mismatch == "restart":
                return "mismatch"
            if self._on_mismatch == "error":
                error.add_note('Or start anew: on_mismatch="restart" sets what is here aside under a dated name. Nothing is deleted.')
                raise error
        if self._on_mismatch != "ignore":
            warn(str(error))
        return None

    def forget(self) -> None:
        """Take note that the run was set aside."""
        self._stored = None
        self._is_established = False

    def establish(self) -> None:
        """Write run.json where it is missing or says something else."""
        if self._is_established:
            return
        document = self.document
        if self._stored is None or self._is_damaged or self._is_missing() or self._stored.fingerprint != document:
            created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if self._stored is None else self._stored.created_at_utc
            self._stored = RunFile(created, document)
            directory = self._disk.open_directory(self._path)
            try:
                if self._is_damaged:
                    directory.rename(RUN_FILE_NAME, f"{RUN_FILE_NAME}.damaged")
                write_run_file(directory, self._stored)
            finally:
                directory.close()
            self._is_damaged = False
        self._is_established = True

    def _is_missing(self) -> bool:
        directory = self._disk.open_directory(self._path)
        try:
            return RUN_FILE_NAME not in directory.names()
        finally:
            directory.close()
