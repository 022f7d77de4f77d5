"""The keys of a loop over pending units, one after the other, safe to share between threads."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

_WAIT_SECONDS = 0.05

IsOpen = Callable[[Any], bool]
Claim = Callable[[list[Any], list[Any], list[Any]], list[Any]]


class Pending:
    """An iterator of keys, or of lists of keys. Each of them is claimed when it is handed out."""

    def __init__(
        self,
        is_open_for: IsOpen,
        claim: Claim,
        left: deque[tuple[Any, list[Any]]],
        keys: Iterable[Any],
        *,
        batch_size: int | None,
        wait: bool,
    ) -> None:
        self._is_open_for = is_open_for
        self._claim = claim
        # Of this loop alone: whoever makes the keys may take its time, or be finishing units meanwhile.
        self._lock = threading.RLock()
        self._left = left
        self._keys = iter(keys)
        self._batch_size = batch_size
        self._wait = wait
        # Keys that failed and may be attempted again, filled by whoever says that they failed; and keys of other processes.
        self._come_back: list[Any] = []
        self._busy: list[Any] = []
        self._last: list[Any] = []
        self._is_waiting = False

    def __iter__(self) -> Pending:
        return self

    def __next__(self) -> Any:
        with self._lock:
            chosen: list[Any] = []
            count = self._batch_size or 1
            while len(chosen) < count:
                candidates = list(islice(filter(self._is_open_for, self._keys), count - len(chosen)))
                if candidates:
                    chosen += self._claim(candidates, self._come_back, self._busy)
                elif chosen or not self._go_round():
                    break
            self._last = chosen
            if not chosen:
                raise StopIteration
            return chosen if self._batch_size is not None else chosen[0]

    def _go_round(self) -> bool:
        """Begin anew with what is left over; False if that is nothing, or waits for others and we do not."""
        if self._come_back:
            again = self._come_back[:]
            del self._come_back[: len(again)]
            self._keys = iter(again)
            return True
        if not self._busy or (self._is_waiting and not self._wait):
            return False
        if self._is_waiting:
            time.sleep(_WAIT_SECONDS)
        self._is_waiting = True
        again = self._busy[:]
        del self._busy[: len(again)]
        self._keys = iter(again)
        return True

    def __del__(self) -> None:
        # The loop was left by an error or a break. No lock may be taken here: the collector calls this anywhere.
        for key in getattr(self, "_last", ()):
            self._left.append((key, self._come_back))
