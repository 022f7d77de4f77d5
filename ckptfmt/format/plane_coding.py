"""One plane as stored bytes: as it is, one element for all, or a zstd frame. Spec 11.1.

Exponents are nearly independent of each other, so what codes them is zstd's Huffman stage alone: FAST makes the search for matches
as cheap as it gets, which is faster and smaller than any level. Planes with structure, such as those of integers, want a level.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy

    Words = numpy.ndarray[Any, Any]

STORED, CONSTANT, ZSTD = range(3)
FAST = 0

_local = threading.local()


def encode_plane(plane: Words, width: int, level: int | None, cuts: Sequence[int] = ()) -> tuple[int, bytes | memoryview]:
    """Return mode and bytes of a plane; with no level it is not compressed. What is returned may be the plane's own memory.

    `cuts` are elements from which on others are likely: the frame then has a block of its own for what lies between two.
    """
    elements = plane.view(f"<u{width}")
    if len(elements) and elements[0] == elements[-1] and (elements == elements[0]).all():
        return CONSTANT, plane[:width].tobytes()
    if level is not None:
        compressor = _compressor(level)
        frame = _in_blocks(compressor, plane.data, [cut * width for cut in cuts]) if cuts else compressor.compress(plane.data)
        if len(frame) < len(plane) - len(plane) // 128:
            return ZSTD, frame
    return STORED, plane.data


def _in_blocks(compressor: Any, data: memoryview, cuts: Sequence[int]) -> bytes:
    import zstandard

    frame = compressor.compressobj(size=len(data))
    parts: list[bytes] = []
    for begin, end in pairwise((0, *cuts)):
        parts += (frame.compress(data[begin:end]), frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
    return b"".join([*parts, frame.compress(data[cuts[-1] :]), frame.flush()])


def _compressor(level: int) -> Any:
    compressors = _local.__dict__.setdefault("compressors", {})
    compressor = compressors.get(level)
    if compressor is None:
        import zstandard

        given: dict[str, Any] = {"write_content_size": True, "write_checksum": False, "write_dict_id": False}
        if level == FAST:
            given |= {"window_log": 17, "hash_log": 6, "chain_log": 6, "search_log": 1, "min_match": 7, "target_length": 0}
            parameters = zstandard.ZstdCompressionParameters(strategy=zstandard.STRATEGY_FAST, **given)
        else:
            parameters = zstandard.ZstdCompressionParameters.from_level(level, window_log=20, **given)
        compressor = compressors[level] = zstandard.ZstdCompressor(compression_params=parameters)
    return compressor


def decode_plane(mode: int, data: memoryview, size_bytes: int, width: int) -> Words:
    """Return the `size_bytes` bytes of a plane.

    Raises:
        ValueError: the stored bytes are not such a plane; nothing larger was allocated.
    """
    import numpy

    if mode == STORED:
        if len(data) != size_bytes:
            raise ValueError(f"a stored plane has {len(data)} bytes, not {size_bytes}")
        return numpy.frombuffer(data, numpy.uint8)
    if mode == CONSTANT:
        if len(data) != width:
            raise ValueError(f"the element of a constant plane has {len(data)} bytes, not {width}")
        return numpy.full(size_bytes // width, numpy.frombuffer(data, f"<u{width}")[0]).view(numpy.uint8)
    if mode != ZSTD:
        raise ValueError(f"a plane has mode {mode}")
    return numpy.frombuffer(_decompress(data, size_bytes), numpy.uint8)


def _decompress(data: memoryview, size_bytes: int) -> bytes:
    import zstandard

    decompressor = _local.__dict__.get("decompressor")
    if decompressor is None:
        decompressor = _local.__dict__["decompressor"] = zstandard.ZstdDecompressor()
    try:
        declared = zstandard.frame_content_size(data)
        if declared != size_bytes:
            raise ValueError(f"a frame declares {declared} bytes, not {size_bytes}")
        raw: bytes = decompressor.decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(f"a frame does not decompress: {error}") from None
    return raw
