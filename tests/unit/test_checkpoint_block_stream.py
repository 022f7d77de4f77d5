"""The write loop with small blocks: what arrives, what is hashed, where errors go, and which blocks come back."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator

import pytest

from ckptfmt.checkpoint import block_stream
from ckptfmt.checkpoint.block_stream import BLOCK_COUNT, BlockStream
from ckptfmt.disk.memory import MemoryDirectory, MemoryDisk
from ckptfmt.format.digest import digest_of

BLOCK_BYTES = 4096
NEAR_BLOCKS = sorted({max(0, count * BLOCK_BYTES + near) for count in (0, 1, 2, 5) for near in (-1, 0, 1)})


@pytest.fixture(autouse=True)
def pool(monkeypatch: pytest.MonkeyPatch) -> block_stream._BlockPool:
    """Blocks of one page, in a pool of the test's own."""
    made = block_stream._BlockPool()
    monkeypatch.setattr(block_stream, "BLOCK_BYTES", BLOCK_BYTES)
    monkeypatch.setattr(block_stream, "_POOL", made)
    return made


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk()


@pytest.fixture
def directory(disk: MemoryDisk) -> Iterator[MemoryDirectory]:
    opened = disk.open_directory("/")
    yield opened
    opened.close()


def content(size_bytes: int) -> memoryview:
    return memoryview((bytes(range(1, 252)) * (size_bytes // 251 + 1))[:size_bytes])


def write(stream: BlockStream, directory: MemoryDirectory, name: str, *chunks: memoryview) -> list[bytes]:
    """Write one file; return the digests of its chunks."""
    file = directory.create(name, size_bytes=sum(map(len, chunks)))
    stream.begin(file)
    digests = [stream.append_hashed(chunk) for chunk in chunks]
    stream.finish(file.close)
    return digests


@pytest.mark.parametrize("expected_bytes", [0, 1, BLOCK_BYTES, 100 * BLOCK_BYTES])
@pytest.mark.parametrize("size_bytes", NEAR_BLOCKS)
def test_a_chunk_of_a_size_around_blocks_arrives_with_its_digest(
    size_bytes: int, expected_bytes: int, disk: MemoryDisk, directory: MemoryDirectory
) -> None:
    with BlockStream(expected_bytes=expected_bytes) as stream:
        digests = write(stream, directory, "file", content(size_bytes))
        stream.drain()
    assert disk.contents() == {"/file": bytes(content(size_bytes))}
    assert digests == [digest_of(content(size_bytes))]


@pytest.mark.parametrize("header_bytes", [1, 64, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1])
@pytest.mark.parametrize("size_bytes", NEAR_BLOCKS)
def test_chunks_behind_a_header_are_hashed_apart_from_it(
    size_bytes: int, header_bytes: int, disk: MemoryDisk, directory: MemoryDirectory
) -> None:
    chunks = [content(size_bytes), content(0), content(7), content(size_bytes)]
    with BlockStream(expected_bytes=2 * size_bytes) as stream:
        file = directory.create("file", size_bytes=0)
        stream.begin(file)
        stream.append(bytes(content(header_bytes)))
        digests = [stream.append_hashed(chunk) for chunk in chunks]
        stream.finish(file.close)
        stream.drain()
    assert disk.contents() == {"/file": b"".join([content(header_bytes), *chunks])}
    assert digests == [digest_of(chunk) for chunk in chunks]


def test_pieces_of_one_chunk_share_a_digest_and_may_change_after_they_were_taken(disk: MemoryDisk, directory: MemoryDirectory) -> None:
    whole = content(3 * BLOCK_BYTES + 5)
    used_again = bytearray(700)

    def pieces() -> Iterator[memoryview]:
        for begin in range(0, len(whole), len(used_again)):
            part = whole[begin : begin + len(used_again)]
            used_again[: len(part)] = part
            yield memoryview(used_again)[: len(part)]

    with BlockStream(expected_bytes=len(whole)) as stream:
        file = directory.create("file", size_bytes=0)
        stream.begin(file)
        digest = stream.append_pieces_hashed(pieces())
        stream.finish(file.close)
        stream.drain()
    assert disk.contents() == {"/file": bytes(whole)}
    assert digest == digest_of(whole)


def test_many_small_files_between_large_ones_arrive_in_order(disk: MemoryDisk, directory: MemoryDirectory) -> None:
    sizes = [1, 3 * BLOCK_BYTES, *range(1, 200), 2 * BLOCK_BYTES + 1, 5]
    finished: list[int] = []
    with BlockStream(expected_bytes=sum(sizes)) as stream:
        for index, size_bytes in enumerate(sizes):
            file = directory.create(f"file{index:03}", size_bytes=size_bytes)
            stream.begin(file)
            stream.append_hashed(content(size_bytes))
            stream.finish(lambda index=index, file=file: (file.close(), finished.append(index)))  # type: ignore[misc]
        stream.drain()
    assert finished == list(range(len(sizes)))
    assert [len(found or b"") for found in disk.contents().values()] == sizes


def test_what_fits_into_one_block_needs_no_thread(directory: MemoryDirectory) -> None:
    threads: set[str] = set()
    with BlockStream(expected_bytes=BLOCK_BYTES) as stream:
        for name in ("first", "second"):
            file = directory.create(name, size_bytes=BLOCK_BYTES)
            stream.begin(file)
            stream.append_hashed(content(BLOCK_BYTES))
            stream.finish(lambda file=file: (file.close(), threads.add(threading.current_thread().name)))  # type: ignore[misc]
        stream.drain()
    assert threads == {threading.current_thread().name}


def test_no_more_blocks_are_made_than_one_stream_uses_and_all_come_back(
    pool: block_stream._BlockPool, directory: MemoryDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    monkeypatch.setattr(block_stream, "aligned_buffer", lambda size: made.append(size) or memoryview(bytearray(size)))
    for name in ("first", "second"):
        with BlockStream(expected_bytes=50 * BLOCK_BYTES) as stream:
            write(stream, directory, name, content(50 * BLOCK_BYTES))
            stream.drain()
        assert len(pool._blocks) == len(made) <= BLOCK_COUNT
    assert set(made) == {BLOCK_BYTES}
    assert len({id(block) for block in pool._blocks}) == len(pool._blocks)


@pytest.mark.parametrize("nth", [1, 2, 7, 20])
def test_an_error_of_the_second_thread_reaches_the_caller_and_nothing_is_done_after_it(
    nth: int, disk: MemoryDisk, directory: MemoryDirectory, pool: block_stream._BlockPool
) -> None:
    disk.faults.fail("write", errno.EIO, nth=nth)
    finished: list[str] = []

    def save() -> None:
        with BlockStream(expected_bytes=30 * BLOCK_BYTES) as stream:
            for name in ("first", "second", "third"):
                file = directory.create(name, size_bytes=0)
                stream.begin(file)
                stream.append_hashed(content(10 * BLOCK_BYTES))
                stream.finish(lambda name=name: finished.append(name))  # type: ignore[misc]
            stream.drain()

    with pytest.raises(OSError, match="Input/output error"):
        save()
    assert finished == ["first", "second", "third"][: (nth - 1) // 10]
    assert disk.faults.calls["write"] == nth
    assert 0 < len(pool._blocks) <= BLOCK_COUNT
    assert "ckptfmt-write" not in [thread.name for thread in threading.enumerate()]


def test_an_error_of_a_last_step_is_raised_at_the_latest_by_drain(directory: MemoryDirectory) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, "full")

    def save(size_bytes: int) -> None:
        with BlockStream(expected_bytes=size_bytes) as stream:
            stream.begin(directory.create(f"file{size_bytes}", size_bytes=0))
            stream.append_hashed(content(size_bytes))
            stream.finish(fail)
            stream.drain()

    for size_bytes in (10, 10 * BLOCK_BYTES):
        with pytest.raises(OSError, match="full"):
            save(size_bytes)


def test_an_error_of_the_caller_stops_the_second_thread_before_its_next_step(directory: MemoryDirectory) -> None:
    finished: list[str] = []
    is_started = threading.Event()

    def save() -> None:
        with BlockStream(expected_bytes=10 * BLOCK_BYTES) as stream:

            def wait_for_the_error() -> None:
                is_started.set()
                while stream._error is None:
                    time.sleep(0.001)
                finished.append("first")

            stream.begin(directory.create("first", size_bytes=0))
            stream.append_hashed(content(2 * BLOCK_BYTES))
            stream.finish(wait_for_the_error)
            stream.begin(directory.create("second", size_bytes=0))
            stream.append_hashed(content(10))
            stream.finish(lambda: finished.append("second"))
            is_started.wait()
            raise KeyError("the state cannot be read")

    with pytest.raises(KeyError, match="the state cannot be read"):
        save()
    assert finished == ["first"]
    assert "ckptfmt-write" not in [thread.name for thread in threading.enumerate()]


def test_only_whole_pages_are_written_until_the_tail_of_a_file(directory: MemoryDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_stream, "BLOCK_BYTES", 2 * BLOCK_BYTES)
    sizes: list[int] = []
    file = directory.create("file", size_bytes=0)
    monkeypatch.setattr(file, "write", lambda data: sizes.append(len(data)))
    with BlockStream(expected_bytes=100 * BLOCK_BYTES) as stream:
        stream.begin(file)
        stream.append_hashed(content(7 * BLOCK_BYTES + 100))
        stream.finish(file.close)
        stream.drain()
    assert sizes == [2 * BLOCK_BYTES] * 3 + [BLOCK_BYTES, 100]
