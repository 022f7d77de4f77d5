"""What has changed in a run between two looks at it, one line and one JSON object for each change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ckpt_inspect.output.table import GAP
from ckpt_inspect.output.units import duration_text, size_text
from ckpt_inspect.output.visible import visible
from ckpt_inspect.sources.run_watch import Snapshot, WatchedProgress
from ckpt_inspect.views.bar import percent_text
from ckpt_inspect.views.study_lines import study_text
from ckpt_inspect.views.watch_lines import (
    listed_document,
    logged_document,
    metric_texts,
    progress_document,
    sound_of,
    studies_of,
    study_document,
    writer_document,
)


@dataclass(frozen=True, slots=True)
class Change:
    """`kind` is the `message_type` of its document."""

    kind: str
    text: str
    document: dict[str, Any]


def changes_between(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    """Yield what has changed, in the order in which people ask for it."""
    if writer_document(before) != writer_document(after):
        writer = after.writer
        text = f"process {writer.pid} on {visible(writer.host)} writes" if writer else "no writer: its process has ended"
        yield Change("writer", text, {"writer": writer_document(after)})
    yield from _checkpoint_changes(before, after)
    logged = after.logged
    if logged and (before.logged is None or (logged.step, logged.metrics, logged.at) != _key(before)):
        document = logged_document(logged.step, logged.metrics, logged.at, logged.steps_per_second)
        yield Change("logged", GAP.join([f"step {logged.step:,} logged", *metric_texts(logged.metrics)]), document)
    known = {progress.name: (progress.done, progress.failed, progress.total, progress.problem) for progress in before.progresses}
    for progress in after.progresses:
        if known.get(progress.name) != (progress.done, progress.failed, progress.total, progress.problem):
            yield Change("progress", _progress_text(progress), progress_document(progress))
    studies = studies_of(before)
    for name, study in studies_of(after).items():
        if studies.get(name) != study:
            yield Change("study", f"{visible(name)}: {study_text(study)}", study_document(name, study))
    for problem in after.problems:
        if problem not in before.problems:
            yield Change("problem", visible(problem), {"message": problem})


def _key(snapshot: Snapshot) -> tuple[Any, ...]:
    logged = snapshot.logged
    return (logged.step, logged.metrics, logged.at) if logged else ()


def _checkpoint_changes(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    known = {listed.step: listed for listed in sound_of(before)}
    for listed in sound_of(after):
        old = known.pop(listed.step, None)
        if old is None or old.manifest is None or listed.manifest is None or old.manifest.digest != listed.manifest.digest:
            metrics = listed.manifest.metrics if listed.manifest else {}
            text = GAP.join([f"step {listed.step:,} saved, {size_text(listed.size_bytes)}", *metric_texts(metrics)])
            yield Change("checkpoint", text, listed_document(listed))
    there = {listed.step: listed for listed in after.run.checkpoints if listed.status != "incomplete"}
    gone = [step for step in known if step not in there]
    if gone:
        yield Change("removed", f"deleted: step {', '.join(f'{step:,}' for step in gone)}", {"steps": gone})
    was_damaged = {listed.step for listed in before.run.checkpoints if listed.problem is not None}
    for listed in there.values():
        if listed.problem is not None and listed.step not in was_damaged:
            document = {"step": listed.step, "path": listed.path, "problem": listed.problem}
            yield Change("damaged", f"step {listed.step:,} is {listed.status}: {visible(listed.problem)}", document)


def _progress_text(progress: WatchedProgress) -> str:
    text = f"{visible(progress.name)}: {progress.done:,}"
    if progress.total is not None:
        text += f" of {progress.total:,}, {percent_text(progress.done, progress.total)}"
    text += " done"
    if progress.eta_seconds:
        text += f", {duration_text(progress.eta_seconds)} left"
    if progress.failed:
        text += f", {progress.failed:,} failed"
    return text + (f": {visible(progress.problem)}" if progress.problem else "")
