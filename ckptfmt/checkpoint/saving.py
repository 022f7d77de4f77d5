"""The public functions that write: save and async_save, with their arguments checked.

Asynchronous saves are one queue with one thread for the whole process, so that they commit in the order in which they were
asked for. The state is copied on the caller's thread; an error is raised by the handle, by the next save, and at exit.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Protocol

from ckptfmt.checkpoint.async_queue import QUEUE, SaveHandle
from ckptfmt.checkpoint.info import CheckpointInfo
from ckptfmt.checkpoint.publishing import SaveOptions
from ckptfmt.checkpoint.snapshot import snapshot
from ckptfmt.checkpoint.writer import write_checkpoint
from ckptfmt.disk.anywhere import AnyDisk
from ckptfmt.disk.urls import location
from ckptfmt.errors import UnsupportedTypeError
from ckptfmt.format import canonical_json
from ckptfmt.format.layout import MAX_INTEGER
from ckptfmt.format.rules import shown
from ckptfmt.state.pause import collector_paused
from ckptfmt.state.tree import encode_state

_DISK = AnyDisk()
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kKMGT]?)(i?)[bB]?\s*")
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}

PathLike = str | os.PathLike[str]


class HasDocument(Protocol):
    """A `Fingerprint`, as far as saving is concerned."""

    def to_document(self) -> dict[str, Any]:
        """Return it as plain JSON."""


def save(
    path: PathLike,
    state: Any,
    *,
    step: int | None = None,
    metrics: Mapping[str, Any] | None = None,
    fingerprint: Mapping[str, Any] | HasDocument | None = None,
    overwrite: bool = False,
    base: PathLike | None = None,
    frozen: str | Sequence[str] = (),
    max_shard_size: str | int = "2GB",
    durable: bool = True,
) -> CheckpointInfo:
    """Save a state as a checkpoint: atomic, durable, with digests of everything.

    `state` is nested dict, list, tuple of tensors, arrays and plain values; objects with `state_dict()` are asked for it. It is
    not changed. `metrics` are numbers to find the checkpoint by. With `base`, tensors that are unchanged since that
    checkpoint are shared with it by hard links. `frozen` is one glob or several over tensors, such as "model.backbone.*", that you
    know to be unchanged since then: they are not hashed, only their first, middle and last KiB are compared. `durable=False`
    leaves out the fsyncs: still atomic against a kill, not against a power cut.

    Raises:
        UnsupportedTypeError, LimitError: a value that cannot be stored; `.path` says where. Nothing was written.
        CheckpointExistsError: a checkpoint is there, and overwrite is False.
        NameNotFoundError: a glob of `frozen` matches no tensor. Nothing was written.
        NotEnoughSpaceError: nothing was changed.
        DurabilityUnknownError: committed, but the disk did not confirm the last step.
    """
    QUEUE.raise_pending()
    options = check_options(
        step=step,
        metrics=metrics,
        fingerprint=fingerprint,
        base=base,
        frozen=frozen,
        max_shard_size=max_shard_size,
        overwrite=overwrite,
        durable=durable,
    )
    with collector_paused():
        return write_checkpoint(_DISK, location(path), encode_state(state), options)


def async_save(
    path: PathLike,
    state: Any,
    *,
    step: int | None = None,
    metrics: Mapping[str, Any] | None = None,
    fingerprint: Mapping[str, Any] | HasDocument | None = None,
    overwrite: bool = False,
    base: PathLike | None = None,
    frozen: str | Sequence[str] = (),
    max_shard_size: str | int = "2GB",
    durable: bool = True,
) -> SaveHandle:
    """Save in the background: returns as soon as the state is copied, which may change from then on.

    Saves commit in the order in which they were asked for. Use `.result()` to wait and get the `CheckpointInfo`; an
    error that nobody fetched is raised by the next save, and printed at exit, which waits for saves under way.
    """
    QUEUE.raise_pending()
    options = check_options(
        step=step,
        metrics=metrics,
        fingerprint=fingerprint,
        base=base,
        frozen=frozen,
        max_shard_size=max_shard_size,
        overwrite=overwrite,
        durable=durable,
    )
    copied = snapshot(encode_state(state))
    target = location(path)
    return QUEUE.put(target, lambda: write_checkpoint(_DISK, target, copied, options))


def check_options(
    *,
    step: int | None = None,
    metrics: Mapping[str, Any] | None = None,
    fingerprint: Mapping[str, Any] | HasDocument | None = None,
    base: PathLike | None = None,
    frozen: str | Sequence[str] = (),
    max_shard_size: str | int = "2GB",
    overwrite: bool = False,
    durable: bool = True,
) -> SaveOptions:
    """Return the options of a save, checked and in plain form."""
    if step is not None and (type(step) is not int or not 0 <= step < MAX_INTEGER):
        raise ValueError(f"step={step!r}: expected an integer of at least 0, or None")
    return SaveOptions(
        step=step,
        metrics=metric_values(metrics or {}),
        fingerprint=_fingerprint_document(fingerprint),
        overwrite=overwrite,
        base=None if base is None else location(base),
        max_shard_size_bytes=parse_size(max_shard_size),
        durable=durable,
        frozen=(frozen,) if isinstance(frozen, str) else tuple(frozen),
    )


def metric_values(metrics: Mapping[str, Any]) -> dict[str, int | float]:
    """Return metrics as plain numbers; 0-d tensors and numpy scalars are asked for theirs."""
    if not isinstance(metrics, Mapping):
        raise UnsupportedTypeError(f"metrics: expected a mapping from names to numbers, found {type(metrics).__name__}", path="metrics")
    return {name: _metric_value(name, value) for name, value in metrics.items()}


def _metric_value(name: str, value: Any) -> int | float:
    if not isinstance(name, str):
        raise UnsupportedTypeError(f"metrics: expected names of str, found {type(name).__name__}", path="metrics")
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise UnsupportedTypeError(f"metrics: expected names of Unicode text, found {shown(name)}", path="metrics")
    if type(value) not in (int, float, bool) and callable(getattr(value, "item", None)):
        value = _item_of(name, value)
    if isinstance(value, (bool, int)):
        value = int(value)
        return value if -MAX_INTEGER <= value < MAX_INTEGER else float(value)
    if isinstance(value, float):
        return float(value)
    raise UnsupportedTypeError(
        f"metrics.{name}: expected a number, found {type(value).__name__}\nPut other values into the state.", path=f"metrics.{name}"
    )


def _item_of(name: str, value: Any) -> Any:
    try:
        return value.item()
    except (TypeError, ValueError, RuntimeError) as error:
        what = f"expected one number, found {type(value).__name__} of shape {tuple(getattr(value, 'shape', ()))}"
        raise UnsupportedTypeError(f"metrics.{name}: {what}\nPut arrays into the state.", path=f"metrics.{name}") from error


def _fingerprint_document(fingerprint: Any) -> dict[str, Any] | None:
    if fingerprint is None:
        return None
    if callable(to_document := getattr(fingerprint, "to_document", None)):
        fingerprint = to_document()
    try:
        document: dict[str, Any] = canonical_json.decode(
            canonical_json.encode(dict(fingerprint)), where="fingerprint", rule="E008", max_depth=32
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise UnsupportedTypeError(f"fingerprint: expected plain data that JSON can hold: {error}", path="fingerprint") from None
    return document


def parse_size(size: str | int) -> int:
    """Return a size such as "2GB" (powers of 1000), "512MiB" (powers of 1024) or 1000000 in bytes."""
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    match = _SIZE.fullmatch(size) if isinstance(size, str) else None
    size_bytes = math.floor(Fraction(match[1]) * (1024 if match[3] else 1000) ** _POWERS[match[2].upper()]) if match else 0
    if size_bytes <= 0:
        raise ValueError(f"max_shard_size={size!r}: expected a positive number of bytes or a size such as '2GB' or '512MiB'")
    return size_bytes
