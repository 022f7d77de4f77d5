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
WORTH_A_DELTA = 0.95
DELTA_METADATA_BYTES = 256
SAMPLED_BLOCKS = 4


@dataclass(frozen=True, slots=True)
class RawSlot:
    """A slot that holds its chunk as it is; `check` raises if its bytes are damaged.

    `difference`, with a number of threads, gives what is to be added to a source, as words of `word_bytes`, or None if there is none.
    """

    slot: int
    dtype: str
    shape: tuple[int, ...]
    data: memoryview
    check: Callable[[], None]
    difference: Callable[[int], memoryview | None] | None = None
    word_bytes: int = 1


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
    encoder, data, is_delta = _choose(slot, level, 1)
    end = _fill(buffer, 0, [encoder.encode_head()])
    end = _encode_blocks(encoder, data, range(encoder.head.block_count), buffer, end)
    end = _fill(buffer, end, [encoder.encode_table(end)])
    return EncodedPart(slot.slot, buffer[:end], is_last=True, is_worth_it=is_gain(len(slot.data), end), is_delta=is_delta)


def _choose(slot: RawSlot, level: int, threads: int) -> tuple[PlanesEncoder, memoryview, bool]:
    """Return what encodes a slot, what it is given, and whether that is a difference: where a sample of that is clearly smaller."""
    dtype = coded_type(slot.data, slot.dtype)
    encoder = _encoder(slot.data, dtype, slot.shape, level)
    difference = slot.difference(threads) if slot.difference is not None else None
    if difference is not None:
        of_difference = _encoder(difference, f"int{8 * slot.word_bytes}", (len(difference) // slot.word_bytes,), level)
        if _sampled_bytes(of_difference, difference) + DELTA_METADATA_BYTES < WORTH_A_DELTA * _sampled_bytes(encoder, slot.data):
            return of_difference, difference, True
    return encoder, slot.data, False


def _encoder(data: memoryview, dtype: str, shape: tuple[int, ...], level: int) -> PlanesEncoder:
    return PlanesEncoder(plan_planes(take_sample(data, dtype, shape), dtype, shape, len(data), level=level), len(data))


def _sampled_bytes(encoder: PlanesEncoder, data: memoryview) -> float:
    """Return about how many bytes the blocks of a stream take, from some of them."""
    count = encoder.head.block_count
    some = range(0, count, max(1, count // SAMPLED_BLOCKS))
    step = encoder.head.block_bytes
    coded = sum(len(part) for block in some for part in encoder.encode_parts(block, data[block * step : (block + 1) * step]))
    return coded / len(some) * count


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


def _encode_large(slot: RawSlot, level: int, threads: int) -> Iterator[tuple[Work, bool]]:
    """Give the parts of a large slot: its head, runs of its blocks, its table."""
    slot.check()
    encoder, data, is_delta = _choose(slot, level, threads)
    head = encoder.encode_head()
    sizes = [len(head)]

    def encode(blocks: range, buffer: memoryview) -> EncodedPart:
        end = _encode_blocks(encoder, data, blocks, buffer, 0)
        sizes.append(end)
        return EncodedPart(slot.slot, buffer[:end], is_last=False)

    def finish(_: memoryview) -> EncodedPart:
        table = encoder.encode_table(sum(sizes))
        is_worth_it = is_gain(len(slot.data), sum(sizes) + len(table))
        return EncodedPart(slot.slot, table, is_last=True, is_worth_it=is_worth_it, is_delta=is_delta)

    yield lambda _: EncodedPart(slot.slot, head, is_last=False), False
    count = max(1, PIECE_BYTES // encoder.head.block_bytes)
    for first in range(0, encoder.head.block_count, count):
        yield partial(encode, range(first, min(first + count, encoder.head.block_count))), True
    yield finish, False
