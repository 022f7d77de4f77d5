"""The failures that a memory disk is told to have.

Operations are counted by kind, from 1, and the n-th of a kind can be made to fail, once or from then on. A test
that fails the first, second, ... operation until the whole job runs through has tried every failure there is.
Kind "any" counts all operations together. Nothing here touches a tree.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

OperationKind = Literal[
    "any",
    "open_directory",
    "make_directory",
    "remove_directory",
    "names",
    "create",
    "write",
    "sync",
    "close",
    "open",
    "read",
    "map_private",
    "rename",
    "link",
    "unlink",
    "sync_directory",
    "free_bytes",
    "lock",
]


@dataclass(frozen=True)
class _Fault:
    kind: OperationKind
    first_call: int
    last_call: int | None
    errno: int
    happens: Literal["before", "after"]

    def strikes(self, calls: Counter[str]) -> bool:
        count = calls[self.kind]
        return count >= self.first_call and (self.last_call is None or count <= self.last_call)


class FaultPlan:
    """What goes wrong, and when. Attribute: `calls`, how many operations of each kind there were so far."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._faults: list[_Fault] = []
        self._short_writes: dict[int, int] = {}

    def fail(self, kind: OperationKind, errno: int, *, nth: int = 1, times: int | None = 1) -> None:
        """Let the `nth` operation of a kind from now on fail without effect; `times` None: and all that follow."""
        self._plan(kind, errno, nth, times, "before")

    def fail_after(self, kind: OperationKind, errno: int, *, nth: int = 1, times: int | None = 1) -> None:
        """Let it take effect and report failure all the same, as a repeated network request does."""
        self._plan(kind, errno, nth, times, "after")

    def shorten_write(self, size_bytes: int, *, nth: int = 1) -> None:
        """Let the `nth` write from now on take at most `size_bytes`; the writer has to continue with another."""
        self._short_writes[self.calls["write"] + nth] = size_bytes

    def clear(self) -> None:
        """Forget all planned failures; the counts go on."""
        self._faults.clear()
        self._short_writes.clear()

    def allowed_bytes(self, size_bytes: int) -> int:
        """How much of `size_bytes` the write that is under way takes."""
        return min(size_bytes, self._short_writes.get(self.calls["write"], size_bytes))

    @contextmanager
    def operation(self, kind: OperationKind, path: str, target_path: str | None = None) -> Iterator[None]:
        """Count one operation, and let it fail if that is planned."""
        self.calls[kind] += 1
        self.calls["any"] += 1
        striking = [fault for fault in self._faults if fault.kind in (kind, "any") and fault.strikes(self.calls)]
        for fault in striking:
            if fault.happens == "before":
                raise _planned_error(fault, path, target_path)
        yield
        for fault in striking:
            raise _planned_error(fault, path, target_path)

    def _plan(self, kind: OperationKind, errno: int, nth: int, times: int | None, happens: Literal["before", "after"]) -> None:
        first_call = self.calls[kind] + nth
        last_call = None if times is None else first_call + times - 1
        self._faults.append(_Fault(kind, first_call, last_call, errno, happens))


def _planned_error(fault: _Fault, path: str, target_path: str | None) -> OSError:
    return OSError(fault.errno, os.strerror(fault.errno), path, None, target_path)
