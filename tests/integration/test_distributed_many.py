"""The same with more ranks: saved by four, loaded by one, two, three, eight and by a process without ranks; saved in the background."""

from __future__ import annotations

from pathlib import Path

import pytest

import ckptfmt
from benchmarks import distributed
from tests.integration import sharded_states
from tests.integration.ranks import Ranks

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("how", ["exact", "default", "thread", "process"])
def test_what_four_ranks_save_is_loaded_by_any_number(tmp_path: Path, how: str) -> None:
    path = tmp_path / "c"
    with Ranks(4, tmp_path) as ranks:
        assert ranks.run(sharded_states.save, str(path), 3, how) == [[], [], [], []]
    assert ckptfmt.verify(path).findings == ()
    for count in (1, 2, 3, 8):
        (directory := tmp_path / f"of {count}").mkdir()
        with Ranks(count, directory) as ranks:
            assert ranks.run(sharded_states.load_what_is_there, str(path), how != "exact") == [[]] * count


@pytest.mark.parametrize("kind", ["hsdp", "tensor parallel", "ddp"])
def test_every_way_to_spread_a_model_over_four_ranks_is_saved_and_loaded(tmp_path: Path, kind: str) -> None:
    with Ranks(4, tmp_path) as ranks:
        assert ranks.run(sharded_states.save, str(tmp_path / "c"), 2, "exact", kind) == [[], [], [], []]
        assert ranks.run(sharded_states.load, str(tmp_path / "c"), 2, kind) == [[], [], [], []]
    assert ckptfmt.verify(tmp_path / "c").findings == ()


def test_the_benchmark_measures_every_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--ranks", "2", "--megabytes", "24", "--tensors", "50", "--repeats", "1", "--scratch", str(tmp_path)]
    assert distributed.main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.count("times as fast as DCP") == 6
    assert "process, stall" in printed
    assert not list(tmp_path.iterdir())
