"""The slots of one shard, encoded as planes by all cores, in the order of the shard. Spec 11.1.

A few pieces of work are under way at a time, each some megabytes, so that memory stays bounded however large a tensor is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from ckptfmt.format.byte_planes import PlanesEncoder
from ckptfmt.format.plane_fit import coded_type, plan_planes, take_sample

PIECE_BYTES = 4 * 2**20
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
    """Some bytes of a slot's stream; with the last of them `is_worth_it` says whether the stream is to be used."""

    slot: int
    data: bytes
    is_last: bool
    is_worth_it: bool = False


def is_gain(raw_size_bytes: int, size_bytes: int) -> bool:
    """Tell whether so many bytes instead of so many pay for being decoded."""
    return size_bytes <= raw_size_bytes - max(MIN_GAIN_BYTES, raw_size_bytes // 128)


Work = Callable[[], EncodedPart]


def encode_slots(slots: Sequence[RawSlot], *, level: int, threads: int) -> Iterator[EncodedPart]:
    """Check and encode slots; the parts come in their order."""
    pending: deque[Work] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="ckptfmt-encode") as pool:
        try:
            for work, is_for_threads in _work(slots, level):
                if len(pending) > 2 * threads:
                    yield pending.popleft()()
                # What is not for the threads is done in its turn, when everything before it is.
                pending.append(pool.submit(work).result if is_for_threads else work)
            while pending:
                yield pending.popleft()()
        finally:
            pool.shutdown(cancel_futures=True)


def _work(slots: Sequence[RawSlot], level: int) -> Iterator[tuple[Work, bool]]:
    for slot in slots:
        if len(slot.data) <= PIECE_BYTES:
            yield partial(_encode_small, slot, level), True
        else:
            yield from _encode_large(slot, level)


def _encode_small(slot: RawSlot, level: int) -> EncodedPart:
    slot.check()
    if len(slot.data) < MIN_TENSOR_BYTES:
        return EncodedPart(slot.slot, b"", is_last=True)
    encoder = _encoder(slot, level)
    blocks = _encode_blocks(encoder, slot.data, range(encoder.head.block_count))
    stream = encoder.encode_head() + blocks
    stream += encoder.encode_table(len(stream))
    return EncodedPart(slot.slot, stream, is_last=True, is_worth_it=is_gain(len(slot.data), len(stream)))


def _encoder(slot: RawSlot, level: int) -> PlanesEncoder:
    dtype = coded_type(slot.data, slot.dtype)
    sample = take_sample(slot.data, dtype, slot.shape)
    return PlanesEncoder(plan_planes(sample, dtype, slot.shape, len(slot.data), level=level), len(slot.data))


def _encode_blocks(encoder: PlanesEncoder, data: memoryview, blocks: range) -> bytes:
    step = encoder.head.block_bytes
    return b"".join([encoder.encode_block(block, data[block * step : (block + 1) * step]) for block in blocks])


def _encode_large(slot: RawSlot, level: int) -> Iterator[tuple[Work, bool]]:
    """Give the parts of a large slot: its head, runs of its blocks, its table."""
    slot.check()
    encoder = _encoder(slot, level)
    head = encoder.encode_head()
    sizes = [len(head)]

    def encode(blocks: range) -> EncodedPart:
        part = _encode_blocks(encoder, slot.data, blocks)
        sizes.append(len(part))
        return EncodedPart(slot.slot, part, is_last=False)

    def finish() -> EncodedPart:
        table = encoder.encode_table(sum(sizes))
        return EncodedPart(slot.slot, table, is_last=True, is_worth_it=is_gain(len(slot.data), sum(sizes) + len(table)))

    yield lambda: EncodedPart(slot.slot, head, is_last=False), False
    count = max(1, PIECE_BYTES // encoder.head.block_bytes)
    for first in range(0, encoder.head.block_count, count):
        yield partial(encode, range(first, min(first + count, encoder.head.block_count))), True
    yield finish, False
