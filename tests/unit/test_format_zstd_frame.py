"""Zstd frames that are not trusted. Spec 7 and 11."""

import os
import time
import tracemalloc

import pytest
import zstandard

from ckptfmt.errors import CorruptError, FormatError, LimitError
from ckptfmt.format import zstd_frame

RAW = b"state" * 1000


def refused(data, *, raw_size_bytes=5000):
    with pytest.raises(FormatError) as caught:
        zstd_frame.decompress(data, raw_size_bytes=raw_size_bytes, where="m")
    return caught.value.rule


@pytest.mark.parametrize("raw", [b"", b"x", RAW, os.urandom(300_000), bytes(20_000_000)], ids=["empty", "byte", "text", "noise", "20 MB"])
def test_what_is_compressed_is_decompressed(raw):
    data = zstd_frame.compress(raw)
    assert zstd_frame.decompress(data, raw_size_bytes=len(raw), where="m") == raw
    frame = zstandard.get_frame_parameters(data)
    assert (frame.content_size, frame.has_checksum, frame.dict_id) == (len(raw), True, 0)
    assert frame.window_size <= 8 * 2**20


def test_levels_differ_in_size_and_not_in_content():
    fast, slow = (zstd_frame.compress(os.urandom(50) * 1000, level=level) for level in (1, 19))
    assert zstandard.get_frame_parameters(fast).content_size == zstandard.get_frame_parameters(slow).content_size == 50_000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x28\xb5\x2f\xfd",
        b"not zstd at all",
        RAW,
        zstd_frame.compress(RAW)[:-1],
        zstd_frame.compress(RAW) + b"\x00",
        zstd_frame.compress(RAW) + zstd_frame.compress(b""),
        b"\x50\x2a\x4d\x18\x00\x00\x00\x00" + zstd_frame.compress(RAW),
        zstandard.ZstdCompressor(write_checksum=False).compress(RAW),
        zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compress(RAW),
        zstd_frame.compress(RAW)[:-4] + b"\x00\x00\x00\x00",
    ],
    ids=["empty", "magic", "text", "raw", "short", "byte after", "two", "skippable", "no checksum", "no size", "other checksum"],
)
def test_anything_but_one_frame_with_size_and_checksum_is_refused(data):
    assert refused(data) == "E021"


def test_a_frame_that_needs_a_dictionary_is_refused():
    trained = zstandard.train_dictionary(1024, [b"state %d" % index * 20 for index in range(500)])
    compressor = zstandard.ZstdCompressor(dict_data=trained, write_checksum=True)
    assert refused(compressor.compress(RAW)) == "E021"


def test_a_large_window_is_refused_before_decompression():
    parameters = zstandard.ZstdCompressionParameters(window_log=24, write_content_size=True, write_checksum=True)
    data = zstandard.ZstdCompressor(compression_params=parameters).compress(os.urandom(2**24 + 1))
    with pytest.raises(LimitError) as caught:
        zstd_frame.decompress(data, raw_size_bytes=2**24 + 1, where="m")
    assert caught.value.rule == "E022"


@pytest.mark.parametrize("size", [0, len(RAW) - 1, len(RAW) + 1, 2**28])
def test_another_size_than_declared_is_refused(size):
    assert refused(zstd_frame.compress(RAW), raw_size_bytes=size) == "E023"


def test_a_hostile_declared_size_is_refused_without_allocating():
    data = bytearray(zstd_frame.compress(RAW))
    hostile = bytes(data[:4]) + b"\xe4" + (2**40).to_bytes(8, "little") + bytes(data[7:])
    tracemalloc.start()
    started = time.perf_counter()
    assert refused(hostile) in ("E022", "E023")
    with pytest.raises(CorruptError):
        zstd_frame.decompress_frames(bytes(data), raw_size_bytes=2**40, where="m")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.perf_counter() - started < 1
    assert peak_bytes < 2**20


def frames(*parts, **options):
    return b"".join(zstandard.ZstdCompressor(**options).compress(part) for part in parts)


@pytest.mark.parametrize(
    "data", [frames(RAW), frames(RAW[:7], RAW[7:]), frames(RAW, b"", write_checksum=True), frames(RAW, write_content_size=False)]
)
def test_the_contents_of_frames_are_joined(data):
    assert zstd_frame.decompress_frames(data, raw_size_bytes=len(RAW), where="t") == RAW
    assert zstd_frame.decompress_frames(memoryview(data), raw_size_bytes=len(RAW), where="t") == RAW


def test_no_frames_have_no_content():
    assert zstd_frame.decompress_frames(b"", raw_size_bytes=0, where="t") == b""


@pytest.mark.parametrize("data", [b"", b"no frame", frames(RAW)[:-3], frames(RAW[:-1]), frames(RAW, b"x"), frames(RAW) + b"x"])
def test_frames_of_another_size_are_refused(data):
    with pytest.raises(CorruptError) as caught:
        zstd_frame.decompress_frames(data, raw_size_bytes=len(RAW), where="t")
    assert caught.value.rule == "E045"


def test_a_size_beyond_the_memory_of_the_machine_is_refused(monkeypatch):
    monkeypatch.setattr(zstd_frame, "MAX_RATIO", 2**62)
    with pytest.raises(CorruptError, match="memory of this machine") as caught:
        zstd_frame.decompress_frames(frames(RAW), raw_size_bytes=2**60, where="t", tensor="w")
    assert (caught.value.rule, caught.value.tensor) == ("E045", "w")


def test_the_densest_content_is_within_the_ratio():
    raw = bytes(2**24)
    data = zstd_frame.compress(raw, level=19)
    assert len(raw) < len(data) * zstd_frame.MAX_RATIO
    assert zstd_frame.decompress_frames(data, raw_size_bytes=len(raw), where="t") == raw
