"""Reading compressed checkpoints: what is asked for is read and decoded, and little else, with bounded memory. Spec 11, 12."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ckptfmt.checkpoint.encoding import compress_checkpoint
from ckptfmt.checkpoint.reader import OpenCheckpoint
from ckptfmt.checkpoint.saving import check_options
from ckptfmt.checkpoint.writer import write_checkpoint
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.format.byte_planes import PlanesStream
from ckptfmt.state.tree import encode_state

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20
ROWS, COLUMNS = 3_000, 500


class CountedFile:
    """A file whose reads are counted; it cannot be mapped."""

    def __init__(self, file, reads):
        self._file = file
        self._reads = reads

    def __getattr__(self, name):
        assert name != "map_private", "an encoded tensor is read, not mapped"
        return getattr(self._file, name)

    def read(self, offset_bytes, size_bytes):
        self._reads.append((offset_bytes, size_bytes))
        return self._file.read(offset_bytes, size_bytes)

    def read_into(self, offset_bytes, target):
        self._reads.append((offset_bytes, len(target)))
        return self._file.read_into(offset_bytes, target)


class CountedDisk:
    """A disk that counts what is read of shards."""

    def __init__(self, disk):
        self._disk = disk
        self.reads = []

    def open_directory(self, path):
        directory, reads = self._disk.open_directory(path), self.reads

        class Directory:
            def __getattr__(self, name):
                return getattr(directory, name)

            def open(self, name):
                file = directory.open(name)
                return CountedFile(file, reads) if name.endswith(".safetensors") else file

        return Directory()

    @property
    def read_bytes(self):
        return sum(size for _, size in self.reads)


def make_state():
    generator = np.random.default_rng(0)
    tensors = {f"w{index}": (generator.standard_normal((ROWS, COLUMNS)) * 0.02).astype("<f4") for index in range(3)}
    return {"master": tensors, "half": {"w1": tensors["w1"].astype("<f2")}, "copy": {"w2": tensors["w2"].copy()}}


@pytest.fixture(scope="module")
def state():
    return make_state()


@pytest.fixture(scope="module")
def compressed(state):
    disk = MemoryDisk()
    write_checkpoint(disk, "c", encode_state(state), check_options())
    assert compress_checkpoint(disk, "c", level=3).is_changed
    return disk


@pytest.fixture
def decoded(monkeypatch):
    """The blocks that are decoded."""
    blocks = []
    decode_block = PlanesStream.decode_block

    def count(self, block, data, out, source):
        blocks.append(block)
        decode_block(self, block, data, out, source)

    monkeypatch.setattr(PlanesStream, "decode_block", count)
    return blocks


def stored_bytes(checkpoint, name):
    row = next(row for row in checkpoint.metadata.tensors if row.name == name)
    return checkpoint.metadata.shards[row.chunks[0].shard].sizes[row.chunks[0].slot]


@pytest.mark.parametrize(("name", "own"), [("master.w0", "master.w0"), ("half.w1", "master.w1"), ("copy.w2", "master.w2")])
def test_one_tensor_reads_its_own_bytes_and_little_else(compressed, state, name, own):
    disk = CountedDisk(compressed)
    with OpenCheckpoint(disk, "c") as checkpoint:
        section, key = name.split(".")
        assert np.array_equal(checkpoint.get_tensor(name), state[section][key])
        source = own if stored_bytes(checkpoint, own) else f"copy.{own[-2:]}"
        assert stored_bytes(checkpoint, source) <= disk.read_bytes < stored_bytes(checkpoint, source) + MIB


@pytest.mark.parametrize("name", ["master.w0", "half.w1", "copy.w2"])
@pytest.mark.parametrize("index", [slice(1_500, 1_510), 7, -1, (slice(40, 45), slice(3, None, 2)), slice(2_990, 5_000)], ids=str)
def test_a_slice_decodes_only_its_blocks(compressed, state, decoded, name, index):
    section, key = name.split(".")
    with OpenCheckpoint(compressed, "c") as checkpoint:
        assert np.array_equal(checkpoint.get_slice(name)[index], state[section][key][index])
    assert 0 < len(decoded) <= 2


def test_a_slice_that_is_not_to_be_verified_reads_only_its_blocks(compressed, state):
    disk = CountedDisk(compressed)
    with OpenCheckpoint(disk, "c", verify=False) as checkpoint:
        assert np.array_equal(checkpoint.get_slice("master.w0")[100:102], state["master"]["w0"][100:102])
        assert disk.read_bytes < stored_bytes(checkpoint, "master.w0") / 4


def test_a_slice_is_verified_once(compressed, state):
    disk = CountedDisk(compressed)
    with OpenCheckpoint(disk, "c") as checkpoint:
        part = checkpoint.get_slice("master.w0")
        for row in range(0, ROWS, 300):
            assert np.array_equal(part[row], state["master"]["w0"][row])
        assert disk.read_bytes < 6 * stored_bytes(checkpoint, "master.w0")


@pytest.mark.parametrize("index", [slice(0, 0), slice(5, 2), (Ellipsis, 3), None, [1, 2], slice(10, 2, -3), (), np.int64(3)], ids=str)
def test_any_index_gives_what_it_gives_of_the_whole(compressed, state, index):
    with OpenCheckpoint(compressed, "c") as checkpoint:
        assert np.array_equal(checkpoint.get_slice("master.w0")[index], state["master"]["w0"][index])


def test_an_index_beyond_the_end_is_an_error(compressed):
    with OpenCheckpoint(compressed, "c") as checkpoint, pytest.raises(IndexError):
        checkpoint.get_slice("master.w0")[ROWS]


def test_a_part_of_a_state_decodes_only_its_own_tensors(compressed, state, decoded):
    with OpenCheckpoint(compressed, "c") as checkpoint:
        loaded = checkpoint.load(only="master.w0")
    assert np.array_equal(loaded["master"]["w0"], state["master"]["w0"])
    assert len(decoded) == -(-ROWS // (2**17 // COLUMNS))


def test_a_whole_load_decodes_each_block_once(compressed, state, decoded):
    with OpenCheckpoint(compressed, "c") as checkpoint:
        loaded = checkpoint.load()
    for section, tensors in state.items():
        for name, tensor in tensors.items():
            assert np.array_equal(loaded[section][name], tensor)
    assert len(decoded) == 3 * -(-ROWS // (2**17 // COLUMNS))


def test_what_is_loaded_is_independent_and_writable(compressed):
    with OpenCheckpoint(compressed, "c") as checkpoint:
        loaded = checkpoint.load()
        loaded["master"]["w2"][:] = 0
        assert loaded["copy"]["w2"].any()
        again = checkpoint.load()
    assert again["master"]["w2"].any()


PROGRAM = """
import json, sys
from pathlib import Path
import torch
import ckptfmt

def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))

def peak_of(action):
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    value = action()
    return memory("VmHWM") - before, value

def state(parts):
    return {str(part): torch.randn(60 * 2**18 // parts) for part in range(parts)}

path = sys.argv[1]
small = {"t": torch.randn(9_000)}
ckptfmt.save(path + "/warm", {**small, "h": {"t": small["t"].bfloat16()}})
ckptfmt.compress(path + "/warm")
ckptfmt.load(path + "/warm")
found = {}
for name, parts in (("whole", 1), ("parts", 40)):
    model = state(parts)
    ckptfmt.save(f"{path}/{name}", {"model": model, "half": {key: tensor.bfloat16() for key, tensor in model.items()}})
    report = ckptfmt.compress(f"{path}/{name}")
    assert report.sections["half"][1] < 10_000
    del model
    found[f"load {name}"], loaded = peak_of(lambda: ckptfmt.load(f"{path}/{name}"))
    del loaded
    found[f"verify {name}"], report = peak_of(lambda: ckptfmt.verify(f"{path}/{name}"))
    assert report.ok
    found[f"half {name}"], loaded = peak_of(lambda: ckptfmt.load(f"{path}/{name}", only="half"))
    del loaded
    found[f"decompress {name}"], report = peak_of(lambda: ckptfmt.decompress(f"{path}/{name}"))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(tmp_path_factory.mktemp("memory"))]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs the memory accounts of Linux")
@pytest.mark.parametrize("parts", ["whole", "parts"])
@pytest.mark.parametrize(("what", "result_mib"), [("load", 90), ("verify", 0), ("half", 30)])
def test_memory_is_what_is_wanted_and_a_few_buffers(measured, what, parts, result_mib):
    assert measured[f"{what} {parts}"] < (result_mib + 96) * MIB
