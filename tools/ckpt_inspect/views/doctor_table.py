"""What a file system can do, and what each answer means for checkpoints: which of the promises can be kept there.

The promises are those of the README, P1 to P8.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.table import GAP
from ckpt_inspect.output.units import count_text, size_text
from ckpt_inspect.output.visible import padded, visible
from ckpt_inspect.views.findings import wrapped
from ckptfmt.disk.probe import Answer, Trial

_LITTLE_BYTES = 10**9
_FEW_INODES = 10_000
_NEEDED_NAME = 128
_TOO_FAST_SECONDS = 15e-6
_WORDS_WIDTH = len("note")


class Level(Enum):
    """How an answer is judged: a failure means that a promise cannot be kept."""

    OK = "ok"
    NOTE = "note"
    FAILURE = "fail"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A trial, how it is judged, what it means, and the promises that cannot be kept because of it."""

    trial: Trial
    level: Level
    title: str
    meaning: str
    promises: str = ""


# Title, what it means where it works, and where it does not; then the promises that need it.
_TEXTS = {
    "write": ("writing", "what is written is read back", "nothing can be stored here", "P1 P8"),
    "exclusive_create": ("exclusive creation", "no writer takes the file of another", "two writers could overwrite each other", "P2 P3"),
    "rename_over": ("atomic rename", "a commit happens wholly or not at all", "a commit is not atomic", "P2"),
    "open_after_unlink": ("open after removal", "readers finish while others tidy", "a reader may fail while others tidy", ""),
    "private_map": ("memory mapping", "tensors are mapped, not copied", "nothing can be loaded from here", "P1"),
    "hard_links": ("hard links", "unchanged tensors are stored once", "unchanged tensors are copied into each checkpoint", ""),
    "lock": ("locks", "a second writer of a run is refused", "a second writer of a run is not noticed: start only one", ""),
    "directory_sync": ("fsync of directories", "a commit survives a power cut", "a commit may be gone after a power cut", "P1"),
    "case": ("upper and lower case", "are different names", "names that differ only in case are one", ""),
    "clock": ("clock", "file times can be compared with ours", "times of files say nothing about the age of a checkpoint", ""),
    "direct_io": ("direct writing", "large shards leave the page cache alone", "large shards go through the page cache", ""),
    "reflink": ("clones", "offered; not needed", "not offered; not needed", ""),
    "write_barriers": ("write barriers", "", "a commit may be gone after a power cut", "P1"),
    "removal": ("removal", "the scratch directory is gone again", "what is deleted does not go away", "P8"),
}
_FILE_SYSTEMS = {
    "memory": ("everything is gone after a reboot", "P1"),
    "network": ("what other clients see, and when, is not promised", ""),
    "program": ("whether fsync reaches a disk is up to that program", ""),
    "container": ("it goes with the container: mount a volume", ""),
}


def judge(trials: Sequence[Trial]) -> list[Judgement]:
    """Judge each trial."""
    return [_judge(trial) for trial in trials]


def _judge(trial: Trial) -> Judgement:
    special = _SPECIAL.get(trial.name)
    if special is not None:
        return special(trial)
    title, good, bad, promises = _TEXTS[trial.name]
    if trial.answer in (Answer.WORKS, Answer.UNKNOWN):
        level = Level.OK if trial.answer is Answer.WORKS else Level.NOTE
        return Judgement(trial, level, title, good if level is Level.OK else trial.found)
    meaning = f"{trial.found}: {bad}" if trial.found else bad
    if trial.name == "reflink":
        return Judgement(trial, Level.OK, title, bad)
    is_failure = bool(promises) or (trial.answer is Answer.FAILED and trial.name == "hard_links")
    return Judgement(trial, Level.FAILURE if is_failure else Level.NOTE, title, meaning, promises or ("P3" if is_failure else ""))


def _judge_file_system(trial: Trial) -> Judgement:
    for word, (meaning, promises) in _FILE_SYSTEMS.items():
        if word in trial.found.partition(" ")[2]:
            level = Level.FAILURE if promises else Level.NOTE
            return Judgement(trial, level, "file system", f"{trial.found}: {meaning}", promises)
    level = Level.OK if trial.answer is Answer.WORKS else Level.NOTE
    return Judgement(trial, level, "file system", trial.found)


def _judge_name_length(trial: Trial) -> Judgement:
    if isinstance(trial.value, int) and trial.value >= _NEEDED_NAME:
        return Judgement(trial, Level.OK, "length of names", trial.found)
    meaning = f"{trial.found}: saves need up to {_NEEDED_NAME}"
    return Judgement(trial, Level.FAILURE, "length of names", meaning, "P8")


def _judge_free_bytes(trial: Trial) -> Judgement:
    return _judge_amount(trial, "free space", lambda value: f"{size_text(value)} free", _LITTLE_BYTES)


def _judge_free_inodes(trial: Trial) -> Judgement:
    return _judge_amount(trial, "free inodes", lambda value: count_text(value, "more file"), _FEW_INODES)


def _judge_amount(trial: Trial, title: str, text_of: Any, few: int) -> Judgement:
    if trial.answer is Answer.FAILED:
        return Judgement(trial, Level.FAILURE, title, trial.found or "none is left: no save fits", "P8")
    if not isinstance(trial.value, int):
        return Judgement(trial, Level.OK, title, trial.found)
    is_little = trial.value < few
    return Judgement(trial, Level.NOTE if is_little else Level.OK, title, text_of(trial.value) + (": little" if is_little else ""))


def _judge_sync_seconds(trial: Trial) -> Judgement:
    title = "fsync"
    if not isinstance(trial.value, float):
        return Judgement(trial, Level.FAILURE, title, f"{trial.found}: nothing here is durable", "P1")
    rate = f"{1 / trial.value:,.0f}" if trial.value >= 1e-6 else "over 1,000,000"
    meaning = f"{1000 * trial.value:.2f} ms: {rate} durable records a second, one by one"
    if trial.value < _TOO_FAST_SECONDS:
        return Judgement(trial, Level.NOTE, title, f"{meaning}; no disk is that fast")
    return Judgement(trial, Level.OK, title, meaning)


_SPECIAL = {
    "file_system": _judge_file_system,
    "name_length": _judge_name_length,
    "free_bytes": _judge_free_bytes,
    "free_inodes": _judge_free_inodes,
    "sync_seconds": _judge_sync_seconds,
}


def broken_promises(judgements: Sequence[Judgement]) -> list[str]:
    """Return the promises that cannot be kept, in their order."""
    return sorted({name for judgement in judgements if judgement.level is Level.FAILURE for name in judgement.promises.split()})


def doctor_lines(path: str, judgements: Sequence[Judgement], screen: Screen) -> Iterator[str]:
    """Yield one line for each trial, and what it comes to."""
    colors = {Level.OK: screen.style.green, Level.NOTE: screen.style.yellow, Level.FAILURE: screen.style.red}
    width = max(len(judgement.title) for judgement in judgements)
    indent = _WORDS_WIDTH + width + 2 * len(GAP)
    yield screen.style.bold(visible(path))
    yield ""
    for judgement in judgements:
        promises = f" [{judgement.promises}]" if judgement.level is Level.FAILURE else ""
        first, *more = wrapped(visible(judgement.meaning) + promises, screen.layout_width - indent)
        word = colors[judgement.level](padded(judgement.level.value, _WORDS_WIDTH))
        yield f"{word}{GAP}{padded(judgement.title, width)}{GAP}{first}"
        yield from (" " * indent + line for line in more)
    yield ""
    broken = broken_promises(judgements)
    notes = sum(judgement.level is Level.NOTE for judgement in judgements)
    if broken:
        yield screen.style.red(f"not all promises can be kept here: {', '.join(broken)}")
    else:
        yield screen.style.green("every promise can be kept here") + (f", with {count_text(notes, 'note')}" if notes else "")


def doctor_document(path: str, judgements: Sequence[Judgement]) -> dict[str, Any]:
    """Return what was found as a JSON object."""
    broken = broken_promises(judgements)
    return {
        "kind": "doctor",
        "path": path,
        "ok": not broken,
        "broken_promises": broken,
        "trials": [
            {
                "name": judgement.trial.name,
                "answer": judgement.trial.answer.value,
                "level": judgement.level.value,
                "found": judgement.trial.found,
                "value": judgement.trial.value,
                "meaning": judgement.meaning,
                "promises": judgement.promises.split(),
            }
            for judgement in judgements
        ],
    }
