"""The payloads of a journal in memory: many small byte strings, packed together so that they take little more than their bytes."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import Any

from ckptfmt.format.journal_record import decode_values

_BATCH_BYTES = 2**20
_BATCH_COUNT = 4096


class PayloadStore:
    """A list of payloads that grows at its end, and may be cut back there."""

    def __init__(self) -> None:
        self._batches: list[tuple[bytes, array[int]]] = []
        self._open: list[bytes] = []
        self._open_bytes = 0
        self.count = 0

    def add(self, payloads: list[bytes]) -> None:
        """Append payloads."""
        self.count += len(payloads)
        for begin in range(0, len(payloads), _BATCH_COUNT):
            part = payloads[begin : begin + _BATCH_COUNT]
            self._open += part
            self._open_bytes += sum(map(len, part))
            if len(self._open) >= _BATCH_COUNT or self._open_bytes >= _BATCH_BYTES:
                self._batches.append((b"".join(self._open), array("I", map(len, self._open))))
                self._open, self._open_bytes = [], 0

    def remove_last(self, count: int) -> list[bytes]:
        """Remove the last payloads, and return them in order."""
        while len(self._open) < count:
            data, sizes = self._batches.pop()
            self._open = [*_split(data, sizes), *self._open]
        removed = self._open[len(self._open) - count :]
        del self._open[len(self._open) - count :]
        self._open_bytes = sum(map(len, self._open))
        self.count -= count
        return removed

    def last(self, count: int) -> list[bytes]:
        """Return the last payloads, in order."""
        removed = self.remove_last(count)
        self.add(removed)
        return removed

    def clear(self) -> None:
        """Forget all of them."""
        self._batches.clear()
        self._open.clear()
        self._open_bytes = self.count = 0

    def __iter__(self) -> Iterator[bytes]:
        for data, sizes in self._all_batches():
            yield from _split(data, sizes)

    def decode(self, *, first_number: int, where: str) -> Iterator[tuple[int, Any]]:
        """Yield number and value of each, the first under `first_number`.

        Raises:
            CorruptError: a payload is not in packed form (E024).
        """
        for data, sizes in self._all_batches():
            yield from enumerate(decode_values(data, sizes, first_number=first_number, where=where), first_number)
            first_number += len(sizes)

    def _all_batches(self) -> Iterator[tuple[bytes, array[int]]]:
        yield from self._batches
        yield b"".join(self._open), array("I", map(len, self._open))


def _split(data: bytes, sizes: array[int]) -> list[bytes]:
    return [data[begin:end] for begin, end in pairwise(accumulate(sizes, initial=0))]
