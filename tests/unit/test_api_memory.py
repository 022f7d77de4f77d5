"""How much memory saving and loading take, measured in a process of their own: no copy of the state is made."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20
STATE_MIB = 300

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs the memory accounts of Linux")

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
    before, private = memory("VmRSS"), memory("RssAnon")
    value = action()
    return {"peak": memory("VmHWM") - before, "private": memory("RssAnon") - private}, value

def state(parts):
    return {"model": {str(part): torch.full((300 * 2**18 // parts,), float(part)) for part in range(parts)}}

path = sys.argv[1]
ckptfmt.save(path + "/warm", {"t": torch.ones(10)})
ckptfmt.load(path + "/warm")
found = {}
for name, parts in (("whole", 1), ("parts", 50)):
    original = state(parts)
    found[f"save {name}"], info = peak_of(lambda: ckptfmt.save(f"{path}/{name}", original, max_shard_size="64MiB"))
    if name == "parts":
        original["model"]["0"] += 1
        found["save base"], _ = peak_of(lambda: ckptfmt.save(f"{path}/base", original, base=info, max_shard_size="64MiB"))
        strided = {"model": torch.zeros(8, 300 * 2**15).t()}
        found["save strided"], _ = peak_of(lambda: ckptfmt.save(f"{path}/strided", strided))
        del strided
    del original
    found[f"load {name}"], loaded = peak_of(lambda: ckptfmt.load(f"{path}/{name}"))
    assert loaded["model"]["0"][5] == 0
    del loaded
    for file in Path(f"{path}/{name}").iterdir():
        file.read_bytes()
    found[f"load {name} cached"], loaded = peak_of(lambda: ckptfmt.load(f"{path}/{name}"))
    del loaded
    found[f"verify {name}"], report = peak_of(lambda: ckptfmt.verify(f"{path}/{name}"))
    assert report.ok
with ckptfmt.open_checkpoint(f"{path}/parts") as checkpoint:
    found["one tensor"], tensor = peak_of(lambda: checkpoint.get_tensor("model.7"))
    found["tree"], _ = peak_of(lambda: checkpoint.tree())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    path = tmp_path_factory.mktemp("memory")
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(path)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.mark.parametrize("what", ["save whole", "save parts", "save base", "save strided"])
def test_saving_needs_little_besides_the_state(measured, what):
    assert measured[what]["peak"] < 128 * MIB


@pytest.mark.parametrize("what", ["load whole", "load parts"])
def test_loading_makes_no_copy(measured, what):
    assert measured[f"{what} cached"]["private"] < 16 * MIB
    for found in (measured[what], measured[f"{what} cached"]):
        assert found["peak"] < (STATE_MIB + 32) * MIB


@pytest.mark.parametrize("what", ["verify whole", "verify parts"])
def test_verifying_keeps_nothing(measured, what):
    assert measured[what]["private"] < 16 * MIB


def test_one_tensor_is_read_alone(measured):
    assert measured["one tensor"]["peak"] < 32 * MIB
    assert measured["tree"]["peak"] < 4 * MIB
