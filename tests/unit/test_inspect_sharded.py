"""ckpt-inspect on what several ranks have saved: its chunks are shown, and it becomes files that other programs read, and back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file

import ckptfmt
from ckpt_inspect.main import main
from tests.conformance.vector_kit import Ref, Shard, Slot, Tensor, build

RANKS = 4


def sharded(path: Path, count: int, shape: tuple[int, int]) -> Path:
    """A checkpoint of so many tensors, each cut along its rows over four shards."""
    rows = shape[0] // RANKS
    slots: list[list[Slot]] = [[] for _ in range(RANKS)]
    tensors = []
    for number in range(count):
        array = full(number, shape)
        for rank in range(RANKS):
            part = array[rank * rows : (rank + 1) * rows]
            slots[rank].append(Slot(f"w{number}@{rank * rows},0", "F32", part.shape, part.tobytes()))
        chunks = [[rank, number, [rank * rows, 0], [rows, shape[1]]] for rank in range(RANKS)]
        tensors.append(Tensor(f"model.w{number}", "float32", shape, array.tobytes(), chunks))
    shards = [Shard("model", part, number=number + 1) for number, part in enumerate(slots)]
    path.mkdir()
    for name, data in build({"model": {f"w{number}": Ref(number, "torch") for number in range(count)}}, tensors, shards).items():
        (path / name).write_bytes(data)
    return path


def full(number: int, shape: tuple[int, int]) -> np.ndarray:
    return (np.arange(shape[0] * shape[1], dtype="<f4") % 1000 + number).reshape(shape)


def test_chunks_are_shown_with_their_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    path = str(sharded(tmp_path / "c", 2, (8, 3)))
    assert main([path]) == 0
    assert "2 with 48 elements, 192 B; 2 of them in 8 chunks" in capsys.readouterr().out
    assert main([path, "--tensors"]) == 0
    assert "model.w1  float32  [8, 3]  96 B  4x1 chunks" in capsys.readouterr().out
    assert main([path, "--chunks", "--filter", "*w1"]) == 0
    lines = [line.rpartition("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "model.w1"
    assert lines[2:] == [f"  [{2 * rank}, 0]  [2, 3]  24 B  model-0000{rank + 1}" for rank in range(RANKS)]
    assert main([path, "--chunks", "--filter", "*w0", "--json"]) == 0
    (tensor,) = json.loads(capsys.readouterr().out)["tensors"]
    assert [(chunk["offset"], chunk["shape"], chunk["key"]) for chunk in tensor["chunks"]] == [
        ([2 * rank, 0], [2, 3], f"w0@{2 * rank},0") for rank in range(RANKS)
    ]
    assert main([path, "--chunks", "--stats"]) == 2


def test_very_many_chunks_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    array = np.arange(30, dtype="<i4")
    slots = [Slot(f"t@{number}", "I32", (1,), array[number : number + 1].tobytes()) for number in range(30)]
    row = Tensor("model.t", "int32", (30,), array.tobytes(), [[0, number, [number], [1]] for number in range(30)])
    (tmp_path / "c").mkdir()
    for name, data in build({"model": {"t": Ref(0, "numpy")}}, [row], [Shard("model", slots)]).items():
        (tmp_path / "c" / name).write_bytes(data)
    assert main([str(tmp_path / "c"), "--chunks"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "  ... and 18 more (-v shows all)"
    assert main([str(tmp_path / "c"), "--chunks", "-v"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 32


CHILD = """
import sys
from pathlib import Path
import torch  # noqa: F401 - its memory is no part of the conversion
import ckpt_inspect.conversions.choosing
from ckpt_inspect.main import main

def memory(field):
    return next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))

source, target = sys.argv[1:]
for options in ([f"{target}/one.safetensors"], [f"{target}/hf", "--to", "huggingface", "--max-shard-size", "30MB"], [f"{target}/one.npz"]):
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    assert main(["convert", source, *options, "-q"]) == 0
    print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs the memory accounts of Linux")
def test_a_sharded_checkpoint_becomes_whole_files_with_one_tensor_in_memory(tmp_path: Path) -> None:
    count, shape = 8, (1024, 3072)
    path = sharded(tmp_path / "c", count, shape)
    done = subprocess.run([sys.executable, "-c", CHILD, str(path), str(tmp_path)], capture_output=True, text=True, check=True)
    grown = list(map(int, done.stdout.split()))
    assert len(grown) == 3
    assert max(grown) < 2 * shape[0] * shape[1] * 4
    for files in ([tmp_path / "one.safetensors"], sorted((tmp_path / "hf").glob("*.safetensors"))):
        found = {name: tensor for file in files for name, tensor in load_file(file).items()}
        assert len(found) == count
        assert all(np.array_equal(found[f"w{number}"].numpy(), full(number, shape)) for number in (0, 3, count - 1))


@pytest.mark.filterwarnings("ignore:torch.distributed is")
def test_directories_of_dcp_are_converted_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = sharded(tmp_path / "c", 2, (8, 3))
    assert main(["convert", str(path), str(tmp_path / "dcp"), "--to", "dcp"]) == 0
    target = {"model": {"w0": torch.zeros(8, 3), "w1": torch.zeros(8, 3)}}
    dcp.load(target, storage_reader=dcp.FileSystemReader(tmp_path / "dcp"), no_dist=True)
    assert np.array_equal(target["model"]["w1"].numpy(), full(1, (8, 3)))
    assert main(["convert", str(path), str(tmp_path / "dcp"), "--to", "dcp"]) == 2
    assert main(["convert", str(path), str(tmp_path / "dcp"), "--to", "dcp", "--overwrite"]) == 2
    capsys.readouterr()
    assert main(["convert", str(tmp_path / "dcp"), str(tmp_path / "back")]) == 0
    assert "2 tensors" in capsys.readouterr().out
    assert np.array_equal(ckptfmt.load(tmp_path / "back")["model"]["w0"].numpy(), full(0, (8, 3)))
    assert ckptfmt.verify(tmp_path / "back").findings == ()
    assert main(["convert", str(tmp_path / "dcp"), str(tmp_path / "x.npz")]) == 2
    assert "a directory of torch.distributed.checkpoint cannot be converted" in capsys.readouterr().err


def test_a_sharded_checkpoint_of_a_store_is_verified_shown_and_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import fsspec

    path = sharded(tmp_path / "c", 2, (8, 3))
    store = fsspec.filesystem("memory")
    for file in path.iterdir():
        store.pipe(f"/bucket/sharded/{file.name}", file.read_bytes())
    url = "memory://bucket/sharded"
    assert main(["verify", url]) == 0
    assert main(["inspect", url, "--chunks", "--filter", "*w1"]) == 0
    assert "[6, 0]  [2, 3]  24 B  model-00004" in capsys.readouterr().out
    assert main(["convert", url, str(tmp_path / "one.safetensors")]) == 0
    assert np.array_equal(load_file(tmp_path / "one.safetensors")["w1"].numpy(), full(1, (8, 3)))
    assert main(["convert", str(path), "memory://bucket/x.safetensors"]) == 2
    assert "this machine" in capsys.readouterr().err
    store.rm("/bucket", recursive=True)
