"""Compressing and decompressing what lies under paths. One path's failure stops no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import ckptfmt
from ckpt_inspect.failures import message_of, status_of
from ckpt_inspect.output.exit_status import FINE, FOUND_SOMETHING, LOCKED
from ckpt_inspect.output.messages import report_error
from ckpt_inspect.output.progress import ByteProgress
from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.units import count_text
from ckpt_inspect.sources.checkpoint import read_manifest_of
from ckpt_inspect.sources.location import Kind, NotReadableHereError, kind_of, step_directories, without_final_slash
from ckpt_inspect.views.encoding_table import encoding_document, encoding_lines, step_lines
from ckptfmt.checkpoint.encoding import OnBytes, compress_checkpoint, decompress_checkpoint
from ckptfmt.checkpoint.estimating import estimate_checkpoint
from ckptfmt.disk.local import LocalDisk
from ckptfmt.errors import CheckpointError, CorruptError
from ckptfmt.run.compressing import OnStep, RunEncodingReport, StepEncoding
from ckptfmt.run.retention import parse_duration


@dataclass(frozen=True, slots=True)
class Rules:
    """What the options of `compress` say."""

    level: int
    keep_last: int
    older_than: str | None
    is_dry: bool


Work = Callable[[str, Kind, OnStep, OnBytes], RunEncodingReport]


def compress_paths(paths: Sequence[str], rules: Rules, screen: Screen) -> int:
    """Compress each path, and return the exit status."""
    _check(rules)

    def compress(path: str, kind: Kind, on_step: OnStep, on_bytes: OnBytes) -> RunEncodingReport:
        if kind is Kind.RUN:
            return ckptfmt.compress_run(
                path,
                level=rules.level,
                keep_last=rules.keep_last,
                older_than=rules.older_than,
                dry_run=rules.is_dry,
                on_step=on_step,
                on_bytes=on_bytes,
            )
        if rules.is_dry:
            before_bytes = _total_bytes(path)
            saved_bytes = estimate_checkpoint(LocalDisk(), path)
            step = StepEncoding(_step_of(path), path, before_bytes, before_bytes - saved_bytes, saved_bytes > 0)
            return RunEncodingReport(path, (step,), dry_run=True)
        return _of_one(path, compress_checkpoint(LocalDisk(), path, level=rules.level, on_bytes=on_bytes))

    return _work_on(paths, compress, "compress", screen, is_dry=rules.is_dry)


def decompress_paths(paths: Sequence[str], screen: Screen) -> int:
    """Decompress each path, and return the exit status."""

    def decompress(path: str, kind: Kind, on_step: OnStep, on_bytes: OnBytes) -> RunEncodingReport:
        if kind is Kind.RUN:
            return ckptfmt.decompress_run(path, on_step=on_step, on_bytes=on_bytes)
        return _of_one(path, decompress_checkpoint(LocalDisk(), path, on_bytes=on_bytes))

    return _work_on(paths, decompress, "decompress", screen, is_dry=False)


def _check(rules: Rules) -> None:
    if not 1 <= rules.level <= 22:
        raise NotReadableHereError(f"--level {rules.level}: expected a number from 1 to 22")
    if rules.keep_last < 0:
        raise NotReadableHereError(f"--keep-last {rules.keep_last}: expected a number of at least 0")
    try:
        parse_duration(rules.older_than)
    except ValueError:
        raise NotReadableHereError(f"--older-than {rules.older_than}: expected a duration such as 7d, 36h or 1w2d") from None


def _of_one(path: str, report: ckptfmt.EncodingReport) -> RunEncodingReport:
    sizes = (report.unique_before_bytes, report.unique_after_bytes)
    return RunEncodingReport(path, (StepEncoding(report.info.step or 0, path, *sizes, report.is_changed),))


def _step_of(path: str) -> int:
    return read_manifest_of(path).step or 0


def _work_on(paths: Sequence[str], work: Work, kind: str, screen: Screen, *, is_dry: bool) -> int:
    reports: list[RunEncodingReport] = []
    errors: list[dict[str, Any]] = []
    status = FINE
    has_bar = not screen.is_json and not screen.is_quiet
    shown = list(map(without_final_slash, paths))
    sizes = {step: size_bytes for path in shown for step, size_bytes in _tensor_bytes(path).items()} if has_bar else {}
    changed_count = 0
    with (
        _saying_what_an_interrupt_left(lambda: changed_count),
        ByteProgress(total_bytes=sum(sizes.values()), is_wanted=has_bar) as progress,
    ):
        for path in shown:
            progress.label(path)
            of_step = 0

            def advance(size_bytes: int) -> None:
                nonlocal of_step
                of_step += size_bytes
                progress.advance(size_bytes)

            def finish(step: StepEncoding) -> None:
                nonlocal of_step, changed_count
                changed_count += step.is_changed
                # What was not encoded, or was twice, because its base was damaged.
                progress.advance(sizes.get(step.path, of_step) - of_step)
                of_step = 0
                if not screen.is_json:
                    progress.hide()
                    screen.write_lines(step_lines(step, screen.cut_width))

            try:
                found = kind_of(path)
                if found not in (Kind.RUN, Kind.CHECKPOINT):
                    raise NotReadableHereError(f"{path}: expected a run or a checkpoint, found a {found.value}")
                report = work(path, found, finish, advance)
            except (CheckpointError, NotReadableHereError, OSError) as error:
                progress.hide()
                report_error(message_of(error))
                code = FOUND_SOMETHING if isinstance(error, CorruptError) else status_of(error)
                errors.append({"path": path, "message": message_of(error), "exit_status": code})
                status = max(status, code)
                continue
            reports.append(report)
            status = max(status, *map(_status_of_step, report.steps), FINE)
            progress.hide()
            if not screen.is_json:
                screen.write_lines(encoding_lines(report, screen.cut_width, is_run=found is Kind.RUN))
    if screen.is_json:
        screen.write_document(encoding_document(kind, reports, errors, is_dry=is_dry))
    return status


def _status_of_step(step: StepEncoding) -> int:
    if step.reason.startswith("damaged"):
        return FOUND_SOMETHING
    return LOCKED if step.reason == "being written" else FINE


@contextmanager
def _saying_what_an_interrupt_left(count_changed: Callable[[], int]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        count = count_text(count_changed(), "checkpoint")
        report_error(f"interrupted: {count} changed, every checkpoint is whole\nThe same command again goes on from here.")
        raise


def _tensor_bytes(path: str) -> dict[str, int]:
    """Return the size of the tensors of each checkpoint by its path; what cannot be read is left out here and reported later."""
    sizes = {}
    with suppress(CheckpointError, NotReadableHereError, OSError):
        steps = [step_path for _, step_path in step_directories(path)] or [path]
        for step_path in steps:
            with suppress(CheckpointError, OSError):
                sizes[step_path] = read_manifest_of(step_path).tensor_bytes
    return sizes


def _total_bytes(path: str) -> int:
    return sum(shard.size_bytes for shard in read_manifest_of(path).shards)
