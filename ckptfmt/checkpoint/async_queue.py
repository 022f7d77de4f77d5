"""The queue of asynchronous saves: one thread, one order, and no error that nobody sees.

The thread starts with the first save and is waited for when the interpreter exits.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable

from ckptfmt.checkpoint.info import CheckpointInfo


class SaveHandle:
    """An asynchronous save under way."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._finished = threading.Event()
        self._info: CheckpointInfo | None = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        """Tell whether the save has been committed or has failed."""
        return self._finished.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is done, at most `timeout` seconds; tell whether it is. Raises nothing."""
        return self._finished.wait(timeout)

    def result(self, timeout: float | None = None) -> CheckpointInfo:
        """Wait for the commit and return what was committed, or raise what went wrong.

        Raises:
            TimeoutError: it is not done after `timeout` seconds.
        """
        if not self._finished.wait(timeout):
            raise TimeoutError(f"{self.path}: the save is not done after {timeout} seconds; it goes on")
        QUEUE.forget(self)
        if self._info is None:
            raise self._error or RuntimeError("the save ended without an outcome")
        return self._info

    def finish(self, info: CheckpointInfo | None, error: BaseException | None) -> None:
        """Record the outcome and wake up who waits; called by the queue."""
        self._info, self._error = info, error
        self._finished.set()

    @property
    def error(self) -> BaseException | None:
        """What went wrong, once it is done."""
        return self._error


class SaveQueue:
    """Runs saves one after another on one thread.

    A process that was forked has no such thread: it begins with an empty queue, and leaves what was under way to its parent.
    """

    def __init__(self) -> None:
        self._is_registered = False
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._tasks: queue.SimpleQueue[tuple[SaveHandle, Callable[[], CheckpointInfo]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._failed: list[SaveHandle] = []

    def put(self, path: str, task: Callable[[], CheckpointInfo]) -> SaveHandle:
        """Queue a save behind those under way."""
        if self._pid != os.getpid():
            self._begin()
        handle = SaveHandle(path)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ckptfmt-async-save", daemon=True)
                self._thread.start()
            if not self._is_registered:
                # Unlike atexit, this runs while threads can still be started, which a large save does.
                threading._register_atexit(self._finish_at_exit)  # type: ignore[attr-defined]
                self._is_registered = True
            self._tasks.put((handle, task))
        return handle

    def raise_pending(self, consequence: str = "this call did nothing, call it again") -> None:
        """Raise the error of an earlier save that nobody has fetched."""
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            handle = self._failed.pop(0) if self._failed else None
        if handle is not None and handle.error is not None:
            handle.error.add_note(f"from the asynchronous save of {handle.path}; {consequence}")
            raise handle.error

    def forget(self, handle: SaveHandle) -> None:
        """Take note that somebody has fetched this outcome."""
        with self._lock:
            if handle in self._failed:
                self._failed.remove(handle)

    def _run(self) -> None:
        while (item := self._tasks.get()) is not None:
            self._run_one(*item)
            del item

    def _run_one(self, handle: SaveHandle, task: Callable[[], CheckpointInfo]) -> None:
        try:
            info = task()
        except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
            with self._lock:
                self._failed.append(handle)
            handle.finish(None, error)
        else:
            handle.finish(info, None)

    def _finish_at_exit(self) -> None:
        if self._pid != os.getpid() or self._thread is None:
            return
        self._tasks.put(None)
        self._thread.join()
        for handle in self._failed:
            sys.stderr.write(f"ckptfmt: the asynchronous save of {handle.path} failed:\n")
            traceback.print_exception(handle.error)


QUEUE = SaveQueue()
