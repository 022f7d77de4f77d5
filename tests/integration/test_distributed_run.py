"""`DistributedRun`: a run on two ranks: saving, restoring into live objects, retention, failures that all ranks see."""

from __future__ import annotations

from pathlib import Path

import ckptfmt
from tests.integration import run_work
from tests.integration.ranks import Ranks


def test_training_goes_on_from_where_it_was_as_if_nothing_had_happened(ranks: Ranks, tmp_path: Path) -> None:
    straight = ranks.run(run_work.train, str(tmp_path / "straight"), 6)
    ranks.run(run_work.train, str(tmp_path / "run"), 3)
    assert ranks.run(run_work.train, str(tmp_path / "run"), 6) == straight
    with ckptfmt.Run(tmp_path / "run") as run:
        assert run.all_steps() == [4, 5]
        assert [row["loss"] for row in run.history()] == straight[0][0]
        restored = run.restore()
        assert restored is not None
        assert restored.state["note"] == {"epoch": 5}
        assert all(ckptfmt.verify(run.checkpoint(step)).findings == () for step in run.all_steps())


def test_what_is_wrong_on_one_rank_is_raised_on_all_and_the_run_goes_on(ranks: Ranks, tmp_path: Path) -> None:
    found = ranks.run(run_work.fail_and_go_on, str(tmp_path / "run"))
    assert found[0] == found[1]
    assert found[0] == ["UnsupportedTypeError", "CheckpointExistsError", "RuntimeError: no state here", "CheckpointNotFoundError", [1, 2]]
    assert not list((tmp_path / "run").glob("step-*/.*"))


def test_a_damaged_step_is_passed_over_by_all(ranks: Ranks, tmp_path: Path) -> None:
    ranks.run(run_work.train, str(tmp_path / "run"), 3)
    victim = sorted((tmp_path / "run" / "step-00000002").glob("model-*"))[-1]
    victim.chmod(0o644)
    victim.write_bytes(victim.read_bytes()[:-1] + b"\xff")
    assert ranks.run(run_work.restored_step, str(tmp_path / "run")) == [(1, [2]), (1, [2])]


def test_a_second_run_in_one_directory_is_refused_on_all_ranks(ranks: Ranks, tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path / "run") as run:
        run.save(1, {"epoch": 1})
        for is_good, text in ranks.outcomes(run_work.save_twice, str(tmp_path / "run")):
            assert not is_good
            assert "RunLockedError" in text


def test_unchanged_parts_are_shared_from_step_to_step(ranks: Ranks, tmp_path: Path) -> None:
    first, second = ranks.run(run_work.save_twice, str(tmp_path / "run"))[0]
    assert first > 80_000
    assert second < 20_000


def test_a_run_of_a_single_process_needs_no_group(tmp_path: Path) -> None:
    assert run_work.train(0, str(tmp_path / "run"), 2)[0]
    assert run_work.restored_step(0, str(tmp_path / "run")) == (1, [])
