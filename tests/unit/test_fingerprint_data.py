"""Data counts by its content: files, directories, samples of large files, arrays."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import numpy
import pytest
import torch
from blake3 import blake3

from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.paths import join
from ckptfmt.errors import UnsupportedTypeError
from ckptfmt.run import fingerprint as fingerprint_module
from ckptfmt.run.data_digests import BLOCK_BYTES, SAMPLE_BLOCK_BYTES, SAMPLE_BLOCK_COUNT, DataHasher, SampledFile, field_names
from ckptfmt.run.fingerprint import Fingerprint, compare

LONG_AGO_NS = 1_700_000_000 * 10**9


@dataclass(frozen=True)
class Status:
    size_bytes: int
    modified_ns: int
    changed_ns: int
    inode: int


class TellingFile:
    """A file of the local disk that tells its status, and counts what is read of it."""

    def __init__(self, disk, inner, path):
        self._disk, self._inner, self._path = disk, inner, path
        self.size_bytes = inner.size_bytes

    def status(self):
        found = os.stat(self._path, follow_symlinks=False)
        # The time of the last change of an inode cannot be set, so tests take it from the other one.
        return Status(found.st_size, found.st_mtime_ns, found.st_mtime_ns + self._disk.shift_ns, found.st_ino)

    def read(self, offset_bytes, size_bytes):
        if not self._path.endswith("cache.json"):
            self._disk.read_paths.append(self._path)
        if self._disk.on_read is not None:
            self._disk.on_read(self._path)
        return self._inner.read(offset_bytes, size_bytes)

    def prefetch(self, offset_bytes, size_bytes):
        self._inner.prefetch(offset_bytes, size_bytes)

    def map_private(self):
        return self._inner.map_private()

    def close(self):
        self._inner.close()


class TellingDirectory:
    def __init__(self, disk, inner):
        self._disk, self._inner = disk, inner

    def open(self, name):
        return TellingFile(self._disk, self._inner.open(name), join(self._inner.path, name))

    def __getattr__(self, name):
        return getattr(self._inner, name)


class TellingDisk:
    """The local disk, also where it does not yet tell the status of files nor follow links."""

    def __init__(self):
        self._inner = LocalDisk()
        self.read_paths = []
        self.on_read = None
        self.shift_ns = 0

    def open_directory(self, path):
        return TellingDirectory(self, self._inner.open_directory(path))

    def real_path(self, path):
        return os.path.realpath(path, strict=True)

    def __getattr__(self, name):
        return getattr(self._inner, name)


@pytest.fixture
def disk(monkeypatch):
    telling = TellingDisk()
    monkeypatch.setattr(fingerprint_module, "_DISK", telling)
    return telling


def write(path: Path, content: bytes, *, modified_ns: int = LONG_AGO_NS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(modified_ns, modified_ns))
    return path


def data_of(data, **options):
    made = Fingerprint(data=data, code=False, environment=False, **options)
    return {name: field.text for name, field in made.fields.items()}


def b3(data: bytes) -> str:
    return f"blake3:{blake3(data).hexdigest()}"


def test_a_file_counts_by_its_content_under_its_name(tmp_path):
    path = write(tmp_path / "train.csv", b"a,b\n1,2\n")
    expected = {"data.train.csv": f"file {b3(path.read_bytes())}"}
    for data in ([path], [str(path)], path, str(path), iter([path, str(path)]), [f"{tmp_path}/./train.csv"]):
        assert data_of(data) == expected
    assert data_of({"train.csv": path}) == expected


def test_a_file_of_many_blocks_has_the_digest_of_its_whole_content(tmp_path):
    content = os.urandom(2 * BLOCK_BYTES + 5)
    assert data_of([write(tmp_path / "x", content)]) == {"data.x": f"file {b3(content)}"}
    assert data_of([write(tmp_path / "y", b"")]) == {"data.y": f"file {b3(b'')}"}


def test_the_order_of_data_does_not_matter(tmp_path):
    paths = [write(tmp_path / name, name.encode()) for name in "abc"]
    assert Fingerprint(data=paths, code=False).digest == Fingerprint(data=paths[::-1], code=False).digest


def test_files_of_one_name_are_told_apart_by_as_much_as_needed(tmp_path):
    assert field_names(["x/a/t.csv", "x/b/t.csv", "u.csv"]) == ["a/t.csv", "b/t.csv", "u.csv"]
    assert field_names(["x/a/t", "y/a/t", "y/b/t"]) == ["x/a/t", "y/a/t", "b/t"]
    assert field_names(["t", "a/t"]) == ["t", "a/t"]
    assert field_names(["a/t", "/a/t"]) == ["a/t", "/a/t"]
    paths = [write(tmp_path / name / "train.csv", name.encode()) for name in ("left", "right")]
    assert set(data_of(paths)) == {"data.left/train.csv", "data.right/train.csv"}


def test_names_are_escaped_but_for_their_dots(tmp_path):
    assert set(data_of([write(tmp_path / "a[1] 100%.tar.gz", b"")])) == {"data.a%5B1%5D 100%25.tar.gz"}


def test_a_directory_counts_by_the_names_and_contents_below_it(tmp_path):
    for top in ("one", "two"):
        names = ["b.txt", "a/z", "a.txt", "ä/x"]
        for name in names if top == "one" else names[::-1]:
            write(tmp_path / top / name, name.encode())
    (tmp_path / "two" / "empty").mkdir()
    entries = sorted((name.encode(), blake3(name.encode()).digest()) for name in names)
    expected = b3(b"".join(len(name).to_bytes(8, "little") + name + digest for name, digest in entries))
    assert data_of([tmp_path / "one"]) == {"data.one": f"directory {expected}"}
    assert data_of([f"{tmp_path}/two/"]) == {"data.two": f"directory {expected}"}
    (tmp_path / "two/b.txt").rename(tmp_path / "two/c.txt")
    assert data_of([tmp_path / "two"]) != {"data.two": f"directory {expected}"}


def test_a_sample_is_the_size_and_sixteen_blocks_and_never_equals_the_whole(tmp_path, disk):
    content = bytearray(os.urandom(1000)) * 17_000
    path = write(tmp_path / "big", bytes(content))
    last = len(content) - SAMPLE_BLOCK_BYTES
    starts = [number * last // (SAMPLE_BLOCK_COUNT - 1) for number in range(SAMPLE_BLOCK_COUNT)]
    blocks = b"".join(content[start : start + SAMPLE_BLOCK_BYTES] for start in starts)
    expected = {"data.big": f"sampled-file {b3(len(content).to_bytes(8, 'little') + blocks)}"}
    assert data_of([SampledFile(path)]) == expected
    assert data_of([path], data_mode="sampled") == expected
    assert data_of({"big": SampledFile(str(path))}) == expected
    assert data_of([path]) == {"data.big": f"file {b3(content)}"}
    for place in (0, last + SAMPLE_BLOCK_BYTES - 1, starts[7] + 3):
        changed = bytearray(content)
        changed[place] ^= 1
        assert data_of([SampledFile(write(tmp_path / "big", changed))]) != expected


def test_a_sample_of_a_small_file_or_directory_is_all_of_it(tmp_path):
    path = write(tmp_path / "d" / "small", b"abc")
    digest = blake3((3).to_bytes(8, "little") + b"abc")
    assert data_of([path], data_mode="sampled") == {"data.small": f"sampled-file blake3:{digest.hexdigest()}"}
    directory = b3((5).to_bytes(8, "little") + b"small" + digest.digest())
    assert data_of([tmp_path / "d"], data_mode="sampled") == {"data.d": f"sampled-directory {directory}"}


@pytest.mark.parametrize("name", ["gone.csv", "no/such/directory.csv", "file/below"])
def test_a_missing_file_is_an_error_that_names_it(tmp_path, name):
    write(tmp_path / "file", b"")
    with pytest.raises(FileNotFoundError, match="data of the fingerprint is not there") as caught:
        data_of([tmp_path / name])
    assert caught.value.filename == str(tmp_path / name)


def test_what_is_neither_file_nor_directory_is_refused_by_name(tmp_path, disk):
    os.mkfifo(tmp_path / "pipe")
    for data in ([tmp_path / "pipe"], [tmp_path]):
        with pytest.raises(OSError, match="neither a file nor a directory") as caught:
            data_of(data)
        assert caught.value.filename == str(tmp_path / "pipe")


def test_links_are_followed(tmp_path, disk):
    write(tmp_path / "real" / "a", b"1")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "a")
    (tmp_path / "real" / "b").symlink_to("a")
    (tmp_path / "top").symlink_to("real")
    write(tmp_path / "plain" / "a", b"1")
    write(tmp_path / "plain" / "b", b"1")
    assert data_of([tmp_path / "link"]) == {"data.link": f"file {b3(b'1')}"}
    digest = data_of([tmp_path / "plain"])["data.plain"]
    assert data_of([tmp_path / "real"]) == {"data.real": digest}
    assert data_of([tmp_path / "top"]) == {"data.top": digest}
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer" / "inner").symlink_to(tmp_path / "plain")
    write(tmp_path / "copy" / "inner" / "a", b"1")
    write(tmp_path / "copy" / "inner" / "b", b"1")
    assert data_of([tmp_path / "outer"])["data.outer"] == data_of([tmp_path / "copy"])["data.copy"]


def test_links_that_lead_nowhere_or_upwards_are_refused_by_name(tmp_path, disk):
    write(tmp_path / "up" / "a", b"1")
    (tmp_path / "up" / "loop").symlink_to(tmp_path / "up")
    with pytest.raises(OSError, match="a link to a directory above it") as caught:
        data_of([tmp_path / "up"])
    assert caught.value.errno == errno.ELOOP
    (tmp_path / "dangling").symlink_to("nothing")
    with pytest.raises(FileNotFoundError, match="a link that leads nowhere") as missing:
        data_of([tmp_path / "dangling"])
    assert missing.value.filename == str(tmp_path / "dangling")


def test_a_disk_in_memory_will_do():
    disk = MemoryDisk()
    disk.make_directory("/d")
    file = disk.open_directory("/d").create("a", size_bytes=1)
    file.write(b"1")
    file.close()
    hasher = DataHasher(disk)
    assert hasher.digest_path("/d/a", is_sampled=False) == ("file", b3(b"1"))
    assert hasher.digest_path("/d", is_sampled=False)[0] == "directory"
    with pytest.raises(FileNotFoundError, match="is not there"):
        hasher.digest_path("/d/b", is_sampled=False)


def test_arrays_and_tensors_are_given_with_a_name():
    array = numpy.arange(3, dtype=numpy.int64)
    assert data_of({"x.y": array, "t": torch.from_numpy(array)}) == {
        "data.x.y": f"array int64[3] {b3(array.tobytes())}",
        "data.t": f"tensor int64[3] {b3(array.tobytes())}",
    }
    with pytest.raises(UnsupportedTypeError, match="Give arrays and tensors with a name"):
        data_of([array])
    with pytest.raises(UnsupportedTypeError, match="Plain data belongs into config") as caught:
        data_of({"x": [1, 2]})
    assert caught.value.path == "data.x"
    with pytest.raises(UnsupportedTypeError, match="Python objects"):
        data_of({"x": numpy.array([None])})


def test_one_path_both_whole_and_sampled_is_refused(tmp_path):
    path = write(tmp_path / "x", b"1")
    with pytest.raises(ValueError, match="both as it is and as a SampledFile"):
        data_of([path, SampledFile(path)])


def test_progress_is_told_block_by_block(tmp_path):
    path = write(tmp_path / "x", bytes(BLOCK_BYTES + 1))
    told = []
    data_of([path], progress=lambda *arguments: told.append(arguments))
    assert told == [(str(path), BLOCK_BYTES, BLOCK_BYTES + 1), (str(path), BLOCK_BYTES + 1, BLOCK_BYTES + 1)]


def test_a_changed_file_differs_under_its_name(tmp_path):
    path = write(tmp_path / "train.csv", b"1")
    stored = Fingerprint(data=[path], code=False)
    write(path, b"2")
    (difference,) = compare(stored.to_document(), Fingerprint(data=[path], code=False))
    assert (difference.field, difference.severity) == ("data.train.csv", "error")
    assert (difference.expected, difference.found) == (b3(b"1"), b3(b"2"))


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, disk):
    path = write(tmp_path / "x", b"1")
    disk.on_read = lambda name: write(Path(name), b"2", modified_ns=LONG_AGO_NS + 1)
    with pytest.raises(OSError, match="changes while it is read") as caught:
        data_of([path])
    assert caught.value.filename == str(path)


def test_a_file_that_shrinks_while_it_is_read_is_refused_by_every_disk(tmp_path):
    path = write(tmp_path / "x", bytes(2 * BLOCK_BYTES))
    with pytest.raises(OSError, match="changes while it is read"):
        data_of([path], progress=lambda *_: os.truncate(path, 1))
