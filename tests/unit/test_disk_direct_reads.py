"""Reading past the page cache: when a file counts as cold, what refuses direct reads, and who may do them."""

import errno
import os

import pytest

from ckptfmt.disk import direct_reads, local_files, system_calls
from ckptfmt.disk.aligned import ALIGNMENT_BYTES, aligned_buffer, aligned_range, offer_back, scratch_buffer
from ckptfmt.disk.direct_reads import MIN_DIRECT_READ_BYTES
from ckptfmt.disk.local import LocalDisk

SIZE_BYTES = 2 * MIN_DIRECT_READ_BYTES + 1000
CONTENT = (bytes(range(251)) * (SIZE_BYTES // 251 + 1))[:SIZE_BYTES]


@pytest.fixture
def disk():
    return LocalDisk()


@pytest.fixture
def directory(disk, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    opened = disk.open_directory(str(tmp_path))
    yield opened
    opened.close()


@pytest.fixture
def cold(directory, tmp_path):
    """Take the file out of the page cache; skip where that, or direct I/O, is not possible."""
    drop(tmp_path / "file")
    reader = directory.open("file")
    is_cold = reader.is_cold(0, SIZE_BYTES)
    reader.close()
    if not is_cold:
        pytest.skip("no direct I/O here, or nothing leaves the page cache")


def drop(path):
    number = os.open(path, os.O_RDONLY)
    os.fsync(number)
    os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(number)


def test_a_large_range_outside_of_the_cache_is_cold_until_something_caches_it(directory, cold):
    reader = directory.open("file")
    assert reader.is_cold(0, SIZE_BYTES)
    assert reader.is_cold(1, MIN_DIRECT_READ_BYTES)
    assert not reader.is_cold(0, MIN_DIRECT_READ_BYTES - 1)
    assert not reader.is_cold(SIZE_BYTES - MIN_DIRECT_READ_BYTES, MIN_DIRECT_READ_BYTES + 1)
    target = aligned_buffer(sum(aligned_range(0, SIZE_BYTES)))
    assert reader.read_into(0, target) == SIZE_BYTES
    assert target[:SIZE_BYTES] == CONTENT
    assert reader.is_cold(0, SIZE_BYTES)
    assert reader.read(0, SIZE_BYTES) == CONTENT
    assert not reader.is_cold(0, SIZE_BYTES)
    reader.close()


def test_only_one_reader_at_a_time_goes_past_the_cache(directory, cold):
    first, second = directory.open("file"), directory.open("file")
    assert first.is_cold(0, SIZE_BYTES)
    assert not second.is_cold(0, SIZE_BYTES)
    first.close()
    assert not second.is_cold(0, SIZE_BYTES)
    second.close()
    third = directory.open("file")
    assert third.is_cold(0, SIZE_BYTES)
    third.close()


@pytest.mark.parametrize("offset", [0, 1, 512, 4096, 4097, SIZE_BYTES - 1, SIZE_BYTES, SIZE_BYTES + 5000])
@pytest.mark.parametrize("size_bytes", [0, 1, 4095, 4096, 12_288, 12_289])
@pytest.mark.parametrize("shift", [0, 1])
def test_ranges_of_any_alignment_are_read(directory, monkeypatch, offset, size_bytes, shift):
    monkeypatch.setattr(local_files, "MIN_DIRECT_READ_BYTES", 0)
    reader = directory.open("file")
    reader.is_cold(0, SIZE_BYTES)
    target = aligned_buffer(size_bytes + shift)[shift:]
    expected = CONTENT[offset : offset + size_bytes]
    assert reader.read_into(offset, target) == len(expected)
    assert target[: len(expected)] == expected
    reader.close()


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_refused_direct_read_goes_through_the_cache_and_is_not_tried_again(directory, cold, monkeypatch, code):
    real_preadv, refused = os.preadv, []
    reader = directory.open("file")
    assert reader.is_cold(0, SIZE_BYTES)
    direct = reader._direct._descriptor.number

    def preadv(number, buffers, offset):
        if number == direct:
            refused.append(offset)
            raise OSError(code, os.strerror(code))
        return real_preadv(number, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    target = aligned_buffer(8192)
    assert [reader.read_into(at, target) for at in (0, 8192)] == [8192, 8192]
    assert (target, refused) == (CONTENT[8192:16_384], [0])
    assert not reader.is_cold(0, SIZE_BYTES)
    reader.close()
    other = directory.open("file")
    assert other._on_direct_refused is None
    assert not other.is_cold(0, SIZE_BYTES)
    other.close()


def test_an_error_of_the_device_names_the_file(directory, cold, monkeypatch, tmp_path):
    reader = directory.open("file")
    assert reader.is_cold(0, SIZE_BYTES)

    def fail(*arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(OSError, match="Input/output") as caught:
        reader.read_into(0, aligned_buffer(ALIGNMENT_BYTES))
    assert caught.value.filename == str(tmp_path / "file")
    reader.close()


@pytest.mark.parametrize("lacking", ["_mincore", "reopen_direct", "lock_alone"])
def test_a_system_that_lacks_a_part_maps_everything(directory, monkeypatch, tmp_path, lacking):
    drop(tmp_path / "file")
    monkeypatch.setattr(system_calls, "_mincore", None) if lacking == "_mincore" else monkeypatch.setattr(
        direct_reads, lacking, lambda number: None
    )
    reader = directory.open("file")
    assert not reader.is_cold(0, SIZE_BYTES)
    assert reader.read_into(0, memoryview(bytearray(10))) == 10
    reader.close()


def test_a_file_that_became_shorter_is_not_asked_about(directory, tmp_path):
    reader = directory.open("file")
    os.truncate(tmp_path / "file", 10)
    assert not reader.is_cold(0, SIZE_BYTES)
    target = memoryview(bytearray(100))
    assert reader.read_into(0, target) == 10
    reader.close()


@pytest.mark.parametrize(
    ("begin", "end", "expected"), [(0, 0, (0, 0)), (1, 2, (0, 4096)), (4096, 8192, (4096, 8192)), (4097, 8193, (4096, 12_288))]
)
def test_whole_pages_around_a_range(begin, end, expected):
    assert aligned_range(begin, end) == expected


@pytest.mark.parametrize("size_bytes", [0, 1, 2**21 - 1, 2**21, 2**21 + 1, 5 * 2**21 + 4096])
def test_a_scratch_buffer_is_of_its_size_and_survives_being_offered_back(size_bytes):
    buffer = scratch_buffer(size_bytes)
    assert (len(buffer), buffer.readonly) == (size_bytes, False)
    offer_back(buffer)
    buffer[:] = b"x" * size_bytes
    assert bytes(buffer) == b"x" * size_bytes


def test_a_scratch_buffer_is_empty_in_a_forked_child():
    buffer, plain = scratch_buffer(8192), aligned_buffer(8192)
    buffer[:], plain[:] = b"x" * 8192, b"x" * 8192
    child = os.fork()
    if child == 0:
        os._exit((1 if any(buffer) else 0) + (0 if bytes(plain) == b"x" * 8192 else 2))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert bytes(buffer) == b"x" * 8192
