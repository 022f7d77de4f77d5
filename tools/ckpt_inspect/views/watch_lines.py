"""A run at this moment, on one screen: who writes, what is saved and when next, how far each progress is, and a chart if there is room."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ckpt_inspect.output.plot import PLOT_ROWS, Point, plot_lines
from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.table import GAP
from ckpt_inspect.output.units import age_text, count_text, duration_text, number_text, parse_utc, size_text, utc_text
from ckpt_inspect.output.visible import columns, cut_end, cut_middle, padded, visible
from ckpt_inspect.sources.run_directory import ListedCheckpoint
from ckpt_inspect.sources.run_watch import Snapshot, WatchedProgress
from ckpt_inspect.views.bar import bar, percent_text
from ckpt_inspect.views.json_values import metrics_document
from ckpt_inspect.views.run_marks import marks_of
from ckpt_inspect.views.study_lines import study_text, summary_document
from ckptfmt.run.retention import rank_by_metric
from ckptfmt.run.steps import StepEntry
from ckptfmt.run.study_reader import StudySummary

_LABEL = len("next save")
_BAR = 20
_MAX_NAME = 16
_ROOM_FOR = 3
_AROUND_CHART = 4
_LEAST_ROWS = 5
_UNLIMITED = 10**9
_IDLE_SECONDS, _IDLE_UNITS = 60, 20
LAST_TIME = 2.0**37


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for: the metric that says which checkpoint is best, and the step at which everything is done."""

    metric: str | None = None
    mode: str | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Best:
    """A checkpoint that is best by a metric; `word` is "lowest" or "highest"."""

    listed: ListedCheckpoint
    metric: str
    word: str


def best_of(snapshot: Snapshot, wanted: Wanted) -> Best | None:
    """Return the best sound checkpoint: by the metric that was asked for, else by one whose name says which end is good."""
    sound = sound_of(snapshot)
    if wanted.metric is not None and wanted.mode is not None:
        entries = [StepEntry(listed.step, listed.path, listed.manifest).stored() for listed in sound]
        ranked = rank_by_metric(entries, wanted.metric, wanted.mode)
        word = "lowest" if wanted.mode == "min" else "highest"
        return next((Best(listed, wanted.metric, word) for listed in sound if ranked and listed.step == ranked[0].step), None)
    for name, (word, step) in marks_of(sound).extremes.items():
        return Best(next(listed for listed in sound if listed.step == step), name, word)
    return None


def studies_of(snapshot: Snapshot) -> dict[str, StudySummary]:
    """Return the studies by the names that tell them apart: that of their directory, and their own where a directory has several."""
    return {
        os.path.basename(found.path) + (f"/{study.name}" if len(found.studies) > 1 else ""): study
        for found in snapshot.studies
        for study in found.studies
    }


def sound_of(snapshot: Snapshot) -> list[ListedCheckpoint]:
    """Return the checkpoints that are whole, in the order of their steps."""
    return [listed for listed in snapshot.run.checkpoints if listed.problem is None]


def watch_lines(
    snapshot: Snapshot, wanted: Wanted, screen: Screen, charts: Mapping[str, Sequence[Point]], *, height: int = _UNLIMITED
) -> Iterator[str]:
    """Yield the picture; `charts` are the metrics that may be drawn, as far as there is room."""
    lines = list(_picture(snapshot, wanted, screen))
    yield from lines[:height]
    room = height - len(lines)
    for name, points in charts.items():
        row_count = min(room - _AROUND_CHART, PLOT_ROWS)
        if row_count < _LEAST_ROWS:
            return
        drawing = plot_lines(points, screen.layout_width, is_ascii=screen.is_ascii, row_count=row_count)
        yield ""
        yield screen.style.bold(cut_end(visible(name), screen.layout_width))
        yield from drawing
        room -= len(drawing) + 2


def _picture(snapshot: Snapshot, wanted: Wanted, screen: Screen) -> Iterator[str]:
    clock = f"{screen.now.astimezone():%H:%M:%S}"
    room = screen.layout_width - len(clock) - len(GAP)
    path = cut_middle(visible(snapshot.run.path), room)
    yield screen.style.bold(path) + " " * (room - columns(path)) + GAP + screen.style.dim(clock)
    yield ""
    room = screen.cut_width - _LABEL - 2 * len(GAP)
    for label, text, color in _facts(snapshot, wanted, screen):
        first, *metrics = text if isinstance(text, list) else [text]
        shown = cut_end(first, room)
        for metric in metrics:
            if columns(shown) + len(GAP) + columns(metric) <= room:
                shown += GAP + metric
        yield GAP + screen.style.dim(padded(label, _LABEL)) + GAP + color(shown)
    studies = studies_of(snapshot)
    names = [*(progress.name for progress in snapshot.progresses), *studies]
    width = min(max((columns(visible(name)) for name in names), default=0), _MAX_NAME)
    if names:
        yield ""
    for progress in snapshot.progresses:
        yield _progress_line(progress, width, screen)
    for name, study in studies.items():
        shown = padded(cut_middle(visible(name), width), width)
        yield GAP + screen.style.bold(shown) + GAP + cut_end(study_text(study), screen.cut_width - width - 2 * len(GAP))


def _facts(snapshot: Snapshot, wanted: Wanted, screen: Screen) -> Iterator[tuple[str, str | list[str], Any]]:
    """Yield a label, a text and a colour; of a list, what follows the first text is left out where there is no room."""
    plain, now = str, screen.now
    yield _writer_fact(snapshot, screen)
    if snapshot.begun_at:
        yield "begun", f"{utc_text(snapshot.begun_at)} UTC, {age_text(snapshot.begun_at, now)}", plain
    logged = snapshot.logged
    if logged:
        rate = f", {rate_text(logged.steps_per_second)} steps/s" if logged.steps_per_second and snapshot.writer else ""
        yield "logged", [f"step {logged.step:,}{_ago(logged.at, now)}{rate}", *metric_texts(logged.metrics)], plain
    left = _left_text(snapshot, wanted)
    if left:
        yield "left", left, plain
    sound = sound_of(snapshot)
    if sound:
        yield "latest", _checkpoint_texts(sound[-1], now), plain
    best = best_of(snapshot, wanted)
    if best and best.listed.manifest:
        value = number_text(best.listed.manifest.metrics[best.metric])
        yield "best", f"step {best.listed.step:,}, {best.word} {visible(best.metric)} {value}", plain
    saving = _next_save_text(snapshot, now)
    if saving:
        yield "next save", saving, plain
    yield _size_fact(snapshot, sound, screen)
    for listed in snapshot.run.checkpoints:
        if listed.problem is not None and listed.status != "incomplete":
            yield "damaged", f"step {listed.step:,}: {visible(listed.problem)}", screen.style.red
    damage = [found.damage.partition("\n")[0] for found in snapshot.studies if found.damage]
    for problem in (*snapshot.problems, *(progress.problem for progress in snapshot.progresses if progress.problem), *damage):
        yield "problem", visible(problem), screen.style.red


def _writer_fact(snapshot: Snapshot, screen: Screen) -> tuple[str, str, Any]:
    writer, last = snapshot.writer, snapshot.last_writer
    if writer:
        return "writer", f"process {writer.pid} on {visible(writer.host)}{_since(writer.since_utc, screen.now)}", screen.style.green
    ended = f": process {last.pid} on {visible(last.host)} has ended" if last else ""
    return "writer", f"no writer{ended}", screen.style.yellow


def _since(since_utc: str, now: datetime) -> str:
    try:
        since = datetime.strptime(since_utc, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return ""
    return f" for {duration_text(max((now - since).total_seconds(), 0))}"


def _ago(at: datetime | None, now: datetime) -> str:
    return f", {age_text(at, now)}" if at else ""


def rate_text(per_second: float) -> str:
    """Return a rate with three digits."""
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def metric_texts(metrics: Mapping[str, int | float]) -> list[str]:
    """Return metrics with their names."""
    return [f"{cut_middle(visible(name), 2 * _MAX_NAME)} {number_text(value)}" for name, value in metrics.items()]


def _checkpoint_texts(listed: ListedCheckpoint, now: datetime) -> list[str]:
    manifest = listed.manifest
    created = parse_utc(manifest.created_at_utc) if manifest else None
    return [
        f"step {listed.step:,}{_ago(created, now)}, {size_text(listed.size_bytes)}",
        *metric_texts(manifest.metrics if manifest else {}),
    ]


def _left_text(snapshot: Snapshot, wanted: Wanted) -> str:
    logged = snapshot.logged
    if wanted.until is None or logged is None:
        return ""
    left = max(wanted.until - logged.step, 0)
    rate = logged.steps_per_second
    seconds = f", about {duration_text(left / rate)}" if rate and left else ""
    return f"{left:,} of {count_text(wanted.until, 'step')} ({percent_text(logged.step, wanted.until)} done){seconds}"


def next_save_at(snapshot: Snapshot) -> tuple[int, datetime] | None:
    """Return the step and time at which the next checkpoint is to be expected, if somebody is there to write it."""
    sound = sound_of(snapshot)
    newest = parse_utc(sound[-1].manifest.created_at_utc) if sound and sound[-1].manifest else None
    if snapshot.pace is None or snapshot.writer is None or newest is None:
        return None
    return sound[-1].step + snapshot.pace.steps, newest + timedelta(seconds=snapshot.pace.seconds)


def _next_save_text(snapshot: Snapshot, now: datetime) -> str:
    expected = next_save_at(snapshot)
    if expected is None or snapshot.pace is None:
        return ""
    step, at = expected
    seconds = (at - now).total_seconds()
    when = f"in {duration_text(seconds)}" if seconds > 0 else f"expected {age_text(at, now)}"
    return f"step {step:,} {when}, every {duration_text(snapshot.pace.seconds)} of late"


def _size_fact(snapshot: Snapshot, sound: Sequence[ListedCheckpoint], screen: Screen) -> tuple[str, str, Any]:
    run = snapshot.run
    text = count_text(len(sound), "checkpoint")
    if run.checkpoints:
        text += f", {size_text(run.size_bytes)}"
        if run.disk_bytes < run.size_bytes:
            text += f", on disk {size_text(run.disk_bytes)}"
    text += f"; {size_text(snapshot.free_bytes)} free"
    is_short = bool(sound) and snapshot.free_bytes < _ROOM_FOR * sound[-1].size_bytes
    if is_short:
        text += f": room for {snapshot.free_bytes // max(sound[-1].size_bytes, 1):,} more"
    return "sizes", text, screen.style.yellow if is_short else str


def _progress_line(progress: WatchedProgress, width: int, screen: Screen) -> str:
    name = screen.style.bold(padded(cut_middle(visible(progress.name), width), width))
    if progress.total is None:
        return f"{GAP}{name}{GAP}{progress.done:,} done{_speed_text(progress, screen.now)}"
    share = f"{progress.done:,} of {progress.total:,}, {percent_text(progress.done, progress.total)}"
    text = share + _speed_text(progress, screen.now)
    room = max(screen.cut_width - width - _BAR - 3 * len(GAP), len(share))
    return f"{GAP}{name}{GAP}{bar(progress.done, progress.total, _BAR, screen)}{GAP}{cut_end(text, room)}"


def _speed_text(progress: WatchedProgress, now: datetime) -> str:
    """Return speed and time left of what is going on; of what is not, when it last was."""
    failed = f", {progress.failed:,} failed" if progress.failed else ""
    rate = progress.units_per_second
    if not progress.last_at or progress.done == progress.total:
        return failed
    if rate is None or now.timestamp() - progress.last_at > max(_IDLE_SECONDS, _IDLE_UNITS / rate):
        # A time that no calendar has is damage that checksums do not see.
        return f", last {age_text(datetime.fromtimestamp(min(progress.last_at, LAST_TIME), UTC), now)}{failed}"
    left = f", {duration_text(progress.eta_seconds)} left" if progress.eta_seconds else ""
    return f", {rate_text(rate)}/s{left}{failed}"


def snapshot_document(snapshot: Snapshot, wanted: Wanted) -> dict[str, Any]:
    """Return a run at this moment as a JSON object."""
    sound, best, expected, logged = sound_of(snapshot), best_of(snapshot, wanted), next_save_at(snapshot), snapshot.logged
    return {
        "path": snapshot.run.path,
        "begun_at_utc": _utc(snapshot.begun_at),
        "writer": writer_document(snapshot),
        "checkpoint_count": len(sound),
        "damaged_count": sum(listed.status not in ("complete", "incomplete") for listed in snapshot.run.checkpoints),
        "size_bytes": snapshot.run.size_bytes,
        "disk_bytes": snapshot.run.disk_bytes,
        "free_bytes": snapshot.free_bytes,
        "latest": listed_document(sound[-1]) if sound else None,
        "best": {**listed_document(best.listed), "metric": best.metric, "is": best.word} if best else None,
        "next_save": {"step": expected[0], "expected_at_utc": _utc(expected[1])} if expected else None,
        "logged": logged_document(logged.step, logged.metrics, logged.at, logged.steps_per_second) if logged else None,
        "progress": [progress_document(progress) for progress in snapshot.progresses],
        "studies": [study_document(name, study) for name, study in studies_of(snapshot).items()],
        "problems": list(snapshot.problems),
    }


def _utc(instant: datetime | None) -> str | None:
    return f"{instant:%Y-%m-%dT%H:%M:%S.%fZ}" if instant else None


def writer_document(snapshot: Snapshot) -> dict[str, Any] | None:
    """Return who writes to the run, None where nobody does."""
    writer = snapshot.writer
    return {"host": writer.host, "pid": writer.pid, "since_utc": writer.since_utc} if writer else None


def listed_document(listed: ListedCheckpoint) -> dict[str, Any]:
    """Return one checkpoint."""
    manifest = listed.manifest
    return {
        "step": listed.step,
        "path": os.path.abspath(listed.path),
        "created_at_utc": manifest.created_at_utc if manifest else None,
        "size_bytes": listed.size_bytes,
        "metrics": metrics_document(manifest.metrics) if manifest else {},
    }


def logged_document(step: int, metrics: Mapping[str, int | float], at: datetime | None, rate: float | None) -> dict[str, Any]:
    """Return the newest row of the history."""
    return {"step": step, "at_utc": _utc(at), "metrics": metrics_document(metrics), "steps_per_second": rate}


def progress_document(progress: WatchedProgress) -> dict[str, Any]:
    """Return where one progress stands."""
    return {
        "name": progress.name,
        "done": progress.done,
        "total": progress.total,
        "failed": progress.failed,
        "units_per_second": progress.units_per_second,
        "eta_seconds": progress.eta_seconds,
        "problem": progress.problem,
    }


def study_document(name: str, study: StudySummary) -> dict[str, Any]:
    """Return where one study stands; `name` is that of its directory."""
    return {**summary_document(study), "name": name}
