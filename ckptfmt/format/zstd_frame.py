"""One zstd frame with declared size: compressing it, and decompressing it without trusting it. Spec 7 and 11.

The declared size is checked before anything is allocated. `zstandard` ignores its `max_output_size` when a frame
declares a size, and accepts trailing bytes by default; both are closed here.

Source: RFC 8878.
"""

from __future__ import annotations

from typing import Any

from ckptfmt.errors import FormatError
from ckptfmt.format.layout import MAX_WINDOW_BYTES
from ckptfmt.format.rules import violation

MAGIC = b"\x28\xb5\x2f\xfd"
# The densest block is 4 bytes that repeat one byte 128 KiB times.
MAX_RATIO = 2**15


def compress(raw: bytes, *, level: int = 3) -> bytes:
    """Compress into one frame with content size and checksum and a window of at most 8 MiB."""
    import zstandard

    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=len(raw), write_content_size=True, write_checksum=True, window_log=min(23, max(10, (len(raw) - 1).bit_length()))
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(raw)


def decompress(data: bytes, *, raw_size_bytes: int, where: str) -> bytes:
    """Decompress one frame that must declare `raw_size_bytes`, a limit that the caller has checked."""
    import zstandard

    if data[:4] != MAGIC:
        raise violation("E021", where, "not one zstd frame: no magic number")
    try:
        frame = zstandard.get_frame_parameters(data)
    except zstandard.ZstdError as error:
        raise violation("E021", where, f"not one zstd frame: {error}") from None
    if frame.content_size in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR):
        raise violation("E021", where, "zstd frame declares no content size")
    if not frame.has_checksum or frame.dict_id:
        raise violation("E021", where, "zstd frame without a checksum, or with a dictionary")
    if frame.window_size > MAX_WINDOW_BYTES:
        raise violation("E022", where, expected=f"at most {MAX_WINDOW_BYTES} bytes", found=frame.window_size)
    if frame.content_size != raw_size_bytes:
        raise violation("E023", where, expected=raw_size_bytes, found=frame.content_size)
    try:
        return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise violation("E021", where, f"zstd frame does not decompress: {error}") from None


def decompress_frames(data: bytes | memoryview, *, raw_size_bytes: int, where: str, tensor: str | None = None) -> bytearray:
    """Decompress frames whose contents together must have `raw_size_bytes`; allocates no more than that. Spec 11.

    `tensor` names the slot in messages.
    """
    import zstandard

    def refuse(what: str, expected: Any = None, found: Any = None) -> FormatError:
        subject = f"tensor {tensor!r}: {what}" if tensor is not None else what
        return violation("E045", where, subject, expected=expected, found=found, tensor=tensor)

    if raw_size_bytes > len(data) * MAX_RATIO:
        limit = f"at most {len(data) * MAX_RATIO} bytes"
        raise refuse("declared size of the decoded bytes", limit, raw_size_bytes)
    filled = 0
    try:
        raw = bytearray(raw_size_bytes)
        with zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).stream_reader(data, read_across_frames=True) as reader:
            while filled < raw_size_bytes and (count := reader.readinto(memoryview(raw)[filled:])):
                filled += count
            is_longer = bool(reader.read(1))
    except zstandard.ZstdError as error:
        raise refuse(f"zstd frames do not decompress: {error}") from None
    except MemoryError:
        raise refuse("declared size of the decoded bytes is more than the memory of this machine", found=raw_size_bytes) from None
    if filled != raw_size_bytes or is_longer:
        raise refuse("size of the decoded bytes", raw_size_bytes, "more" if is_longer else filled)
    return raw
