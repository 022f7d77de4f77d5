"""One tensor of a large compressed checkpoint is read without the others: no more than its own bytes, those it is made from, and 1 MB."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="asks /proc what was read")]
TENSORS, ROWS = 32, 8 * 2**10
SLACK_BYTES = 2**20
# What a system reads beyond what it is asked for, of a file or a map: some windows of 8 MB.
READ_AHEAD_BYTES = 32 * 2**20


def weights(number: int, step: int) -> Any:
    random = np.random.default_rng(number)
    values = random.standard_normal((ROWS, 1024), dtype="f4")
    return values if not step else values * (1 + np.float32(1e-5) * random.standard_normal((ROWS, 1024), dtype="f4"))


def read_bytes() -> tuple[int, int]:
    """Return what this process has asked the system for, and what that has read from the device for it, maps included."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["rchar"]), int(counts["read_bytes"])


def forget(path: Path) -> None:
    """Let the system forget what it has cached of a checkpoint."""
    for file in path.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def stored_bytes(path: Path, name: str) -> int:
    with ckptfmt.open_checkpoint(path) as checkpoint:
        chunk = next(row for row in checkpoint.metadata.tensors if row.name == name).chunks[0]
        decoder = checkpoint.store.decoder
        return sum(decoder.stored_size_bytes(place) for place in decoder.chain((chunk.shard, chunk.slot)))


def check(path: Path, number: int, step: int) -> None:
    name = f"model.w{number:02d}"
    expected, own_bytes = weights(number, step), stored_bytes(path, name)
    for read in (lambda found: found.get_tensor(name), lambda found: found.get_slice(name)[17:19]):
        forget(path)
        before = read_bytes()
        with ckptfmt.open_checkpoint(path) as checkpoint:
            value = read(checkpoint)
        asked, device = (after - earlier for after, earlier in zip(read_bytes(), before, strict=True))
        print(f"{name} of step {step}: {own_bytes:,} stored, {asked:,} asked for, {device:,} read from the device")
        assert np.array_equal(value, expected if len(value) == ROWS else expected[17:19])
        assert asked <= own_bytes + SLACK_BYTES
        assert device <= own_bytes + SLACK_BYTES + READ_AHEAD_BYTES


def test_one_tensor_of_a_compressed_gigabyte_is_read_alone(tmp_path: Path) -> None:
    for step in (0, 1):
        state = {"model": {f"w{number:02d}": weights(number, step) for number in range(TENSORS if step == 0 else 4)}}
        ckptfmt.save(tmp_path / "run" / f"step-{step:08d}", state, step=step)
    report = ckptfmt.compress_run(tmp_path / "run", keep_last=0)
    assert report.steps[0].before_bytes > 2**30
    first, second = tmp_path / "run" / "step-00000000", tmp_path / "run" / "step-00000001"
    # Once unmeasured: the first time reads the library too.
    assert np.array_equal(ckptfmt.load(second)["model"]["w00"], weights(0, 1))
    with ckptfmt.open_checkpoint(first) as checkpoint:
        checkpoint.get_tensor("model.w01")
    check(first, 0, 0)
    check(first, TENSORS // 2, 0)
    check(first, TENSORS - 1, 0)
    check(second, 3, 1)
