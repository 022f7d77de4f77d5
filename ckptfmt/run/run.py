"""`Run`: a directory of checkpoints of one experiment, the face of this folder.

Nothing is decided here: what stays is planned by retention, what is restored by restoring, whether it is the same experiment by
identity. This class holds the state between calls: the writer's lock, where the line of training ends, and saves under way.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any

from ckptfmt.checkpoint.async_queue import QUEUE, SaveHandle
from ckptfmt.checkpoint.info import CheckpointInfo
from ckptfmt.checkpoint.objects import Stateful
from ckptfmt.checkpoint.saving import check_options, metric_values
from ckptfmt.checkpoint.snapshot import snapshot
from ckptfmt.checkpoint.writer import SaveOptions, write_checkpoint
from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.paths import make_directories
from ckptfmt.errors import CheckpointNotFoundError, FormatError, NotEnoughSpaceError
from ckptfmt.run.cached import cached
from ckptfmt.run.cleaning import CleanupReport, clean_up
from ckptfmt.run.export import export_run
from ckptfmt.run.fingerprint import Fingerprint
from ckptfmt.run.history import History
from ckptfmt.run.identity import Identity
from ckptfmt.run.mirror import Mirror, MirrorStatus
from ckptfmt.run.notices import warn
from ckptfmt.run.restoring import Restored, no_such_step, restore_first_sound
from ckptfmt.run.retention import Policy, parse_duration, rank_by_metric
from ckptfmt.run.steps import StepDirectory, StepEntry, check_step, find_entries, step_name
from ckptfmt.run.writer_lock import WriterLock
from ckptfmt.state.tree import EncodedState, encode_state

PathLike = str | os.PathLike[str]
RESUME_MODES = ("auto", "must", "never")


class Run:
    """One experiment's directory. Opening it checks that it is the same experiment; the first write takes the writer's lock.

    Args:
        directory: where the run lives; made when it is first written to.
        fingerprint: what identifies the experiment; compared with the run's own.
        resume: "auto" goes on where there is something, "must" requires it, "never" sets everything aside and starts anew.
        on_mismatch: "error", "warn", "ignore", or "restart", which sets everything aside under a dated name.
        allow_changes: globs over fingerprint fields that may differ.
        monitor, mode: the metric that says which checkpoint is best, and whether "min" or "max" is.
        keep_last, keep_best, keep_every, keep_within: what stays, OR-ed; without any of them everything stays.
        mirror: a second directory that gets a verified copy of each commit; an empty run is filled from it.
        resume_from: a checkpoint, or another run's directory, to begin from while this run has no checkpoint of its own.

    Raises:
        FingerprintMismatchError: it is another experiment; `.differences` says in what.
        CheckpointNotFoundError: resume="must", and there is nothing.
        RunLockedError: another process is writing (at the first write).
    """

    def __init__(
        self,
        directory: PathLike,
        *,
        fingerprint: Fingerprint | None = None,
        resume: str = "auto",
        on_mismatch: str = "error",
        allow_changes: Sequence[str] = (),
        monitor: str | None = None,
        mode: str | None = None,
        keep_last: int | None = None,
        keep_best: int | None = None,
        keep_every: int | None = None,
        keep_within: str | float | timedelta | None = None,
        mirror: PathLike | None = None,
        resume_from: PathLike | None = None,
        max_shard_size: str | int = "2GB",
        durable: bool = True,
    ) -> None:
        if resume not in RESUME_MODES:
            raise ValueError(f"resume={resume!r}: expected one of {', '.join(RESUME_MODES)}")
        self.path = os.fspath(directory)
        self.policy = Policy(keep_last, keep_best, keep_every, parse_duration(keep_within), monitor, mode)
        self._options = check_options(max_shard_size=max_shard_size, durable=durable)
        self._disk = LocalDisk()
        self._steps = StepDirectory(self._disk, self.path)
        self._history = History(self._disk, self.path, durable=durable)
        self._identity = Identity(self._disk, self.path, fingerprint, on_mismatch=on_mismatch, allow_changes=allow_changes)
        self._mirror = None if mirror is None else Mirror(self._disk, self.path, os.fspath(mirror))
        self._origin = None if resume_from is None else os.fspath(resume_from)
        self._mutex = threading.RLock()
        self._lock: WriterLock | None = None
        self._line_end: int | None = None
        self._base: str | None = None
        self._handles: list[SaveHandle] = []
        self._is_closed = False
        self._open(resume)

    def _open(self, resume: str) -> None:
        if resume != "never" and self._mirror is not None and not self._committed() and (brought := self._mirror.fill()):
            warn(f"{self.path}: empty; restored steps {brought} from the mirror")
            self._identity.read()
        if resume == "must" and not self.can_resume():
            raise CheckpointNotFoundError(f"{self.path}: nothing to resume\nresume='auto' starts where there is nothing.", path=self.path)
        verdict = "ignored" if resume == "never" else self._identity.check()
        if verdict is not None:
            self._begin_anew(verdict)

    def _begin_anew(self, reason: str) -> None:
        """Set what is there aside under a dated name."""
        if self._steps.exists():
            self._begin_writing()
            aside = self._steps.set_everything_aside(reason=reason, now=datetime.now(UTC))
            self._identity.forget()
            if aside:
                message = f"{self.path}: starting anew; what was there is kept: {', '.join(aside[:3])}{', ...' if len(aside) > 3 else ''}"
                warn(message)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # Reading

    def all_steps(self) -> list[int]:
        """Return the steps that have a committed checkpoint, in ascending order."""
        return [entry.step for entry in self._committed()]

    def latest_step(self) -> int | None:
        """Return the newest step whose checkpoint is committed and complete, None where there is none."""
        for entry in reversed(self._committed()):
            if self._steps.find_damage(entry) is None:
                return entry.step
        return None

    def best_step(self) -> int | None:
        """Return the step with the best value of `monitor`; NaN is never best, of equals the newer one is."""
        ranked = self._ranked()
        return ranked[0].step if ranked else None

    def can_resume(self) -> bool:
        """Tell whether there is a checkpoint to go on from."""
        return self.latest_step() is not None or bool(self._origin_entries())

    def checkpoint(self, step: int) -> CheckpointInfo:
        """Return what is known of one step; the result can be used as a path."""
        if check_step(step) not in self.all_steps():
            raise no_such_step(self.path, step, self.all_steps())
        return self._steps.info(step)

    def history(self) -> list[dict[str, Any]]:
        """Return metrics by step, with `step` and `created_at_utc`; also of steps that were logged and not saved."""
        with self._mutex:
            return self._history.rows(self._committed())

    def restore(
        self,
        objects: Mapping[str, Stateful] | None = None,
        *,
        step: int | str = "latest",
        allow_missing: Sequence[str] = (),
        device: Any = "cpu",
    ) -> Restored | None:
        """Restore a checkpoint, into live objects or as plain state; None where there is nothing to restore.

        `step` is "latest", "best" or a number. Of "latest" and "best" a damaged checkpoint is passed over for the next one, with
        a warning. Training goes on from the restored step: what is newer is set aside under a dated name at the next write.

        Raises:
            NameNotFoundError: an object has no section in the checkpoint, and no glob of `allow_missing` names it.
            CheckpointNotFoundError: there is no such step.
            CorruptError: the given step is damaged, or every one is.
        """
        self._wait_for_saves()
        candidates = self._candidates(step)
        if not candidates:
            return None
        restored = restore_first_sound(self._disk, candidates, objects, allow_missing=allow_missing, device=device)
        self._line_end = restored.step
        self._base = restored.report.path
        return restored

    def _candidates(self, step: int | str) -> list[StepEntry]:
        entries = self._steps.entries() if self._steps.exists() else []
        if step == "latest":
            return entries[::-1] or self._origin_entries()
        if step == "best":
            by_step = {entry.step: entry for entry in entries}
            return [by_step[ranked.step] for ranked in self._ranked()]
        found = [entry for entry in entries if entry.step == check_step(step)]
        if not found:
            raise no_such_step(self.path, check_step(step), [entry.step for entry in entries])
        return found

    def _origin_entries(self) -> list[StepEntry]:
        """Return what `resume_from` names, newest first: one checkpoint, or those of a run."""
        return [] if self._origin is None else find_entries(self._disk, self._origin)

    def _committed(self) -> list[StepEntry]:
        return self._steps.committed() if self._steps.exists() else []

    def _ranked(self) -> list[Any]:
        if self.policy.monitor is None or self.policy.mode is None:
            raise ValueError("best needs monitor= and mode=: name the metric, and say whether 'min' or 'max' is better")
        return rank_by_metric([entry.stored() for entry in self._committed()], self.policy.monitor, self.policy.mode)

    # Writing

    def save(self, step: int, state: Any, *, metrics: Mapping[str, Any] | None = None) -> CheckpointInfo:
        """Save a state under a step: atomic and durable when this returns. Tensors that are unchanged are stored once.

        Raises:
            CheckpointExistsError: there is a checkpoint of this step.
            RunLockedError, NotEnoughSpaceError, UnsupportedTypeError: nothing was changed.
        """
        self._wait_for_saves()
        options = self._save_options(step, metrics)
        encoded = encode_state(state)
        self._begin_writing()
        return self._commit(encoded, options)

    def async_save(self, step: int, state: Any, *, metrics: Mapping[str, Any] | None = None) -> SaveHandle:
        """Save in the background; returns as soon as the state is copied. Saves commit in order."""
        QUEUE.raise_pending()
        options = self._save_options(step, metrics)
        copied = snapshot(encode_state(state))
        self._begin_writing()
        handle = QUEUE.put(self._steps.path_of(step), lambda: self._commit(copied, options))
        self._handles = [other for other in self._handles if not other.done()] + [handle]
        return handle

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Record metrics of a step without saving a checkpoint. Durable with the next save, and at the latest when the run is closed."""
        check_step(step)
        values = metric_values(metrics)
        self._begin_writing()
        with self._mutex:
            self._history.record(step, values, flush=False)

    def cleanup(self, *, dry_run: bool = False, **overrides: Any) -> CleanupReport:
        """Remove checkpoints that no rule keeps; `overrides` are keep_last, keep_best, keep_every, keep_within, monitor and mode.

        The newest sound checkpoint always stays. The report has a reason for each one that stays.
        """
        if "keep_within" in overrides:
            overrides["keep_within"] = parse_duration(overrides["keep_within"])
        policy = replace(self.policy, **overrides)
        if not dry_run:
            self._wait_for_saves()
            self._begin_writing()
        with self._mutex:
            return clean_up(self._steps, policy, dry_run=dry_run)

    def cached(self, name: str, compute: Callable[[], Any], *, inputs: Any) -> Any:
        """Return what `compute()` gave for these inputs before, or compute and keep it.

        `inputs` are plain data, arrays and tensors, which count by value, and paths, which count by the content of their files.
        Processes that need the same at once compute it once. The result is anything that a state may hold.
        """
        return cached(self._disk, self.path, name, compute, inputs)

    def export(self, directory: PathLike, *, steps: Sequence[int | str] = ("best",), overwrite: bool = False) -> list[str]:
        """Write history and checkpoints in common formats: JSON, CSV, npy, safetensors; return the paths.

        `steps` are numbers, "best" and "latest". Files that are there with the same content are left, so an interrupted export is
        finished by calling it again.

        Raises:
            CheckpointExistsError: a file is there with other content, and overwrite is False.
        """
        entries = {entry.step: entry for step in steps for entry in self._candidates(step)[:1]}
        return export_run(self._disk, os.fspath(directory), self.history(), entries.values(), overwrite=overwrite)

    def mirror_status(self) -> MirrorStatus | None:
        """Return where the mirror stands; None without one."""
        return None if self._mirror is None else self._mirror.status()

    def wait_until_finished(self) -> None:
        """Wait for saves and copies under way, and raise what went wrong with a save. What the mirror lacks is in its status."""
        self._wait_for_saves()
        if self._mirror is not None:
            self._mirror.wait()

    def _wait_for_saves(self) -> None:
        handles, self._handles = self._handles, []
        for handle in handles:
            handle.result()
        QUEUE.raise_pending()

    def close(self) -> None:
        """Finish what is under way and give the lock up. Closing twice is harmless."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._wait_for_saves()
        finally:
            self._history.close()
            if self._mirror is not None:
                self._mirror.update_and_close()
            if self._lock is not None:
                self._lock.release()

    def _save_options(self, step: int, metrics: Mapping[str, Any] | None) -> SaveOptions:
        fingerprint = self._identity.document
        return replace(self._options, step=check_step(step), metrics=metric_values(metrics or {}), fingerprint=fingerprint)

    def _begin_writing(self) -> None:
        """Take the lock, and give the run its directory and its identity, before the first write."""
        with self._mutex:
            if self._is_closed:
                raise ValueError(f"{self.path}: this run is closed; open it again to write")
            if self._lock is None:
                make_directories(self._disk, self.path)
                self._lock = WriterLock(self._disk, self.path)
            self._identity.establish()
            if self._base is None and self._line_end is None:
                self._base = next((entry.path for entry in reversed(self._committed())), None)
            if self._line_end is not None:
                self._leave_later_steps(self._line_end)

    def _leave_later_steps(self, line_end: int) -> None:
        """Set aside what is newer than the step from which training goes on."""
        self._line_end = None
        later = [step_name(step) for step in self._steps.numbers() if step > line_end]
        aside = self._steps.set_aside(later, reason=f"after-{step_name(line_end)}", now=datetime.now(UTC))
        self._history.branch(line_end)
        if aside:
            message = f"{self.path}: going on from step {line_end}; {len(aside)} later checkpoints are kept as {aside[0]}, ..."
            warn(message)

    def _commit(self, state: EncodedState, options: SaveOptions) -> CheckpointInfo:
        with self._mutex:
            step = check_step(options.step)
            info = self._write(self._steps.path_of(step), state, options)
            self._base = info.path
            self._history.record(step, options.metrics, flush=True)
            if not self.policy.is_empty:
                clean_up(self._steps, self.policy, dry_run=False)
            if self._mirror is not None:
                self._mirror.update()
            return info

    def _write(self, path: str, state: EncodedState, options: SaveOptions) -> CheckpointInfo:
        try:
            if self._base is not None:
                try:
                    return write_checkpoint(self._disk, path, state, replace(options, base=self._base))
                except (FormatError, CheckpointNotFoundError):
                    # Damaged or deleted meanwhile: it only costs the sharing.
                    self._base = None
            return write_checkpoint(self._disk, path, state, options)
        except NotEnoughSpaceError as error:
            freed = clean_up(self._steps, replace(self.policy, keep_last=self.policy.keep_last or 1), dry_run=True).freed_bytes
            if freed:
                error.add_note(f"cleanup(keep_last=1) would free about {freed:,} bytes in {self.path}.")
            raise
