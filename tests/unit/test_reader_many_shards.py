"""A checkpoint of more shards than a process may have files open: every way to read it works, and damage is found as in any other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conformance.vector_kit import Ref, Shard, Slot, Tensor, build

SHARDS = 150
LIMIT = 90

CHILD = """
import resource, sys
limit, path = int(sys.argv[1]), sys.argv[2]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
import ckptfmt

{body}
print("done")
"""

EVERY_WAY = """
import warnings
import numpy as np, torch, torch.distributed.checkpoint
from ckptfmt.adapters.torch_distributed import StorageReader

warnings.filterwarnings("ignore", message="torch.distributed is")
cut, wholes = np.arange(150 * 4, dtype="<i4").reshape(150, 4), [np.full(3, number, "<i4") for number in range(150)]

def check(state):
    assert np.array_equal(state["cut"], cut)
    assert all(np.array_equal(state["whole"][str(number)], wholes[number]) for number in range(150))

loaded = [ckptfmt.load(path) for _ in range(3)]
for state in loaded:
    check(state["model"])
check(ckptfmt.load(path, verify=False)["model"])
with ckptfmt.open_checkpoint(path) as checkpoint:
    assert np.array_equal(checkpoint.get_slice("model.cut")[7:9], cut[7:9])
    assert np.array_equal(checkpoint.get_tensor("model.whole.149"), wholes[149])
assert ckptfmt.verify(path).findings == ()
assert ckptfmt.is_complete(path)
assert ckptfmt.diff(path, path).same
state = {"model": {"cut": torch.zeros(150, 4, dtype=torch.int32), "whole": {"77": torch.zeros(3, dtype=torch.int32)}}}
torch.distributed.checkpoint.load(state, storage_reader=StorageReader(path), no_dist=True)
assert np.array_equal(state["model"]["cut"].numpy(), cut) and state["model"]["whole"]["77"].tolist() == [77] * 3
"""


def many_shards(path: Path) -> Path:
    """A checkpoint with a tensor that is cut over all shards, and a whole one in each."""
    cut = np.arange(SHARDS * 4, dtype="<i4").reshape(SHARDS, 4)
    tensors = [Tensor("model.cut", "int32", cut.shape, cut.tobytes(), [[number, 0, [number, 0], [1, 4]] for number in range(SHARDS)])]
    shards = []
    for number in range(SHARDS):
        whole = np.full(3, number, "<i4")
        tensors.append(Tensor(f"model.whole.{number}", "int32", whole.shape, whole.tobytes(), [[number, 1]]))
        slots = [Slot(f"cut@{number},0", "I32", (1, 4), cut[number].tobytes()), Slot(f"whole.{number}", "I32", (3,), whole.tobytes())]
        shards.append(Shard("model", slots, number=number + 1))
    tree = {"model": {"cut": Ref(0, "torch"), "whole": {str(number): Ref(number + 1, "torch") for number in range(SHARDS)}}}
    path.mkdir()
    for name, data in build(tree, tensors, shards).items():
        (path / name).write_bytes(data)
    return path


def run_child(body: str, path: Path) -> str:
    command = [sys.executable, "-c", CHILD.replace("{body}", body), str(LIMIT), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_way_to_read_works_with_fewer_open_files_than_shards(tmp_path: Path) -> None:
    assert run_child(EVERY_WAY, many_shards(tmp_path / "c")) == "done\n"


@pytest.mark.parametrize("tensor", [0, 1], ids=["part", "whole"])
def test_damage_in_one_of_very_many_shards_is_found_and_named(tmp_path: Path, tensor: int) -> None:
    path = many_shards(tmp_path / "c")
    victim = sorted(path.glob("*.safetensors"))[100]
    data = bytearray(victim.read_bytes())
    data[-1 if tensor else -20] ^= 1
    victim.chmod(0o644)
    victim.write_bytes(data)
    body = f"""
try:
    ckptfmt.load(path)
    raise SystemExit("loaded")
except ckptfmt.CorruptError as error:
    assert error.rule == "E040" and {victim.name!r} in str(error), error
(finding,) = ckptfmt.verify(path).findings
assert finding.rule == "E040" and finding.path.endswith({victim.name!r})
"""
    assert run_child(body, path) == "done\n"


def test_a_shard_that_vanishes_after_opening_is_reported_as_missing(tmp_path: Path) -> None:
    path = many_shards(tmp_path / "c")
    body = """
import os
with ckptfmt.open_checkpoint(path) as checkpoint:
    name = sorted(name for name in os.listdir(path) if name.endswith(".safetensors"))[0]
    os.unlink(f"{path}/{name}")
    try:
        checkpoint.load(only="model.whole.0")
        raise SystemExit("loaded")
    except ckptfmt.CorruptError as error:
        assert error.rule == "E012" and name in str(error), error
"""
    assert run_child(body, path) == "done\n"
