"""`DistributedRun`: a run whose training is spread over several processes.

The first process holds the `Run`: lock, history, retention, which step is restored. The others follow it; all of them write and read
their own shards. Every method is to be called by all processes, with the same arguments but for what is sharded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from ckptfmt.adapters.torch_distributed_link import ProcessLink, Tell
from ckptfmt.adapters.torch_distributed_objects import is_sharded, put_state, state_of
from ckptfmt.adapters.torch_distributed_planner import ExactSavePlanner
from ckptfmt.adapters.torch_distributed_reader import StorageReader
from ckptfmt.adapters.torch_distributed_writer import StorageWriter
from ckptfmt.checkpoint.info import CheckpointInfo
from ckptfmt.checkpoint.publishing import SaveOptions
from ckptfmt.checkpoint.reader import OpenCheckpoint
from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.urls import is_url, location
from ckptfmt.run.cleaning import CleanupReport
from ckptfmt.run.restoring import Restored, RestoreReport, check_sections
from ckptfmt.run.run import Run
from ckptfmt.run.steps import StepEntry

PathLike = str | os.PathLike[str]

T = TypeVar("T")

_DISK = LocalDisk()


class _FirstRun(Run):
    """The run of the first process, whose checkpoints are written and read by all."""

    def save_by(
        self, step: int, write: Callable[[str, SaveOptions], CheckpointInfo], *, metrics: Mapping[str, Any] | None
    ) -> CheckpointInfo:
        self._check_open()
        options = self._save_options(step, metrics, ())
        self._begin_writing(step)
        return self._writer.commit_by(step, write, options)

    def restore_by(self, step: int | str, restore: Callable[[StepEntry, Mapping[int, str]], Restored]) -> Restored | None:
        return self._restore_by(step, restore)


class DistributedRun:
    """One experiment's directory, for a training by several processes.

    Args:
        directory: where the run lives; all processes must see the same.
        process_group: whose processes take part; all of them by default.
        timeout_seconds: how long the processes wait for each other before they raise, in a save longer than the slowest needs to write.
        options: those of `ckptfmt.Run`.

    Raises (in all processes, whichever it happened in): what `Run` raises, and `CheckpointError` if one of them does not answer.
    """

    def __init__(self, directory: PathLike, *, process_group: Any = None, timeout_seconds: float = 1800.0, **options: Any) -> None:
        self.path = location(directory)
        if is_url(self.path):
            raise ValueError(f"{self.path}: several processes need a directory that all of them see\nAnd mirror={self.path!r}.")
        self._link = ProcessLink(process_group, timeout_seconds=timeout_seconds, where=self.path)
        self._run: _FirstRun | None = None
        self._on_first(lambda: self._open(options))

    def _open(self, options: Mapping[str, Any]) -> None:
        self._run = _FirstRun(self.path, **options)

    def __enter__(self) -> DistributedRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()
        elif self._run is not None:
            # The others may be anywhere, so nothing is waited for.
            self._run.close()

    def all_steps(self) -> list[int]:
        """Return the steps that have a committed checkpoint, in ascending order."""
        return self._of_run(lambda run: run.all_steps())

    def latest_step(self) -> int | None:
        """Return the newest step whose checkpoint is committed and complete, None where there is none."""
        return self._of_run(lambda run: run.latest_step())

    def best_step(self) -> int | None:
        """Return the step with the best value of `monitor`."""
        return self._of_run(lambda run: run.best_step())

    def history(self) -> list[dict[str, Any]]:
        """Return metrics by step."""
        return self._of_run(lambda run: run.history())

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Record metrics of a step without saving a checkpoint; those of the first process count."""
        self._of_run(lambda run: run.log(step, metrics))

    def cleanup(self, *, dry_run: bool = False, **overrides: Any) -> CleanupReport:
        """Remove checkpoints that no rule keeps."""
        return self._of_run(lambda run: run.cleanup(dry_run=dry_run, **overrides))

    def close(self) -> None:
        """Finish what is under way and give the lock up."""
        self._of_run(lambda run: run.close())

    def save(self, step: int, state: Mapping[str, Any], *, metrics: Mapping[str, Any] | None = None) -> CheckpointInfo:
        """Save a state under a step, each process its own shards: atomic and durable when this returns. What is unchanged is stored once.

        At the top of `state` may be modules and optimizers, sharded or not, other objects with `state_dict()`, and plain values; a state
        with sharded tensors, as torch's `get_state_dict` gives, is taken as it is.

        Raises:
            CheckpointExistsError, RunLockedError, NotEnoughSpaceError, UnsupportedTypeError: nothing was changed.
            CheckpointError: a process does not answer.
        """
        plain = self._link.agree(lambda: state_of(state))

        def first(tell: Tell) -> CheckpointInfo:
            def write(path: str, options: SaveOptions) -> CheckpointInfo:
                tell((path, options))
                info: CheckpointInfo = self._write(path, options, plain)
                return info

            return self._first_run().save_by(step, write, metrics=metrics)

        def follow(told: tuple[str, SaveOptions]) -> None:
            self._write(*told, plain)

        return self._link.lead(first, follow)

    def _write(self, path: str, options: SaveOptions, state: dict[str, Any]) -> Any:
        from torch.distributed.checkpoint.state_dict_saver import save

        writer: Any = StorageWriter.with_options(path, options)
        planner: Any = ExactSavePlanner()
        link = self._link
        try:
            link.call_dcp(
                lambda: save(state, storage_writer=writer, planner=planner, process_group=link.group, no_dist=link.is_alone),
            )
        finally:
            if self._link.is_first:
                writer.give_up()
        return writer.info

    def restore(
        self, objects: Mapping[str, Any] | None = None, *, step: int | str = "latest", allow_missing: Sequence[str] = ()
    ) -> Restored | None:
        """Restore a checkpoint into live objects; None where there is nothing to restore. It may be of any number of processes.

        Modules and optimizers get what belongs to their shards. Other objects with `load_state_dict()` get their whole section, and so
        do the sections in `Restored.state`, of which those are left out that hold tensors stored in parts. Without `objects` every
        process gets the whole state. Of "latest" and "best" a damaged checkpoint is passed over for the next one.
        """

        def first(tell: Tell) -> Restored | None:
            def restore(entry: StepEntry, damaged: Mapping[int, str]) -> Restored:
                if entry.error is not None:
                    raise entry.error
                tell((entry.path, entry.step, dict(damaged)))
                return self._read(entry.path, entry.step, damaged, objects, allow_missing)

            found.append(self._first_run().restore_by(step, restore))
            return None

        def follow(told: tuple[str, int, dict[int, str]]) -> None:
            found[:] = [self._read(*told, objects, allow_missing)]

        found: list[Restored | None] = []
        self._link.lead(first, follow)
        return found[-1] if found else None

    def _read(
        self, path: str, step: int, damaged: Mapping[int, str], objects: Mapping[str, Any] | None, allow_missing: Sequence[str]
    ) -> Restored:
        from torch.distributed.checkpoint.state_dict_loader import load

        wanted = objects or {}
        reader: Any = StorageReader(path)
        plain, metrics, present, skipped = self._link.agree(lambda: _read_plain(path, objects, allow_missing, reader))
        sharded = [name for name, value in wanted.items() if name in present and is_sharded(value)]
        link = self._link
        try:
            states = self._link.agree(lambda: state_of(wanted, sharded))
            if states:
                link.call_dcp(lambda: load(states, storage_reader=reader, process_group=link.group, no_dist=link.is_alone))
        finally:
            reader.close()
        self._link.agree(lambda: _put_back(wanted, states, plain))
        restored = tuple(name for name in wanted if name in present)
        missing = tuple(name for name in wanted if name not in present)
        report = RestoreReport(path, restored, skipped, missing, dict(damaged))
        rest = plain if objects is None else {name: plain[name] for name in skipped if name in plain}
        return Restored(step, rest, metrics, report)

    def _first_run(self) -> _FirstRun:
        if self._run is None:
            raise ValueError(f"{self.path}: this run is not open")
        return self._run

    def _on_first(self, work: Callable[[], T]) -> T:
        return self._link.lead(lambda tell: work(), lambda told: None)

    def _of_run(self, work: Callable[[_FirstRun], T]) -> T:
        return self._on_first(lambda: work(self._first_run()))


def _read_plain(
    path: str, objects: Mapping[str, Any] | None, allow_missing: Sequence[str], reader: StorageReader
) -> tuple[Any, Mapping[str, int | float], list[str], tuple[str, ...]]:
    """Read what every process gets whole; return it with the metrics, the sections, and those that no object asked for."""
    with OpenCheckpoint(_DISK, path) as checkpoint:
        if objects is None:
            return checkpoint.load(), checkpoint.info.metrics, checkpoint.sections(), tuple(checkpoint.sections())
        present = checkpoint.sections()
        check_sections(path, objects, present, allow_missing)
        skipped = tuple(name for name in present if name not in objects)
        whole = [name for name in skipped if not checkpoint.has_parts(name)]
        whole += [name for name in objects if name in present and not is_sharded(objects[name])]
        plain = checkpoint.load_sections(whole)
        reader.open()
        return plain, checkpoint.info.metrics, present, skipped


def _put_back(objects: Mapping[str, Any], states: Mapping[str, Any], plain: Mapping[str, Any]) -> None:
    put_state(objects, states)
    for name, value in objects.items():
        if name in plain:
            value.load_state_dict(plain[name])
