"""torch.distributed.checkpoint saves into and loads from our format: two ranks, everything that a sharded state may hold."""

from __future__ import annotations

from pathlib import Path

import pytest

import ckptfmt
from ckptfmt.adapters.torch_distributed import from_dcp, to_dcp
from tests.integration import sharded_states, sharded_work
from tests.integration.ranks import Ranks


def check_saved(path: Path) -> None:
    """Check a checkpoint as anybody would who knows nothing of ranks."""
    assert ckptfmt.verify(path).findings == ()
    assert ckptfmt.is_complete(path)
    assert not [name for name in path.iterdir() if name.name.startswith(".")]


@pytest.mark.parametrize("how", ["exact", "default", "thread"])
def test_what_ranks_save_is_loaded_by_ranks_and_by_a_plain_process(ranks: Ranks, tmp_path: Path, how: str) -> None:
    path = tmp_path / "c"
    assert ranks.run(sharded_states.save, str(path), 3, how) == [[], []]
    check_saved(path)
    if how != "thread":
        assert ranks.run(sharded_states.load, str(path), 3) == [[], []]


@pytest.mark.parametrize("kind", ["tensor parallel", "ddp"])
def test_other_ways_to_spread_a_model_are_saved_and_loaded(ranks: Ranks, tmp_path: Path, kind: str) -> None:
    assert ranks.run(sharded_states.save, str(tmp_path / "c"), 2, "exact", kind) == [[], []]
    assert ranks.run(sharded_states.load, str(tmp_path / "c"), 2, kind) == [[], []]


def test_a_checkpoint_of_one_process_is_loaded_into_a_sharded_state(ranks: Ranks, tmp_path: Path) -> None:
    ranks.run(sharded_states.save, str(tmp_path / "c"), 3)
    ckptfmt.save(tmp_path / "plain", ckptfmt.load(tmp_path / "c"))
    assert ranks.run(sharded_states.load, str(tmp_path / "plain"), 3) == [[], []]


def test_a_compressed_checkpoint_is_loaded_by_ranks(ranks: Ranks, tmp_path: Path) -> None:
    ranks.run(sharded_states.save, str(tmp_path / "c"), 3)
    ckptfmt.compress(tmp_path / "c")
    assert ranks.run(sharded_states.load, str(tmp_path / "c"), 3) == [[], []]


def test_a_directory_that_ranks_wrote_with_dcp_is_converted(ranks: Ranks, tmp_path: Path) -> None:
    ranks.run(sharded_work.save_with_dcp, str(tmp_path / "dcp"), 3)
    from_dcp(tmp_path / "dcp", tmp_path / "c")
    check_saved(tmp_path / "c")
    assert ranks.run(sharded_states.load, str(tmp_path / "c"), 3) == [[], []]
    to_dcp(tmp_path / "c", tmp_path / "back")
    assert ranks.run(sharded_work.load_with_dcp, str(tmp_path / "back"), 3) == [[], []]


def test_a_rank_that_fails_fails_all_and_leaves_what_was_there(ranks: Ranks, tmp_path: Path) -> None:
    path = tmp_path / "c"
    ranks.run(sharded_states.save, str(path), 1)
    before = sorted(path.iterdir())
    for is_good, text in ranks.outcomes(sharded_work.save_with_a_value_that_cannot_be_stored, str(path)):
        assert not is_good
        assert "UnsupportedTypeError" in text
        assert "values of type" in text
        assert "broken" in text
    assert sorted(path.iterdir()) == before
    assert ranks.run(sharded_states.save, str(path), 2, "exact", "fsdp", {"overwrite": True}) == [[], []]
    check_saved(path)


def test_an_existing_checkpoint_is_refused_on_every_rank(ranks: Ranks, tmp_path: Path) -> None:
    ranks.run(sharded_states.save, str(tmp_path / "c"), 1)
    for is_good, text in ranks.outcomes(sharded_states.save, str(tmp_path / "c"), 2):
        assert not is_good
        assert "CheckpointExistsError" in text
    assert ckptfmt.load(tmp_path / "c", only="epoch") == {"epoch": 1}


def test_what_is_unchanged_is_linked_rank_by_rank(ranks: Ranks, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    ranks.run(sharded_states.save, str(first), 1)
    assert ranks.run(sharded_states.save, str(second), 1, "exact", "fsdp", {"base": str(first)}) == [[], []]
    shared = [file.name for file in second.glob("*.safetensors") if file.stat().st_nlink > 1]
    assert len(shared) == len(list(second.glob("*.safetensors")))
    check_saved(second)


def test_ranks_with_different_parts_of_a_state_make_one_tree(ranks: Ranks, tmp_path: Path) -> None:
    path = str(tmp_path / "c")
    ranks.run(sharded_work.save_stages, path)
    state = ckptfmt.load(path)
    assert [state["layers"][number].tolist() for number in (0, 1)] == [[0.0] * 3, [1.0] * 3]
    assert state["common"] == {"epoch": 4}
    assert list(state["optimizer"][0]) == ["of 0"]
    assert list(state["optimizer"][1]) == ["of 1"]
    check_saved(Path(path))


def test_loading_runs_no_code_and_opens_nothing_but_the_checkpoint(ranks: Ranks, tmp_path: Path) -> None:
    ranks.run(sharded_states.save, str(tmp_path / "c"), 3, "default")
    assert ranks.run(sharded_work.load_under_audit, str(tmp_path / "c"), 3) == [[], []]


def test_damage_is_noticed_by_all_before_a_tensor_of_the_application_changes(ranks: Ranks, tmp_path: Path) -> None:
    path = tmp_path / "c"
    ranks.run(sharded_states.save, str(path), 3)
    sizes = {file: file.stat().st_size for file in path.glob("model-*.safetensors")}
    victim = max(sizes, key=lambda file: sizes[file])
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.chmod(0o644)
    victim.write_bytes(data)
    assert ranks.run(sharded_work.load_damaged, str(path)) == ["E040 unchanged"] * 2


def test_what_a_rank_tells_depends_on_its_own_chunks_only(ranks: Ranks, tmp_path: Path) -> None:
    (small, _), (large, _) = (ranks.run(sharded_work.told_bytes, str(tmp_path / f"{count}"), count) for count in (100, 200))
    assert large - small < 100 * 60
