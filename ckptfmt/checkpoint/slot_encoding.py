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
from ckptfmt.format.plane_fit import coded_type, plan_planes, take_sample

MIN_TENSOR_BYTES = 2**11
MIN_GAIN_BYTES = 128


@dataclass(frozen=True, slots=True)
class RawSlot:
    """A slot that holds its chunk as it is; `check` raises if its bytes are damaged."""

    slot: int
    dtype: str
    shape: tuple[int, ...]
    data: memoryview
    check: Callable[[], None]


@dataclass(frozen=True, slots=True)
class EncodedPart:
    """Some bytes of a slot's stream, valid until the next part; with the last of them `is_worth_it` says whether it is to be used."""

    slot: int
    data: bytes | memoryview
    is_last: bool
    is_worth_it: bool = False


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
            for work, is_for_threads in _work(slots, level):
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


def _work(slots: Sequence[RawSlot], level: int) -> Iterator[tuple[Work, bool]]:
    for slot in slots:
        if len(slot.data) <= PIECE_BYTES:
            yield partial(_encode_small, slot, level), True
        else:
            yield from _encode_large(slot, level)


def _encode_small(slot: RawSlot, level: int, buffer: memoryview) -> EncodedPart:
    slot.check()
    if len(slot.data) < MIN_TENSOR_BYTES:
        return EncodedPart(slot.slot, b"", is_last=True)
    encoder = _encoder(slot, level)
    head = encoder.encode_head()
    end = _fill(buffer, 0, [head])
    end = _encode_blocks(encoder, slot.data, range(encoder.head.block_count), buffer, end)
    end = _fill(buffer, end, [encoder.encode_table(end)])
    return EncodedPart(slot.slot, buffer[:end], is_last=True, is_worth_it=is_gain(len(slot.data), end))


def _encoder(slot: RawSlot, level: int) -> PlanesEncoder:
    dtype = coded_type(slot.data, slot.dtype)
    sample = take_sample(slot.data, dtype, slot.shape)
    return PlanesEncoder(plan_planes(sample, dtype, slot.shape, len(slot.data), level=level), len(slot.data))


def _encode_blocks(encoder: PlanesEncoder, data: memoryview, blocks: range, buffer: memoryview, begin: int) -> int:
    """Encode blocks into a buffer from a place on, and return where they end."""
    step = encoder.head.block_bytes
    for block in blocks:
        begin = _fill(buffer, begin, encoder.encode_parts(block, data[block * step : (block + 1) * step]))
    return begin


def _fill(buffer: memoryview, begin: int, parts: Sequence[bytes | memoryview]) -> int:
    for part in parts:
        buffer[begin : begin + len(part)] = part
        begin += len(part)
    return begin


def _encode_large(slot: RawSlot, level: int) -> Iterator[tuple[Work, bool]]:
    """Give the parts of a large slot: its head, runs of its blocks, its table."""
    slot.check()
    encoder = _encoder(slot, level)
    head = encoder.encode_head()
    sizes = [len(head)]

    def encode(blocks: range, buffer: memoryview) -> EncodedPart:
        end = _encode_blocks(encoder, slot.data, blocks, buffer, 0)
        sizes.append(end)
        return EncodedPart(slot.slot, buffer[:end], is_last=False)

    def finish(_: memoryview) -> EncodedPart:
        table = encoder.encode_table(sum(sizes))
        return EncodedPart(slot.slot, table, is_last=True, is_worth_it=is_gain(len(slot.data), sum(sizes) + len(table)))

    yield lambda _: EncodedPart(slot.slot, head, is_last=False), False
    count = max(1, PIECE_BYTES // encoder.head.block_bytes)
    for first in range(0, encoder.head.block_count, count):
        yield partial(encode, range(first, min(first + count, encoder.head.block_count))), True
    yield finish, False
