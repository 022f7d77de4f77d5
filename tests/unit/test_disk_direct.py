"""Direct I/O and reserved space: when they are used, what refuses them, and that the bytes are the same without them."""

import ctypes
import errno
import fcntl
import os

import pytest

from ckptfmt.disk import local, system_calls
from ckptfmt.disk.aligned import ALIGNMENT_BYTES, aligned_buffer, is_aligned
from ckptfmt.disk.local import MIN_DIRECT_BYTES, LocalDisk

O_DIRECT = getattr(os, "O_DIRECT", 0)


@pytest.fixture
def directory(tmp_path):
    opened = LocalDisk().open_directory(str(tmp_path))
    yield opened
    opened.close()


@pytest.fixture
def needs_direct(tmp_path):
    """Skip where the file system of the tests has no direct I/O."""
    try:
        number = os.open(tmp_path / "probe", os.O_RDWR | os.O_CREAT | O_DIRECT)
    except OSError:
        pytest.skip("no direct I/O here")
    os.close(number)
    os.unlink(tmp_path / "probe")


def is_direct(file):
    return bool(O_DIRECT and fcntl.fcntl(file._descriptor.number, fcntl.F_GETFL) & O_DIRECT)


def aligned_bytes(content):
    block = aligned_buffer(len(content))
    block[:] = content
    return block


def pattern(size_bytes):
    return (bytes(range(251)) * (size_bytes // 251 + 1))[:size_bytes]


def failing(code):
    def fail(*arguments, **options):
        raise OSError(code, os.strerror(code))

    return fail


def put(directory, name, content=b""):
    file = directory.create(name, size_bytes=len(content))
    file.write(content)
    file.close()


def get(directory, name):
    reader = directory.open(name)
    content = bytes(reader.map_private())
    reader.close()
    return content


@pytest.mark.parametrize("size_bytes", [0, 1, 4096, 2**20])
def test_aligned_buffers_are_writable_zeros_at_a_page(size_bytes):
    block = aligned_buffer(size_bytes)
    assert (len(block), block.readonly, bytes(block[:16])) == (size_bytes, False, bytes(min(size_bytes, 16)))
    assert is_aligned(block) is (size_bytes > 0)


def test_shifted_and_read_only_memory_is_not_aligned():
    block = aligned_buffer(2 * ALIGNMENT_BYTES)
    assert is_aligned(block[ALIGNMENT_BYTES:])
    assert not is_aligned(block[1:])
    assert not is_aligned(block.toreadonly())


def test_a_large_file_is_written_directly_until_a_piece_is_not_aligned(directory, needs_direct):
    file = directory.create("file", size_bytes=3 * MIN_DIRECT_BYTES)
    content = pattern(MIN_DIRECT_BYTES)
    file.write(aligned_bytes(content))
    assert is_direct(file)
    file.write(b"tail")
    assert not is_direct(file)
    file.write(aligned_bytes(content))
    assert not is_direct(file)
    file.sync()
    file.close()
    assert get(directory, "file") == content + b"tail" + content


def test_a_small_file_is_neither_direct_nor_reserved(directory, monkeypatch):
    monkeypatch.setattr(local, "reserve", failing(errno.EIO))
    file = directory.create("file", size_bytes=MIN_DIRECT_BYTES - 1)
    assert not is_direct(file)
    file.close()


@pytest.mark.parametrize("size_bytes", [MIN_DIRECT_BYTES, MIN_DIRECT_BYTES + 1, MIN_DIRECT_BYTES + 4096, 2 * MIN_DIRECT_BYTES - 1])
@pytest.mark.parametrize("block_bytes", [2**20, 2**20 + 512, 5 * 2**20])
@pytest.mark.parametrize("mode", ["direct", "buffered", "refused by the write", "short"])
def test_the_bytes_are_the_same_in_every_mode(directory, monkeypatch, size_bytes, block_bytes, mode):
    real_write = os.write

    def refuse_direct(number, data):
        if fcntl.fcntl(number, fcntl.F_GETFL) & O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real_write(number, data)

    if mode == "buffered":
        monkeypatch.setattr(local, "start_direct", lambda number: False)
    elif mode == "refused by the write":
        monkeypatch.setattr(os, "write", refuse_direct)
    elif mode == "short":
        monkeypatch.setattr(os, "write", lambda number, data: real_write(number, data[: 2**19 + 4096]))
    content = pattern(size_bytes)
    file = directory.create("file", size_bytes=size_bytes)
    for start in range(0, size_bytes, block_bytes):
        file.write(aligned_bytes(content[start : start + block_bytes]))
    file.sync()
    file.close()
    reader = directory.open("file")
    assert reader.read(0, size_bytes + 1) == content
    reader.close()


def test_a_device_that_refuses_direct_writes_is_asked_once(directory, monkeypatch, needs_direct):
    real_write, refusals = os.write, []

    def refuse_direct(number, data):
        if fcntl.fcntl(number, fcntl.F_GETFL) & O_DIRECT:
            refusals.append(number)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real_write(number, data)

    monkeypatch.setattr(os, "write", refuse_direct)
    for name in ("first", "second"):
        file = directory.create(name, size_bytes=MIN_DIRECT_BYTES)
        file.write(aligned_buffer(MIN_DIRECT_BYTES))
        file.close()
    assert len(refusals) == 1


@pytest.mark.parametrize("piece", [bytes(8192), aligned_buffer(8192)[512:4608], aligned_buffer(8192)[:100]])
def test_a_piece_that_is_not_aligned_says_nothing_about_its_device(directory, needs_direct, piece):
    for name in ("first", "second"):
        file = directory.create(name, size_bytes=MIN_DIRECT_BYTES)
        assert is_direct(file)
        file.write(piece)
        assert not is_direct(file)
        file.close()


def test_a_direct_write_that_stops_within_a_page_is_continued_and_says_nothing_about_its_device(directory, monkeypatch, needs_direct):
    real_write = os.write

    def stop_within_a_page(number, data):
        if not fcntl.fcntl(number, fcntl.F_GETFL) & O_DIRECT:
            return real_write(number, data)
        system_calls.stop_direct(number)
        taken_bytes = real_write(number, data[:1000])
        system_calls.start_direct(number)
        return taken_bytes

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", stop_within_a_page)
        put(directory, "file", aligned_bytes(pattern(MIN_DIRECT_BYTES)))
    assert get(directory, "file") == pattern(MIN_DIRECT_BYTES)
    file = directory.create("next", size_bytes=MIN_DIRECT_BYTES)
    assert is_direct(file)
    file.close()


def test_a_device_without_direct_mode_is_asked_once(directory, monkeypatch):
    asked = []
    monkeypatch.setattr(local, "start_direct", asked.append)
    for name in ("first", "second"):
        directory.create(name, size_bytes=MIN_DIRECT_BYTES).close()
    assert len(asked) == 1


def test_an_error_of_a_direct_write_is_not_retried(directory, tmp_path, monkeypatch):
    file = directory.create("file", size_bytes=MIN_DIRECT_BYTES)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing(errno.ENOSPC))
        with pytest.raises(OSError, match="No space left") as caught:
            file.write(aligned_buffer(MIN_DIRECT_BYTES))
    assert caught.value.filename == str(tmp_path / "file")
    with pytest.raises(OSError, match="earlier write or sync failed"):
        file.write(b"x")
    file.close()


@pytest.mark.parametrize("by", ["sync", "close"])
def test_what_was_reserved_and_not_written_is_given_back(directory, tmp_path, by):
    file = directory.create("file", size_bytes=2 * MIN_DIRECT_BYTES)
    file.write(aligned_buffer(MIN_DIRECT_BYTES))
    file.write(b"tail")
    getattr(file, by)()
    assert (tmp_path / "file").stat().st_size == MIN_DIRECT_BYTES + 4
    file.close()


def test_space_that_cannot_be_reserved_is_an_error_that_leaves_nothing(directory, tmp_path):
    with pytest.raises(OSError, match=r"file") as caught:
        directory.create("file", size_bytes=1 << 62)
    assert caught.value.errno in (errno.EFBIG, errno.ENOSPC)
    assert caught.value.filename == str(tmp_path / "file")
    assert directory.names() == []


def answering(*codes):
    """A fallocate that fails with the codes in turn and then succeeds without doing anything."""
    left = list(codes)

    def fallocate(number, mode, offset, size_bytes):
        if not left:
            return 0
        ctypes.set_errno(left.pop(0))
        return -1

    return fallocate


def test_a_full_disk_is_known_when_space_is_reserved(directory, monkeypatch):
    monkeypatch.setattr(system_calls, "_fallocate", answering(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        directory.create("file", size_bytes=MIN_DIRECT_BYTES)
    assert directory.names() == []


@pytest.mark.parametrize("codes", [[errno.EOPNOTSUPP], [errno.ENOSYS], [errno.EINTR, errno.EINTR, errno.EOPNOTSUPP]])
def test_a_file_system_that_reserves_nothing_is_written_all_the_same(directory, monkeypatch, codes):
    monkeypatch.setattr(system_calls, "_fallocate", answering(*codes))
    put(directory, "file", pattern(MIN_DIRECT_BYTES))
    assert get(directory, "file") == pattern(MIN_DIRECT_BYTES)


def test_a_system_without_fallocate_is_written_all_the_same(directory, monkeypatch):
    monkeypatch.setattr(system_calls, "_fallocate", None)
    put(directory, "file", pattern(MIN_DIRECT_BYTES))
    assert get(directory, "file") == pattern(MIN_DIRECT_BYTES)
