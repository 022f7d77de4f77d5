"""The slots of one shard, encoded as planes by all cores, in the order of the shard. Spec 11.1.

A few pieces of work are under way at a time, each some megabytes, so that memory stays bounded however large a tensor is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from ckptfmt.checkpoint.piece_buffers import BUFFERS, PIECE_BYTES
from ckptfmt.format.byte_planes import PlanesEncoder
from ckptfmt.format.plane_fit import coded_type, plan_differences, plan_planes, take_sample

MIN_TENSOR_BYTES = 2**11
MIN_GAIN_BYTES = 128
WORTH_A_DELTA = 0.95
DELTA_METADATA_BYTES = 256
SAMPLED_BLOCKS = 4


@dataclass(frozen=True, slots=True)
class RawSlot:
    """A slot that holds its chunk as it is; `check` raises if its bytes are damaged.

    `source`, with a number of threads, gives a chunk of the same size of which it may be stored as the difference, or None.
    """

    slot: int
    dtype: str
    shape: tuple[int, ...]
    data: memoryview
    check: Callable[[], None]
    source: Callable[[int], memoryview | None] | None = None


@dataclass(frozen=True, slots=True)
class EncodedPart:
    """Some bytes of a slot's stream, valid until the next part; the last says whether the stream is to be used, and as what."""

    slot: int
    data: bytes | memoryview
    is_last: bool
    is_worth_it: bool = False
    is_delta: bool = False


def is_gain(raw_size_bytes: int, size_bytes: int) -> bool:
    """Tell whether so many bytes instead of so many pay for being decoded."""
    return size_bytes <= raw_size_bytes - max(MIN_GAIN_BYTES, raw_size_bytes // 128)


Work = Callable[[memoryview], EncodedPart]
Pending = tuple[Callable[[], EncodedPart], memoryview]


def encode_slots(slots: Sequence[RawSlot], *, level: int, threads: int) -> Iterator[EncodedPart]:
    """Check and encode slots; the parts come in their order."""
    pending: deque[Pending] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="ckptfmt-encode") as pool:
        try:
            for work, is_for_threads in _work(slots, level, threads):
                if len(pending) > threads:
                    yield from _next(pending)
                buffer = BUFFERS.take(PIECE_BYTES) if is_for_threads else memoryview(b"")
                # What is not for the threads is done in its turn, when everything before it is.
                result: Callable[[], EncodedPart] = pool.submit(work, buffer).result if is_for_threads else partial(work, buffer)
                pending.append((result, buffer))
            while pending:
                yield from _next(pending)
        finally:
            pool.shutdown(cancel_futures=True)
            for _, buffer in pending:
                BUFFERS.give_back(buffer)


def _next(pending: deque[Pending]) -> Iterator[EncodedPart]:
    yield pending[0][0]()
    BUFFERS.give_back(pending.popleft()[1])


def _work(slots: Sequence[RawSlot], level: int, threads: int) -> Iterator[tuple[Work, bool]]:
    for slot in slots:
        if len(slot.data) <= PIECE_BYTES:
            yield partial(_encode_small, slot, level), True
        else:
            yield from _encode_large(slot, level, threads)


def _encode_small(slot: RawSlot, level: int, buffer: memoryview) -> EncodedPart:
    slot.check()
    if len(slot.data) < MIN_TENSOR_BYTES:
        return EncodedPart(slot.slot, b"", is_last=True)
    coder = _choose(slot, level, 1)
    end = _fill(buffer, 0, [coder.encoder.encode_head()])
    end = _encode_blocks(coder, range(coder.encoder.head.block_count), buffer, end)
    end = _fill(buffer, end, [coder.encoder.encode_table(end)])
    return EncodedPart(slot.slot, buffer[:end], is_last=True, is_worth_it=is_gain(len(slot.data), end), is_delta=coder.source is not None)


@dataclass(frozen=True, slots=True)
class _Coder:
    """What encodes the blocks of a slot: of its chunk, or of what is to be added to a source."""

    encoder: PlanesEncoder
    data: memoryview
    source: memoryview | None

    def parts(self, block: int) -> list[bytes | memoryview]:
        """Return the parts of a block."""
        begin, end = self.encoder.head.bytes_of(block)
        return self.encoder.encode_parts(block, self.data[begin:end], None if self.source is None else self.source[begin:end])

    def sampled_bytes(self) -> float:
        """Return about how many bytes the blocks take, from some of them."""
        count = self.encoder.head.block_count
        some = range(0, count, max(1, count // SAMPLED_BLOCKS))
        return sum(len(part) for block in some for part in self.parts(block)) / len(some) * count


def _choose(slot: RawSlot, level: int, threads: int) -> _Coder:
    """Return what encodes a slot: as a difference where a sample of that is clearly smaller."""
    dtype = coded_type(slot.data, slot.dtype)
    sample = take_sample(slot.data, dtype, slot.shape)
    plan = plan_planes(sample, dtype, slot.shape, len(slot.data), level=level)
    chunk = _Coder(PlanesEncoder(plan, len(slot.data)), slot.data, None)
    source = slot.source(threads) if slot.source is not None else None
    if source is None:
        return chunk
    plans = plan_differences(slot.data, source, slot.dtype, level=level)
    coders = [_Coder(PlanesEncoder(plan, len(slot.data)), slot.data, source) for plan in plans]
    smallest_bytes, index = min((coder.sampled_bytes(), index) for index, coder in enumerate(coders))
    is_worth_it = smallest_bytes + DELTA_METADATA_BYTES < WORTH_A_DELTA * chunk.sampled_bytes()
    return coders[index] if is_worth_it else chunk


def _encode_blocks(coder: _Coder, blocks: range, buffer: memoryview, begin: int) -> int:
    """Encode blocks into a buffer from a place on, and return where they end."""
    for block in blocks:
        begin = _fill(buffer, begin, coder.parts(block))
    return begin


def _fill(buffer: memoryview, begin: int, parts: Sequence[bytes | memoryview]) -> int:
    for part in parts:
        buffer[begin : begin + len(part)] = part
        begin += len(part)
    return begin


def _encode_large(slot: RawSlot, level: int, threads: int) -> Iterator[tuple[Work, bool]]:
    """Give the parts of a large slot: its head, runs of its blocks, its table."""
    slot.check()
    coder = _choose(slot, level, threads)
    encoder = coder.encoder
    head = encoder.encode_head()
    sizes = [len(head)]

    def encode(blocks: range, buffer: memoryview) -> EncodedPart:
        end = _encode_blocks(coder, blocks, buffer, 0)
        sizes.append(end)
        return EncodedPart(slot.slot, buffer[:end], is_last=False)

    def finish(_: memoryview) -> EncodedPart:
        table = encoder.encode_table(sum(sizes))
        is_worth_it = is_gain(len(slot.data), sum(sizes) + len(table))
        return EncodedPart(slot.slot, table, is_last=True, is_worth_it=is_worth_it, is_delta=coder.source is not None)

    yield lambda _: EncodedPart(slot.slot, head, is_last=False), False
    count = max(1, PIECE_BYTES // encoder.head.block_bytes)
    for first in range(0, encoder.head.block_count, count):
        yield partial(encode, range(first, min(first + count, encoder.head.block_count))), True
    yield finish, False
