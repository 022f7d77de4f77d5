"""Cleaning a run up: the plan is shown, somebody agrees, and the library does it under the run's lock."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any

from ckpt_inspect.output.exit_status import FINE
from ckpt_inspect.output.messages import report_error
from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.units import count_text, size_text
from ckpt_inspect.sources.location import NotReadableHereError, run_path
from ckpt_inspect.sources.run_directory import read_run
from ckpt_inspect.sources.run_history import check_metric
from ckpt_inspect.sources.run_writer import find_writer
from ckpt_inspect.views.cleanup_table import cleanup_document, cleanup_lines, freed_bytes
from ckptfmt.errors import RunLockedError
from ckptfmt.run.cleaning import CleanupReport
from ckptfmt.run.retention import Policy, parse_duration
from ckptfmt.run.run import Run


class Answer(Enum):
    """Whether anything may be deleted."""

    ASK = "ask"
    YES = "yes"
    ONLY_SHOW = "only show"


def clean_up(path: str, rules: Mapping[str, Any], answer: Answer, screen: Screen) -> int:
    """Show which checkpoints stay and why; delete the others if that is agreed to."""
    path = run_path(path)
    _check_rules(path, rules)
    if answer is Answer.ASK and (screen.is_json or not sys.stdin.isatty()):
        raise NotReadableHereError(f"{path}: nothing was deleted: there is nobody to ask\nGive -y to delete, or -n to see what would be.")
    if answer is not Answer.ONLY_SHOW:
        _check_lock(path)
    listed = read_run(path)
    with warnings_as_messages(), Run(path, on_mismatch="ignore") as run:
        report = run.cleanup(dry_run=answer is not Answer.YES, **rules)
        is_done = answer is Answer.YES
        if not screen.is_json:
            screen.write_lines(cleanup_lines(report, listed, screen))
        if answer is Answer.ASK and report.removed and _agrees(report, freed_bytes(report, listed)):
            report = run.cleanup(**rules)
            is_done = True
    if screen.is_json:
        screen.write_document(cleanup_document(report, listed))
    elif report.removed and answer is Answer.ASK:
        screen.write_lines(
            [
                "nothing was deleted"
                if not is_done
                else f"{count_text(len(report.removed), 'checkpoint')} deleted, {size_text(report.freed_bytes)} freed"
            ]
        )
    return FINE


def _check_rules(path: str, rules: Mapping[str, Any]) -> None:
    try:
        policy = Policy(**{**rules, "keep_within": parse_duration(rules["keep_within"])})
    except ValueError as error:
        raise NotReadableHereError(_as_options(str(error))) from None
    if policy.is_empty:
        raise NotReadableHereError(
            f"{path}: nothing was deleted: no rule says what to keep\nGive --keep-last, --keep-best, --keep-every or --keep-within."
        )
    if policy.keep_best is not None and policy.monitor is not None:
        manifests = [listed.manifest for listed in read_run(path).checkpoints if listed.manifest]
        check_metric(path, policy.monitor, list(dict.fromkeys(name for manifest in manifests for name in manifest.metrics)))


def _as_options(message: str) -> str:
    """Return a message of the library in the words of the command line."""
    for name, option in (("keep_", "--keep-"), ("monitor", "--metric"), ("mode", "--mode")):
        message = message.replace(name, option)
    return message.replace("=", " ").replace(", or None", "")


def _check_lock(path: str) -> None:
    """Refuse before anybody is asked; the library takes the lock later, whatever this says."""
    writer = find_writer(path)
    if writer is not None:
        raise RunLockedError(
            f"{path}: process {writer.pid} on {writer.host} is writing to this run since {writer.since_utc}\n"
            "Nothing was deleted. Wait for it or stop it; -n shows what would be deleted at any time.",
            path=path,
        )


def _agrees(report: CleanupReport, size_bytes: int) -> bool:
    question = f"Delete {count_text(len(report.removed), 'checkpoint')} and free {size_text(size_bytes)}? [y/N] "
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@contextmanager
def warnings_as_messages() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        report_error(str(warning.message))
