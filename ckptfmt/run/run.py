"""`Run`: a directory of checkpoints of one experiment, the face of this folder.

Nothing is decided here: what stays is planned by retention, what is restored by restoring, whether it is the same experiment by
identity, and writing has the order of a commit. This class puts them together and keeps the saves that are under way.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import chain, islice
from types import TracebackType
from typing import Any

from ckptfmt.checkpoint.async_queue import QUEUE, SaveHandle
from ckptfmt.checkpoint.info import CheckpointInfo
from ckptfmt.checkpoint.objects import Stateful
from ckptfmt.checkpoint.publishing import SaveOptions
from ckptfmt.checkpoint.saving import check_options, metric_values
from ckptfmt.checkpoint.snapshot import snapshot
from ckptfmt.disk.anywhere import AnyDisk
from ckptfmt.disk.protocol import Disk
from ckptfmt.disk.urls import location
from ckptfmt.errors import CheckpointNotFoundError
from ckptfmt.run import at_exit
from ckptfmt.run.cached import cached
from ckptfmt.run.cleaning import CleanupReport
from ckptfmt.run.compressor import CompressionStatus, make_compressor
from ckptfmt.run.export import export_run
from ckptfmt.run.fingerprint import Fingerprint
from ckptfmt.run.history import History
from ckptfmt.run.identity import Identity
from ckptfmt.run.mirror import MirrorStatus
from ckptfmt.run.origin import Origin
from ckptfmt.run.places import PathLike, find_places
from ckptfmt.run.progress import Progress, close_progress, open_progress
from ckptfmt.run.restoring import Restored, no_such_step, restore_entry, restore_first_sound
from ckptfmt.run.retention import Policy, parse_duration, rank_by_metric
from ckptfmt.run.steps import StepEntry, check_step
from ckptfmt.run.writer_lock import naming_a_read_only_run
from ckptfmt.run.writing import RunWriter
from ckptfmt.state.tree import encode_state

RESUME_MODES = ("auto", "must", "never")
_ATTEMPTS = 5


class Run:
    """One experiment's directory. Opening it checks that it is the same experiment; the first write takes the writer's lock.

    Args:
        directory: where the run lives; made when it is first written to. Or the URL of an object store, whose one writer this becomes.
        fingerprint: what identifies the experiment; compared with the run's own.
        resume: "auto" goes on where there is something, "must" requires it, "never" sets everything aside and starts anew.
        on_mismatch: "error", "warn", "ignore", or "restart", which sets everything aside under a dated name.
        allow_changes: globs over fingerprint fields that may differ.
        monitor, mode: the metric that says which checkpoint is best, and whether "min" or "max" is.
        keep_last, keep_best, keep_every, keep_within: what stays, OR-ed; without any of them everything stays.
        mirror: a second directory, or the URL of an object store, that gets a verified copy of each commit; an empty run is filled from it.
        compress_older_than: "7d", "36h" or seconds: checkpoints older than that are compressed in the background, all but the newest.
        resume_from: a checkpoint, or another run's directory, to begin from while this run has no checkpoint of its own. A checkpoint of
            this run is gone back to, once: the same program started again goes on from where it is then.
        local_directory: for a URL, the directory of this machine with journals and the newest checkpoints; by default in the user's cache.

    Raises:
        FingerprintMismatchError: it is another experiment; `.differences` says in what.
        CheckpointNotFoundError: resume="must", and there is nothing.
        RunLockedError: another process is writing (at the first write; of a store at once).
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
        compress_older_than: str | float | timedelta | None = None,
        local_directory: PathLike | None = None,
        resume_from: PathLike | None = None,
        max_shard_size: str | int = "2GB",
        durable: bool = True,
        _disk: Disk | None = None,
    ) -> None:
        if resume not in RESUME_MODES:
            raise ValueError(f"resume={resume!r}: expected one of {', '.join(RESUME_MODES)}")
        self.path = location(directory)
        self.policy = Policy(keep_last, keep_best, keep_every, parse_duration(keep_within), monitor, mode)
        self._options = check_options(max_shard_size=max_shard_size, durable=durable)
        self._disk = _disk or AnyDisk()
        places = find_places(self._disk, self.path, self.policy, mirror, local_directory, compress_older_than)
        self._compressor = make_compressor(places.local, compress_older_than, self.policy, _disk)
        self._directory, self._steps, self._mirror, self._home = places.local.path, places.steps, places.mirror, places.home
        self._history = History(self._disk, self._directory, durable=durable)
        self._identity = Identity(self._disk, self._directory, fingerprint, on_mismatch=on_mismatch, allow_changes=allow_changes)
        self._origin = None if resume_from is None else Origin(self._disk, location(resume_from), self.path)
        self._writer = RunWriter(self._disk, places, self._identity, self._history, self.policy, self._compressor)
        self._handles: list[SaveHandle] = []
        self._studies: dict[str, Any] = {}
        self._progress: dict[str, Progress] = {}
        self._is_closed = False
        try:
            self._open(resume)
        except BaseException:
            self._writer.close()
            raise

    def _open(self, resume: str) -> None:
        self._writer.open(is_resumed=resume != "never")
        self._identity.read(next((entry.manifest for entry in self._steps.newest_first() if entry.manifest is not None), None))
        if resume == "must" and not self.can_resume():
            raise CheckpointNotFoundError(f"{self.path}: nothing to resume\nresume='auto' starts where there is nothing.", path=self.path)
        verdict = "ignored" if resume == "never" else self._identity.check()
        if verdict is not None and self._steps.exists():
            self._writer.begin_anew(verdict)
        if self._home is not None:
            # What a kill kept from the store is brought now, and not with the next save.
            self._home.copy.update()
            at_exit.remember(self)

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
        sound = (entry.step for entry in self._steps.newest_first() if self._steps.find_damage(entry) is None)
        return next(sound, None)

    def best_step(self) -> int | None:
        """Return the step with the best value of `monitor`; NaN is never best, of equals the newer one is."""
        ranked = self._ranked()
        return ranked[0].step if ranked else None

    def can_resume(self) -> bool:
        """Tell whether there is a checkpoint to go on from."""
        return self.latest_step() is not None or (self._origin is not None and bool(self._origin.entries()))

    def checkpoint(self, step: int) -> CheckpointInfo:
        """Return what is known of one step; the result can be used as a path."""
        if not self._steps.is_committed(check_step(step)):
            raise no_such_step(self.path, step, self.all_steps())
        return self._steps.info(step)

    def history(self) -> list[dict[str, Any]]:
        """Return metrics by step, with `step` and `created_at_utc`; also of steps that were logged and not saved."""
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
        return self._restore_by(
            step,
            lambda entry, damaged: restore_entry(self._disk, entry, objects, allow_missing=allow_missing, device=device, damaged=damaged),
        )

    def _restore_by(self, step: int | str, restore: Callable[[StepEntry, Mapping[int, str]], Restored]) -> Restored | None:
        self._wait_for_saves()
        restored = None
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                restored = restore_first_sound(self._candidates(step), restore)
                break
            except CheckpointNotFoundError:
                # Where a clean-up of another process was faster than the list of candidates, a new list names what is there.
                if attempt == _ATTEMPTS:
                    raise
        if restored is not None:
            asked_for = self._origin.asked_for(self._history) if self._origin is not None and step == "latest" else None
            self._writer.go_on_from(restored.step, restored.report.path, asked_for=asked_for.digest if asked_for else None)
        return restored

    def _candidates(self, step: int | str) -> Iterator[StepEntry]:
        """Yield what may be restored, in the order in which it is tried, reading no more than is asked for."""
        if step == "latest":
            if self._origin is not None and (asked_for := self._origin.asked_for(self._history)) is not None:
                yield asked_for.entry
                return
            newest = self._steps.newest_first()
            first = next(newest, None)
            yield from chain((first,), newest) if first is not None else self._origin.entries() if self._origin is not None else ()
        elif step == "best":
            yield from self._steps.entries([ranked.step for ranked in self._ranked()])
        elif isinstance(step, str):
            raise ValueError(f"step={step!r}: expected 'latest', 'best' or a number")
        else:
            found = self._steps.entries([check_step(step)])
            if not found:
                raise no_such_step(self.path, step, [entry.step for entry in self._committed()])
            yield from found

    def _committed(self) -> list[StepEntry]:
        return self._steps.committed() if self._steps.exists() else []

    def _ranked(self) -> list[Any]:
        if self.policy.monitor is None or self.policy.mode is None:
            raise ValueError("best needs monitor= and mode=: name the metric, and say whether 'min' or 'max' is better")
        return rank_by_metric([entry.stored() for entry in self._committed()], self.policy.monitor, self.policy.mode)

    # Writing

    def save(self, step: int, state: Any, *, metrics: Mapping[str, Any] | None = None, frozen: str | Sequence[str] = ()) -> CheckpointInfo:
        """Save a state under a step: atomic and durable when this returns. Tensors that are unchanged are stored once.

        `frozen` is one glob or several over tensors, such as "model.backbone.*", that you know to be unchanged since the last save:
        they are not hashed, only looked at.

        Raises:
            CheckpointExistsError: there is a checkpoint of this step.
            RunLockedError, NotEnoughSpaceError, UnsupportedTypeError: nothing was changed.
            StoreUnavailableError: the run's store does not have it. It is in the local directory, and the next save brings it there.
        """
        self._check_open()
        self._wait_for_saves()
        options = self._save_options(step, metrics, frozen)
        encoded = encode_state(state)
        self._begin_writing(step)
        return self._writer.commit(step, encoded, options)

    def async_save(
        self, step: int, state: Any, *, metrics: Mapping[str, Any] | None = None, frozen: str | Sequence[str] = ()
    ) -> SaveHandle:
        """Save in the background; returns as soon as the state is copied. Saves commit in order.

        An error is raised by the handle, and by the next save, `wait_until_finished` or `close`.
        """
        self._check_open()
        QUEUE.raise_pending()
        options = self._save_options(step, metrics, frozen)
        copied = snapshot(encode_state(state))
        self._begin_writing(step)
        handle = QUEUE.put(self._steps.path_of(step), lambda: self._writer.commit(step, copied, options))
        self._handles = [other for other in self._handles if not (other.done() and other.error is None)] + [handle]
        return handle

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Record metrics of a step without saving a checkpoint. Durable with the next save, and at the latest when the run is closed."""
        self._check_open()
        values = metric_values(metrics)
        self._begin_writing(check_step(step))
        self._writer.log(step, values)

    def cleanup(self, *, dry_run: bool = False, **overrides: Any) -> CleanupReport:
        """Remove checkpoints that no rule keeps; `overrides` are keep_last, keep_best, keep_every, keep_within, monitor and mode.

        The newest sound checkpoint always stays. The report has a reason for each one that stays.
        """
        self._check_open()
        if "keep_within" in overrides:
            overrides["keep_within"] = parse_duration(overrides["keep_within"])
        policy = replace(self.policy, **overrides)
        if not self._steps.exists():
            return CleanupReport((), 0, dry_run)
        if not dry_run:
            self._wait_for_saves()
            self._begin_writing(None)
        return self._writer.clean_up(policy, dry_run=dry_run)

    def cached(self, name: str, compute: Callable[[], Any], *, inputs: Any) -> Any:
        """Return what `compute()` gave for these inputs before, or compute and keep it.

        `inputs` are plain data, arrays and tensors, which count by value, and `pathlib` paths, which count by the content of what lies
        there; a path given as str is only text.
        Processes that need the same at once compute it once. The result is anything that a state may hold.
        """
        with naming_a_read_only_run(self._directory):
            return cached(self._disk, self._directory, name, compute, inputs)

    def study(self, name: str, *, direction: Any = None, sampler: Any = None, pruner: Any = None, **optuna_options: Any) -> Any:
        """Return the `optuna.Study` of this name, with its sampler as it was after the last finished trial.

        A trial is on the disk when `optimize` moves on. `directions` and what else `optuna.create_study` knows may be given, and
        `start_from`, the study of another run with whose trials a new one begins. See `ckptfmt.optimize` for a total over restarts.
        """
        # The one import upwards: the method is promised here, and what Optuna's objects are made of is known above.
        from ckptfmt.adapters.optuna_study import open_study

        self._check_open()
        self._begin_writing(None)
        options = {"direction": direction, "sampler": sampler, "pruner": pruner, "durable": self._options.durable, **optuna_options}
        return open_study(self._disk, self._directory, name, check_open=self._check_open, opened=self._studies, **options)

    def progress(self, name: str, *, total: int | None = None, flush_every: int = 1, **options: Any) -> Progress:
        """Open the record of work in small units: which are done, with their results. See `Progress` for the options.

        Several processes may work on one progress, each with a `Run` of its own. Opened again here, the newer one goes on with the work.
        """
        self._check_open()
        options |= {"total": total, "flush_every": flush_every, "durable": self._options.durable}
        return open_progress(self._disk, self._directory, name, lambda: self._begin_writing(None), self._progress, options)

    def export(self, directory: PathLike, *, steps: Sequence[int | str] = ("best",), overwrite: bool = False) -> list[str]:
        """Write history and checkpoints in common formats: JSON, CSV, npy, safetensors; return the paths.

        `steps` are numbers, "best" and "latest". Files that are there with the same content are left, so an interrupted export is
        finished by calling it again.

        Raises:
            CheckpointExistsError: a file is there with other content, and overwrite is False.
        """
        entries = {entry.step: entry for step in steps for entry in islice(self._candidates(step), 1)}
        return export_run(self._disk, os.fspath(directory), self.history(), entries.values(), overwrite=overwrite)

    def mirror_status(self) -> MirrorStatus | None:
        """Return where the mirror stands; None without one."""
        return None if self._mirror is None else self._mirror.status()

    def compression_status(self) -> CompressionStatus | None:
        """Return where compressing old checkpoints stands; None without `compress_older_than`."""
        return None if self._compressor is None else self._compressor.status()

    def wait_until_finished(self) -> None:
        """Wait for saves and copies under way, and raise what went wrong with a save; what a mirror lacks is in its status."""
        self._wait_for_saves("nothing is under way any more")
        if self._mirror is not None:
            self._mirror.wait()

    def close(self) -> None:
        """Finish what is under way and give the lock up. Closing twice is harmless. Raises as `wait_until_finished`."""
        if self._is_closed:
            return
        self._is_closed = True
        at_exit.forget(self)
        try:
            self._wait_for_saves("the run is closed")
        finally:
            self._finish()

    def _finish(self) -> None:
        try:
            close_progress(self._progress)
        finally:
            try:
                for storage in self._studies.values():
                    storage.log.close()
            finally:
                self._writer.close()

    def finish_at_exit(self) -> None:
        """Close at the end of the interpreter; what went wrong with a save is printed by its queue."""
        self._is_closed = True
        for handle in self._handles:
            handle.wait()
        self._finish()

    def _wait_for_saves(self, consequence: str = "this call did nothing, call it again") -> None:
        handles, self._handles = self._handles, []
        # All of them first: after an error the others would go on behind the caller's back.
        for handle in handles:
            handle.wait()
        QUEUE.raise_pending(consequence)

    def _check_open(self) -> None:
        if self._is_closed:
            raise ValueError(f"{self.path}: this run is closed; open it again")
        if self._home is not None:
            self._home.check()

    def _begin_writing(self, step: int | None) -> None:
        self._writer.begin(step)
        at_exit.remember(self)

    def _save_options(self, step: int, metrics: Mapping[str, Any] | None, frozen: str | Sequence[str]) -> SaveOptions:
        options = replace(self._options, step=check_step(step), frozen=check_options(frozen=frozen).frozen)
        return replace(options, metrics=metric_values(metrics or {}), fingerprint=self._identity.document)
