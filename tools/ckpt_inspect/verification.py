"""Verifying what lies under paths: each checkpoint by itself, a run as all of its checkpoints and journals.

One path's failure stops no other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ckpt_inspect.failures import message_of, status_of
from ckpt_inspect.output.exit_status import FINE, FOUND_SOMETHING
from ckpt_inspect.output.messages import report_error
from ckpt_inspect.output.progress import ByteProgress
from ckpt_inspect.output.screen import Screen
from ckpt_inspect.sources.checkpoint import read_manifest_of
from ckpt_inspect.sources.location import (
    PROGRESS_NAME,
    STUDIES_NAME,
    Kind,
    NotReadableHereError,
    journal_directories,
    kind_of,
    step_directories,
    without_segment,
    work_directories,
)
from ckpt_inspect.views.findings import Verified, closing_lines, verified_document, verified_lines
from ckptfmt.checkpoint.verify import VerifyReport, verify_checkpoint
from ckptfmt.disk.anywhere import AnyDisk
from ckptfmt.errors import CheckpointError
from ckptfmt.run.journal_reader import verify_journal
from ckptfmt.run.progress_reader import verify_progress
from ckptfmt.run.study_reader import verify_studies

_DISK = AnyDisk()
_FINDERS = {Kind.JOURNAL: verify_journal, Kind.PROGRESS: verify_progress, Kind.STUDY: verify_studies}
_WORKS = {PROGRESS_NAME: Kind.PROGRESS, STUDIES_NAME: Kind.STUDY}


@dataclass(frozen=True, slots=True)
class _Subject:
    """Something to verify, by itself or as a part of a run."""

    path: str
    kind: Kind = Kind.CHECKPOINT
    is_of_run: bool = False


@dataclass(slots=True)
class _Outcome:
    """What has come of the paths so far."""

    results: list[Verified] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    status: int = FINE

    def fail(self, path: str, error: Exception) -> None:
        """Note that a path could not be verified, and go on with the others."""
        message = message_of(error)
        report_error(message)
        self.errors.append({"path": path, "message": message, "exit_status": status_of(error)})
        self.status = max(self.status, status_of(error))


def verify_paths(given: Sequence[str], level: str, rules_that_fail: Sequence[str], screen: Screen) -> int:
    """Verify each path, and return the exit status. Warnings of `rules_that_fail` count as failures."""
    outcome = _Outcome()
    subjects = list(_subjects(given, outcome))
    has_bar = level == "full" and not screen.is_json and not screen.is_quiet
    with ByteProgress(total_bytes=_total_bytes([subject.path for subject in subjects]) if has_bar else 0, is_wanted=has_bar) as progress:
        for subject in subjects:
            progress.label(subject.path)
            try:
                verified = _verify(subject, level, rules_that_fail, progress)
            except (CheckpointError, OSError) as error:
                progress.hide()
                outcome.fail(subject.path, error)
                continue
            outcome.results.append(verified)
            # In a run, a directory without a manifest is a save that is in progress, or the litter of one.
            if not verified.is_sound and not (subject.is_of_run and verified.is_incomplete):
                outcome.status = max(outcome.status, FOUND_SOMETHING)
            if not screen.is_json:
                progress.hide()
                screen.write_lines(verified_lines(verified, screen))
    if screen.is_json:
        screen.write_document(_document(outcome, level))
    else:
        screen.write_lines(closing_lines(outcome.results, len(outcome.errors)))
    return outcome.status


def verify_run(path: str, level: str, *, has_bar: bool) -> tuple[list[Verified], list[tuple[str, str]]]:
    """Verify everything in a run; return what was found, and (path, message) of what could not be verified."""
    results, failures = [], []
    subjects = list(_subjects_of_run(path))
    with ByteProgress(total_bytes=_total_bytes([subject.path for subject in subjects]) if has_bar else 0, is_wanted=has_bar) as progress:
        for subject in subjects:
            progress.label(subject.path)
            try:
                results.append(_verify(subject, level, (), progress))
            except (CheckpointError, OSError) as error:
                failures.append((subject.path, message_of(error)))
    return results, failures


def _subjects(paths: Sequence[str], outcome: _Outcome) -> Iterator[_Subject]:
    """Yield the checkpoints, progress, studies and journals that the arguments name."""
    for path in map(without_segment, paths):
        try:
            kind = kind_of(path)
            if kind is Kind.FILE:
                raise NotReadableHereError(f"{path}: a single file holds no digests to verify\nGive the directory of a checkpoint.")
            found = list(_subjects_of_run(path)) if kind is Kind.RUN else [_Subject(path, kind)]
            if not found:
                raise NotReadableHereError(f"{path}: this run has no checkpoints yet")
        except (CheckpointError, NotReadableHereError, OSError) as error:
            outcome.fail(path, error)
            continue
        yield from found


def _subjects_of_run(path: str) -> Iterator[_Subject]:
    for _, step_path in step_directories(path):
        yield _Subject(step_path, is_of_run=True)
    works = [(found, kind) for name, kind in _WORKS.items() for found in work_directories(path, name)]
    for found, kind in works:
        yield _Subject(found, kind, is_of_run=True)
    for name in journal_directories(path):
        # Those of a progress and of a study are verified with it.
        if not any(os.path.join(path, name, "").startswith(os.path.join(found, "")) for found, _ in works):
            yield _Subject(os.path.join(path, name), Kind.JOURNAL, is_of_run=True)


def _verify(subject: _Subject, level: str, rules_that_fail: Sequence[str], progress: ByteProgress) -> Verified:
    started = time.monotonic()
    if subject.kind is not Kind.CHECKPOINT:
        report = VerifyReport(subject.path, "full", _FINDERS[subject.kind](_DISK, subject.path), 0)
    else:
        report = verify_checkpoint(_DISK, subject.path, level=level, on_bytes=progress.advance)
    is_sound = report.ok and not any(finding.rule in rules_that_fail for finding in report.findings)
    return Verified(report, is_sound, time.monotonic() - started, subject.kind.value)


def _total_bytes(paths: Sequence[str]) -> int:
    """Return how many bytes there are to verify; what cannot be read counts nothing here and is reported later."""
    total = 0
    for path in paths:
        with suppress(CheckpointError, OSError):
            total += sum(shard.size_bytes for shard in read_manifest_of(path).shards)
    return total


def _document(outcome: _Outcome, level: str) -> dict[str, Any]:
    return {
        "kind": "verify",
        "ok": outcome.status == FINE,
        "level": level,
        "checkpoints": [verified_document(verified) for verified in outcome.results if not verified.is_journal],
        "journals": [verified_document(verified) for verified in outcome.results if verified.is_journal],
        "errors": outcome.errors,
    }
