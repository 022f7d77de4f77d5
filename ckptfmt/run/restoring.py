"""Restoring a run: which checkpoint, into what, and what is said about it.

A damaged checkpoint is never handed out and never ends the search for a sound one: the next candidate is tried, a warning names
the damage, and the report keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from ckptfmt.checkpoint.objects import Stateful, restore_objects
from ckptfmt.checkpoint.reader import OpenCheckpoint
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import CheckpointNotFoundError, FormatError, IncompleteError, NameNotFoundError, UnsupportedVersionError
from ckptfmt.run.notices import warn
from ckptfmt.run.steps import StepEntry

_SHOWN_STEPS = 5


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What became of each component, and which checkpoints were passed over because they are damaged.

    `restored` were loaded into the given objects; `skipped` are the other sections, which are in `Restored.state`;
    `missing` were asked for, are not in the checkpoint, and were allowed to be. `damaged` maps steps to what is wrong.
    """

    path: str
    restored: tuple[str, ...]
    skipped: tuple[str, ...]
    missing: tuple[str, ...]
    damaged: Mapping[int, str] = field(default_factory=dict)
    missing_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unexpected_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Restored:
    """A restored checkpoint. `state` holds the sections that were not loaded into objects."""

    step: int
    state: Any
    metrics: Mapping[str, int | float]
    report: RestoreReport


def restore_first_sound(candidates: Iterable[StepEntry], restore: Callable[[StepEntry, Mapping[int, str]], Restored]) -> Restored | None:
    """Restore the first candidate that is sound, None if there are none; `restore` is told which were damaged before it.

    Raises:
        CorruptError: none is; the error is that of the first.
        CheckpointNotFoundError: one was deleted since it was listed.
        NameNotFoundError: it lacks a section that was asked for and that no glob of `allow_missing` names.
    """
    damaged: dict[int, str] = {}
    first_error: FormatError | None = None
    for entry in candidates:
        try:
            restored = restore(entry, damaged)
        except UnsupportedVersionError:
            # Sound, and of a newer library: going on from an older one would leave it behind.
            raise
        except IncompleteError as error:
            raise CheckpointNotFoundError(f"{entry.path}: was deleted meanwhile", path=entry.path) from error
        except FormatError as error:
            damaged[entry.step] = str(error).partition("\n")[0]
            first_error = first_error or error
            continue
        for step, message in damaged.items():
            text = f"step {step} is damaged and was passed over; restored step {entry.step}: {message}"
            warn(text)
        return restored
    if first_error is None:
        return None
    first_error.add_note(f"No checkpoint of this run is sound: steps {', '.join(map(str, damaged))} were tried. Nothing was deleted.")
    raise first_error


def restore_entry(
    disk: Disk,
    entry: StepEntry,
    objects: Mapping[str, Stateful] | None,
    *,
    allow_missing: Sequence[str],
    device: Any,
    damaged: Mapping[int, str],
) -> Restored:
    """Restore one checkpoint."""
    if entry.error is not None:
        raise entry.error
    with OpenCheckpoint(disk, entry.path, device=device) as checkpoint:
        metrics = checkpoint.info.metrics
        if not objects:
            everything = RestoreReport(entry.path, (), tuple(checkpoint.sections()), (), dict(damaged))
            return Restored(entry.step, checkpoint.load(), metrics, everything)
        present = checkpoint.sections()
        check_sections(entry.path, objects, present, allow_missing)
        # Read before an object is touched: what is damaged must not leave half of them restored.
        rest = checkpoint.load_sections([name for name in present if name not in objects])
        report = restore_objects(checkpoint, {name: target for name, target in objects.items() if name in present}, strict=True)
        return Restored(
            entry.step,
            rest,
            metrics,
            RestoreReport(
                path=entry.path,
                restored=report.restored,
                skipped=report.skipped,
                missing=tuple(name for name in objects if name not in present),
                damaged=dict(damaged),
                missing_keys=report.missing_keys,
                unexpected_keys=report.unexpected_keys,
            ),
        )


def check_sections(path: str, wanted: Iterable[str], present: Sequence[str], allow_missing: Sequence[str]) -> None:
    """Raise a NameNotFoundError for the first section that is wanted, not present, and not allowed to be missing."""
    for name in wanted:
        if name not in present and not any(fnmatchcase(name, pattern) for pattern in allow_missing):
            raise NameNotFoundError(
                f"{path}: {name!r} could not be restored: there is no such section\nThere are: {', '.join(present) or 'none'}. "
                f"Allow it with allow_missing=[{name!r}] if that is meant.",
                name=name,
                path=path,
            )


def no_such_step(path: str, step: int, known: Sequence[int]) -> CheckpointNotFoundError:
    """Return the error for a step that a run does not have."""
    shown = ", ".join(map(str, known[-_SHOWN_STEPS:])) or "none"
    more = f" and {len(known) - _SHOWN_STEPS} earlier ones" if len(known) > _SHOWN_STEPS else ""
    return CheckpointNotFoundError(f"{path}: no checkpoint of step {step}\nThere are: {shown}{more}.", path=path)
