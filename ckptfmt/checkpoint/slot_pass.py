"""One pass over slots of an open checkpoint: read, hashed and compared, with all cores. Spec 12.

What the page cache holds is hashed where it is mapped. Large ranges that have to come from the device are read past the cache,
several pieces at a time, and hashed behind the read: into memory that belongs to the caller if the slots are wanted,
into one block for each thread if they are only compared. A thread that waits for the device needs no core; no more
threads hash at a time than there are cores.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from threading import Lock, Semaphore, local

from ckptfmt.checkpoint.shard_file import ShardFile
from ckptfmt.disk.aligned import aligned_buffer, aligned_range
from ckptfmt.disk.background import usable_cores
from ckptfmt.errors import FormatError
from ckptfmt.format.digest import Hasher, digest_of, hasher_for

BATCH_BYTES = 16 * 2**20
WANTED_BYTES = 64 * 2**20
PIECE_BYTES = 16 * 2**20
READING_THREADS = 4
READ_AHEAD = 6

Slot = tuple[int, int]
Progress = Callable[[int], None]
OnDamage = Callable[[FormatError], None]
Step = Callable[[], None]


class SlotPass:
    """What a pass finds: slots that are sound where they lie in the file, and the memory of those that were read.

    What is in `memory` was compared if `verify` is set. The callbacks are called by several threads, one at a time.
    """

    def __init__(
        self, shards: Mapping[int, ShardFile], *, verify: bool, on_bytes: Progress | None = None, on_damage: OnDamage | None = None
    ) -> None:
        self.sound: set[Slot] = set()
        self.memory: dict[Slot, memoryview] = {}
        self._shards = shards
        self._verify = verify
        self._on_bytes = on_bytes
        self._on_damage = on_damage
        self._lock = Lock()
        self._cores = usable_cores()
        self.hashing = Semaphore(self._cores)
        self._own = local()
        self._damage: tuple[Slot, FormatError] | None = None

    def run(self, slots: Sequence[Slot], *, wanted: Collection[Slot] | None = None) -> None:
        """Go over some slots, in file order; those that are `wanted` may be read into memory, or all only be compared (None).

        Raises for the first damaged one in file order; with `on_damage` tells of each and goes on.
        """
        steps: list[tuple[Slot, Step]] = []
        mapped: list[Slot] = []
        for first, last in self._runs(slots, wanted):
            shard = self._shards[first[0]]
            begin, end = shard.range_of(first[1], last)
            is_kept = wanted is not None and first in wanted
            if not shard.is_only_read and ((wanted is not None and not is_kept) or not shard.is_cold(begin, end - begin)):
                mapped += ((first[0], number) for number in range(first[1], last + 1))
            elif not is_kept:
                steps.append((first, self._comparing(first, last)))
            else:
                steps += self._keeping(first, last)
        threads = max(self._cores, READING_THREADS) if steps else self._cores
        if self._verify:
            steps += self._hashing_mapped(mapped)
        self._do_all(steps, threads)
        if self._damage is not None:
            raise self._damage[1]

    def _do_all(self, steps: Sequence[tuple[Slot, Step]], threads: int) -> None:
        def do(step: tuple[Slot, Step]) -> None:
            # Only what lies before the first damage that is known can change which one is the first.
            if self._damage is None or step[0] < self._damage[0]:
                step[1]()

        if len(steps) < 2 or threads < 2:
            for step in steps:
                do(step)
            return
        with ThreadPoolExecutor(min(threads, len(steps)), thread_name_prefix="ckptfmt-read") as pool:
            for _ in pool.map(do, steps):
                pass

    def _runs(self, slots: Sequence[Slot], wanted: Collection[Slot] | None) -> Iterator[tuple[Slot, int]]:
        """Yield (first slot, number of the last one) of neighbours that may be read together, cut where they become large."""
        limit_bytes = BATCH_BYTES if wanted is None else WANTED_BYTES
        begin, last, size_bytes = 0, (-1, -1), 0
        for position, slot in enumerate(slots):
            is_next = last == (slot[0], slot[1] - 1) and (wanted is None or (slot in wanted) == (last in wanted))
            if position and (not is_next or size_bytes >= limit_bytes):
                yield slots[begin], last[1]
                begin, size_bytes = position, 0
            last = slot
            size_bytes += self._shards[slot[0]].table.sizes[slot[1]]
        if slots:
            yield slots[begin], last[1]

    def _keeping(self, first: Slot, last: int) -> Iterator[tuple[Slot, Step]]:
        """Yield steps that read the pieces of a run into new memory."""
        shard = self._shards[first[0]]
        begin, end = aligned_range(*shard.range_of(first[1], last))
        memory = aligned_buffer(end - begin)
        for number in range(first[1], last + 1):
            slot_begin, slot_end = shard.range_of(number, number)
            self.memory[first[0], number] = memory[slot_begin - begin : slot_end - begin]
        behind = _BehindReads(self, shard, first, last)

        def reading(offset: int) -> Step:
            return lambda: self._read(shard, offset, memory[offset - begin : offset - begin + PIECE_BYTES], behind)

        yield from ((first, reading(offset)) for offset in range(begin, end, PIECE_BYTES))

    def _comparing(self, first: Slot, last: int) -> Step:
        """Return a step that reads a run piece by piece into the thread's own block."""
        shard = self._shards[first[0]]
        begin, end = aligned_range(*shard.range_of(first[1], last))

        def compare() -> None:
            block = self._own.__dict__.setdefault("block", None) or aligned_buffer(PIECE_BYTES)
            self._own.block = block
            behind = _BehindReads(self, shard, first, last)
            for offset in range(begin, end, PIECE_BYTES):
                self._read(shard, offset, block[: end - offset], behind)

        return compare

    def _read(self, shard: ShardFile, offset: int, memory: memoryview, behind: _BehindReads) -> None:
        shard.read_into(offset, memory)
        if self._verify:
            behind.take(offset, memory)

    def _hashing_mapped(self, slots: Sequence[Slot]) -> Iterator[tuple[Slot, Step]]:
        batches = list(self._batches(slots))
        # Mapped here, because two threads that map at the same time would map twice.
        for number in {number for number, _ in slots}:
            self._shards[number].mapped()
        ahead = deque(batches)
        if len(batches) > 1:
            for _ in range(min(READ_AHEAD, len(batches))):
                self._prefetch(ahead.popleft())

        def hashing(batch: Sequence[Slot]) -> Step:
            def step() -> None:
                with suppress(IndexError):
                    self._prefetch(ahead.popleft())
                for slot in batch:
                    with self.hashing:
                        digest = digest_of(self._shards[slot[0]].stored(slot[1]))
                    self.compare(slot, digest)
                self.report(sum(self._shards[number].table.sizes[slot] for number, slot in batch))

            return step

        yield from ((batch[0], hashing(batch)) for batch in batches)

    def _batches(self, slots: Sequence[Slot]) -> Iterator[list[Slot]]:
        batch: list[Slot] = []
        size_bytes = 0
        for slot in slots:
            batch.append(slot)
            size_bytes += self._shards[slot[0]].table.sizes[slot[1]]
            if size_bytes >= BATCH_BYTES:
                yield batch
                batch, size_bytes = [], 0
        if batch:
            yield batch

    def _prefetch(self, batch: Sequence[Slot]) -> None:
        for number, slots in groupby(batch, key=itemgetter(0)):
            members = [slot for _, slot in slots]
            self._shards[number].prefetch(members[0], members[-1])

    def compare(self, slot: Slot, digest: bytes) -> None:
        """Compare what was found for a slot with its digest."""
        try:
            self._shards[slot[0]].check_slot(slot[1], digest)
        except FormatError as error:
            with self._lock:
                if self._on_damage is not None:
                    self._on_damage(error)
                elif self._damage is None or slot < self._damage[0]:
                    self._damage = slot, error
        else:
            self.sound.add(slot)

    def report(self, size_bytes: int) -> None:
        """Tell how many bytes were hashed."""
        if self._on_bytes is not None:
            with self._lock:
                self._on_bytes(size_bytes)


class _BehindReads:
    """Hashes the slots of a run in order while its pieces arrive in any order; one thread at a time."""

    def __init__(self, slots: SlotPass, shard: ShardFile, first: Slot, last: int) -> None:
        self._slots = slots
        self._shard = shard
        self._slot = first
        self._last = last
        self._hasher: Hasher | None = None
        self._arrived: dict[int, memoryview] = {}
        self._next_offset, _ = aligned_range(*shard.range_of(first[1], last))
        self._is_busy = False
        self._lock = Lock()

    def take(self, offset: int, piece: memoryview) -> None:
        """Hash a piece that has arrived, and those behind it that have; if another thread is at it, that one does it."""
        with self._lock:
            self._arrived[offset] = piece
            if self._is_busy:
                return
            self._is_busy = True
        while (found := self._find_next()) is not None:
            with self._slots.hashing:
                size_bytes = self._hash(*found)
            self._slots.report(size_bytes)

    def _find_next(self) -> tuple[int, memoryview] | None:
        with self._lock:
            offset = self._next_offset
            piece = self._arrived.pop(offset, None)
            if piece is None:
                self._is_busy = False
                return None
            self._next_offset += len(piece)
            return offset, piece

    def _hash(self, begin: int, piece: memoryview) -> int:
        end, hashed_bytes = begin + len(piece), 0
        while self._slot[1] <= self._last:
            slot_begin, slot_end = self._shard.range_of(self._slot[1], self._slot[1])
            part = piece[max(slot_begin - begin, 0) : max(min(slot_end, end) - begin, 0)]
            hashed_bytes += len(part)
            if slot_begin >= begin and slot_end <= end:
                self._slots.compare(self._slot, digest_of(part))
            else:
                self._hasher = self._hasher or hasher_for(slot_end - slot_begin)
                self._hasher.update(part)
                if slot_end > end:
                    break
                self._slots.compare(self._slot, self._hasher.digest())
                self._hasher = None
            self._slot = (self._slot[0], self._slot[1] + 1)
        return hashed_bytes
