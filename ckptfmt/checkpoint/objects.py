"""Restoring live objects from a checkpoint's sections, and saying what happened to each."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ckptfmt.checkpoint.reader import OpenCheckpoint


class Stateful(Protocol):
    """Anything that can take its state back: modules, optimizers, schedulers, loaders."""

    def load_state_dict(self, state_dict: Any) -> Any:
        """Take over a state."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What became of each component.

    `restored` were loaded; `skipped` are sections of the checkpoint that nobody asked for; `missing` were asked for and
    are not in it (only with strict=False). `missing_keys` and `unexpected_keys` are what modules report, by component.
    """

    path: str
    step: int | None
    restored: tuple[str, ...]
    skipped: tuple[str, ...]
    missing: tuple[str, ...]
    missing_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unexpected_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def restore_objects(checkpoint: OpenCheckpoint, objects: Mapping[str, Stateful], *, strict: bool) -> LoadReport:
    """Load sections into objects. Everything is read and verified before the first object is touched."""
    for name, target in objects.items():
        if not callable(getattr(target, "load_state_dict", None)):
            raise TypeError(f"{name}: expected an object with load_state_dict(), found {type(target).__name__}")
    present = dict.fromkeys(checkpoint.sections())
    missing = tuple(name for name in objects if name not in present)
    if missing and strict:
        error = checkpoint.unknown_name(missing[0], present, "section")
        error.args = (f"{error} Pass strict=False to leave objects without a section as they are.",)
        raise error
    wanted = [name for name in objects if name in present]
    states = checkpoint.load_sections(wanted)
    missing_keys: dict[str, tuple[str, ...]] = {}
    unexpected_keys: dict[str, tuple[str, ...]] = {}
    for done, name in enumerate(wanted):
        try:
            outcome = _load_state_dict(objects[name], states[name], strict=strict)
        except Exception as error:
            error.add_note(f"while restoring {name!r} from {checkpoint.path}; restored before it: {', '.join(wanted[:done]) or 'nothing'}")
            raise
        if getattr(outcome, "missing_keys", None):
            missing_keys[name] = tuple(outcome.missing_keys)
        if getattr(outcome, "unexpected_keys", None):
            unexpected_keys[name] = tuple(outcome.unexpected_keys)
    return LoadReport(
        path=checkpoint.path,
        step=checkpoint.info.step,
        restored=tuple(wanted),
        skipped=tuple(name for name in present if name not in objects),
        missing=missing,
        missing_keys=missing_keys,
        unexpected_keys=unexpected_keys,
    )


def _load_state_dict(target: Stateful, state: Any, *, strict: bool) -> Any:
    """Call `load_state_dict`, with `strict` where it takes that."""
    try:
        takes_strict = "strict" in inspect.signature(target.load_state_dict).parameters
    except (TypeError, ValueError):
        takes_strict = False
    return target.load_state_dict(state, strict=strict) if takes_strict else target.load_state_dict(state)  # type: ignore[call-arg]
