"""The second copy under every crash: at any moment a fresh machine goes on from it, and nothing half looks like a checkpoint.

Each step on the way to that is left out or moved once, to see that the loss would be noticed.
"""

from __future__ import annotations

import importlib

import pytest

import ckptfmt
from tests.crash.checkpoint_product import Edit, private_copy
from tests.crash.mirror_jobs import ALL_JOBS, check_job
from tests.crash.mirror_mutants import MUTANTS, Mutant
from tests.crash.test_checkpoint_mutants import changed_lines, step_lines


@pytest.mark.parametrize("weak", [False, True], ids=["ordered", "weak"])
@pytest.mark.parametrize("name", ALL_JOBS)
def test_every_crash_leaves_a_mirror_from_which_a_fresh_machine_goes_on(name: str, weak: bool) -> None:
    check_job(name, weak=weak, limit=12)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", ALL_JOBS)
def test_no_crash_in_a_large_sample_leaves_less(name: str, seed: int) -> None:
    check_job(name, weak=bool(seed % 2), limit=400, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_step_that_is_left_out_is_noticed(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    with private_copy((mutant.edit,), "ckptfmt.run."):
        for name, module in (("Run", "run"), ("Fingerprint", "fingerprint")):
            monkeypatch.setattr(ckptfmt, name, getattr(importlib.import_module(f"ckptfmt.run.{module}"), name))
        with pytest.raises(AssertionError):
            check_job(mutant.job, weak=True, limit=600)


@pytest.mark.parametrize("module", ["ckptfmt.run.mirror_copy"])
def test_every_sync_and_rename_of_the_mirror_has_a_mutant(module: str) -> None:
    source = Edit(module, "", "").path.read_text("utf-8")
    covered = {line for mutant in MUTANTS if mutant.edit.module == module for line in changed_lines(mutant.edit, source)}
    missing = [source.splitlines()[line - 1].strip() for line in step_lines(source) if line not in covered]
    assert step_lines(source)
    assert not missing
