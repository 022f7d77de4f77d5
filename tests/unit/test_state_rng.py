"""The global generators, taken and restored together."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from ckptfmt.errors import CheckpointError
from ckptfmt.state.rng import rng_state, set_rng_state
from tests.unit.test_state_exactness import round_trip


def drawn() -> list[Any]:
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.normal(), torch.rand(3).tolist()]


def test_all_generators_continue_where_they_were_after_saving_and_loading() -> None:
    drawn()
    state = round_trip(rng_state())
    expected = drawn()
    drawn()
    assert set_rng_state(state) == []
    assert drawn() == expected


def test_only_imported_libraries_are_asked() -> None:
    program = (
        "import sys; from ckptfmt.state.rng import rng_state; print(sorted(rng_state()), 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['python'] False False"


@pytest.mark.parametrize(
    ("part", "state"),
    [
        ("torch.cuda", {"torch": {"cuda": [torch.zeros(16, dtype=torch.uint8)]}}),
        ("torch.mps", {"torch": {"mps": torch.zeros(44, dtype=torch.uint8)}}),
        ("torch.xpu", {"torch": {"xpu": 1}}),
        ("torch.cpu", {"torch": {"cpu": torch.zeros(3, dtype=torch.uint8)}}),
        ("torch.cpu", {"torch": {"cpu": [1, 2]}}),
        ("torch", {"torch": 5}),
        ("jax", {"jax": 1}),
        ("python", {"python": [3, [1], None]}),
        ("python", {"python": (3, (0,) * 624 + (625,), None)}),
        ("numpy", {"numpy": {}}),
        ("numpy", {"numpy": np.random.RandomState(np.random.PCG64(1)).get_state(legacy=False)}),
        ("numpy", {"numpy": {**np.random.get_state(legacy=False), "state": {"key": np.zeros(624, "u4"), "pos": 10**6}}}),
    ],
)
def test_part_that_cannot_be_restored_is_named_and_nothing_changes(part: str, state: dict[str, Any]) -> None:
    before = rng_state()
    good = {"python": random.Random(1).getstate()}
    with pytest.raises(CheckpointError, match=rf"random state of {part} cannot be restored"):
        set_rng_state({**good, **state})
    assert str(rng_state()) == str(before)
    assert set_rng_state({**rng_state(), **state}, strict=False) == [part]


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"numpy": np.random.get_state(legacy=False)}
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(CheckpointError, match="numpy is not installed"):
        set_rng_state(state)
    assert set_rng_state(state, strict=False) == ["numpy"]


def test_what_is_no_state_is_refused() -> None:
    with pytest.raises(CheckpointError, match="expected what rng_state"):
        set_rng_state([1])  # type: ignore[arg-type]
