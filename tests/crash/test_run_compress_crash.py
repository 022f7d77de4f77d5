"""P3 for whole runs that are compressed, decompressed and cleaned up: in every state that a kill or a power cut may leave, each step that
was not to go is what was saved, and doing it again ends it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from ckptfmt.checkpoint.publishing import SaveOptions
from ckptfmt.checkpoint.reader import OpenCheckpoint
from ckptfmt.checkpoint.staging import Staging
from ckptfmt.checkpoint.verify import verify_checkpoint
from ckptfmt.checkpoint.writer import write_checkpoint
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.memory_store import Tree
from ckptfmt.disk.recording import RecordingDisk
from ckptfmt.run.cleaning import clean_up
from ckptfmt.run.compressing import Order, compress_in_order, compress_run_on, decompress_run_on
from ckptfmt.run.retention import Policy
from ckptfmt.run.steps import StepDirectory
from ckptfmt.state.tree import encode_state
from tests.crash.crash_states import CrashState, iter_states

STEPS = (0, 1, 2)
OPTIONS = SaveOptions(None, {}, None, overwrite=False, base=None, max_shard_size_bytes=2**30, durable=True)


def weights(step: int) -> Any:
    noise = np.random.default_rng(0).standard_normal(1500).astype("f4")
    return noise + np.float32(1e-4 * step) * np.random.default_rng(step).standard_normal(1500).astype("f4")


def compress(disk: Any) -> None:
    compress_run_on(disk, "/run", keep_last=0)


def compress_behind(disk: Any) -> None:
    for _ in compress_in_order(disk, Order("/run", ((0, None), (1, 0)), reserve_bytes=0)):
        """Done one after the other."""


def decompress(disk: Any) -> None:
    decompress_run_on(disk, "/run", on_step=lambda _: None)


def remove_bases(disk: Any) -> None:
    clean_up(StepDirectory(disk, "/run"), Policy(keep_last=1), dry_run=False)


Job = Callable[[Any], None]
JOBS: dict[str, tuple[Job, str]] = {
    "compress": (compress, "plain"),
    "compress_behind": (compress_behind, "plain"),
    "decompress": (decompress, "compressed"),
    "remove_bases": (remove_bases, "compressed"),
}


@pytest.fixture(scope="module")
def trees() -> dict[str, Tree]:
    disk = MemoryDisk()
    disk.make_directory("/run")
    for step in STEPS:
        write_checkpoint(disk, f"/run/step-{step:08d}", encode_state({"model": {"w": weights(step)}, "step": step}), OPTIONS)
    trees = {"plain": disk.tree()}
    compress(disk)
    return {**trees, "compressed": disk.tree()}


def check_steps(disk: MemoryDisk, *, may_lack: set[int]) -> None:
    found = set()
    for step in STEPS:
        path = f"/run/step-{step:08d}"
        try:
            with closing(disk.open_directory(path)) as directory:
                if "manifest.json" not in directory.names():
                    continue
        except FileNotFoundError:
            continue
        assert verify_checkpoint(disk, path).ok, f"step {step} looks like a checkpoint and is none"
        with OpenCheckpoint(disk, path) as checkpoint:
            state = checkpoint.load()
        assert state["step"] == step
        assert np.array_equal(state["model"]["w"], weights(step)), f"step {step} is another state"
        found.add(step)
    assert found >= set(STEPS) - may_lack, f"only {found} is left"


def check(state: CrashState, name: str) -> None:
    may_lack = {0, 1} if name == "remove_bases" else set()
    check_steps(state.disk, may_lack=may_lack)
    JOBS[name][0](state.disk)
    check_steps(state.disk, may_lack=may_lack)


def check_job(name: str, trees: dict[str, Tree], *, weak: bool, limit: int, seed: int = 0) -> None:
    job, before = JOBS[name]
    disk = RecordingDisk(MemoryDisk(trees[before]))
    job(disk)
    for state in iter_states(disk.records, trees[before], weak=weak, limit=limit, seed=seed):
        try:
            check(state, name)
        except Exception as error:
            raise AssertionError(f"{state.description}: {type(error).__name__}: {error}") from error


@pytest.mark.parametrize("weak", [False, True], ids=["ordered", "weak"])
@pytest.mark.parametrize("name", JOBS)
def test_every_crash_leaves_every_step_and_can_be_gone_on_with(name: str, weak: bool, trees: dict[str, Tree]) -> None:
    check_job(name, trees, weak=weak, limit=50)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", JOBS)
def test_no_crash_in_a_large_sample_loses_a_step(name: str, seed: int, trees: dict[str, Tree]) -> None:
    check_job(name, trees, weak=bool(seed % 2), limit=400, seed=seed)


def test_names_that_are_not_durable_before_the_manifest_would_be_noticed(trees: dict[str, Tree], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Staging, "_sync_directory", lambda staging: None)
    with pytest.raises(AssertionError, match="looks like a checkpoint"):
        check_job("compress", trees, weak=True, limit=200)
