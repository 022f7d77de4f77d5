"""The processes of one training talk to each other: one leads, the others follow, and what one raises all of them raise.

Everything goes through a process group of its own on the CPU with a timeout, so that nothing mixes with the collectives of the training
and nobody waits for ever for a process that has died.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

from ckptfmt.errors import CheckpointError
from ckptfmt.state.pause import collector_paused

T = TypeVar("T")

Tell = Callable[[Any], None]
_DO, _DONE, _FAILED = "do", "done", "failed"


class ProcessLink:
    """The processes of a group. Where torch.distributed is not in use, this process is the only one.

    Every method is to be called by all of them.
    """

    def __init__(self, process_group: Any, *, timeout_seconds: float, where: str) -> None:
        import torch.distributed as dist

        self._where = where
        self.is_alone = not (dist.is_available() and dist.is_initialized())
        self.group: Any = None
        self.rank = 0
        self._is_lost = False
        if not self.is_alone:
            ranks = None if process_group is None else dist.get_process_group_ranks(process_group)
            self.group = dist.new_group(
                ranks, timeout=timedelta(seconds=timeout_seconds), backend="gloo", use_local_synchronization=ranks is not None
            )
            self.rank = dist.get_rank(self.group)
            self._first = dist.get_global_rank(self.group, 0)

    @property
    def is_first(self) -> bool:
        """Whether this process leads."""
        return self.rank == 0

    def lead(self, first: Callable[[Tell], T], follow: Callable[[Any], object]) -> T:
        """Run `first(tell)` in the leading process and `follow(told)` in the others whenever it tells something; all return its result.

        What it raises all of them raise.
        """
        if self.is_alone:
            return first(lambda told: None)
        if not self.is_first:
            told: T = self._follow(follow)
            return told
        try:
            result = first(lambda told: self._broadcast((_DO, told)))
        except BaseException as error:
            # Where a process is lost, the others learn it from the closed connections.
            if not self._is_lost:
                self._broadcast((_FAILED, sendable(error)))
            raise
        self._broadcast((_DONE, result))
        return result

    def _follow(self, follow: Callable[[Any], object]) -> Any:
        failure: BaseException | None = None
        while True:
            kind, told = self._broadcast(None)
            if kind == _DO:
                failure = None
                try:
                    follow(told)
                except Exception as error:
                    if self._is_lost:
                        raise
                    # The leader says what becomes of it.
                    failure = error
            elif kind == _FAILED:
                raise told
            elif failure is not None:
                raise failure
            else:
                return told

    def agree(self, work: Callable[[], T]) -> T:
        """Do some work in every process; if it fails anywhere, all raise the error of the first that failed."""
        if self.is_alone:
            return work()
        import torch.distributed as dist

        failure, result = None, None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - raised below, by all
            failure = sendable(error)
        failures: list[Any] = [None] * dist.get_world_size(self.group)
        self._call(lambda: dist.all_gather_object(failures, failure, group=self.group))
        for process, found in enumerate(failures):
            if found is not None:
                raise noted(found, process, len(failures))
        return result  # type: ignore[return-value]

    def _broadcast(self, message: Any) -> Any:
        import torch.distributed as dist

        holder = [message]
        self._call(lambda: dist.broadcast_object_list(holder, src=self._first, group=self.group))
        return holder[0]

    def call_dcp(self, call: Callable[[], object]) -> None:
        """Call torch.distributed.checkpoint: what one process raised there is raised as it is, by all."""
        from torch.distributed.checkpoint.api import CheckpointException

        try:
            # DCP makes many small objects for each tensor, which the cyclic collector would search again and again.
            with warnings.catch_warnings(), collector_paused():
                if self.is_alone:
                    # It is meant for those who have forgotten the others.
                    warnings.filterwarnings("ignore", message="torch.distributed is", category=UserWarning)
                self._call(call)
        except CheckpointException as error:
            process, (cause, _) = min(error.failures.items())
            raise noted(cause, process, 1 if self.is_alone else self.group.size()) from None

    def _call(self, call: Callable[[], object]) -> None:
        """Call something that lets the processes wait for each other, and say what it means when they cannot reach each other."""
        if self._is_lost:
            raise CheckpointError(f"{self._where}: a process did not answer before\nStart all processes again.")
        try:
            call()
            return
        except RuntimeError as error:
            if self.is_alone:
                raise
            reason = str(error).partition("\n")[0][:300]
            # The frames hold the group, whose connections must be closed so that nobody waits for this process.
            traceback.clear_frames(error.__traceback__)
        self._leave()
        raise CheckpointError(
            f"{self._where}: a process does not answer: {reason}\n"
            "It has died or hangs, so this training cannot go on. Start all processes again; every step that was acknowledged is there."
        )

    def _leave(self) -> None:
        import torch.distributed as dist

        self._is_lost = True
        group, self.group = self.group, None
        with suppress(RuntimeError, ValueError):
            dist.destroy_process_group(group)


def sendable(error: BaseException) -> BaseException:
    """Return an error that every process can take: those of this library and of the system as they are, others as text."""
    if isinstance(error, (CheckpointError, OSError, KeyboardInterrupt)):
        error.__traceback__ = error.__cause__ = error.__context__ = None
        return error
    return CheckpointError(f"{type(error).__name__}: {error}")


def noted(error: BaseException, process: int, count: int) -> BaseException:
    """Return the error with a note that says which process raised it."""
    if count > 1:
        error.add_note(f"raised by process {process} of {count}")
    return error
