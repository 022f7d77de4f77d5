"""What the application says is unchanged is not hashed; a slip of the pen costs time and never a byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt
from ckptfmt.checkpoint import source_digests
from ckptfmt.format.digest import digest_of, digests_of

SIZE = 256 * 1024


def state_of(backbone: Any, head: int) -> dict[str, Any]:
    return {"model": {"backbone": backbone, "head": np.full(1000, head)}}


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what is hashed to be compared with the base."""
    sizes: list[int] = []

    def counting(source: Any) -> bytes:
        sizes.append(source.size_bytes)
        return digest_of(source.memory())

    def counting_small(data: memoryview, found: list[int]) -> bytes:
        sizes.extend(found)
        return digests_of(data, found)

    monkeypatch.setattr(source_digests, "digest_source", counting)
    monkeypatch.setattr(source_digests, "digests_of", counting_small)
    return sizes


@pytest.fixture
def backbone() -> Any:
    return np.random.default_rng(0).integers(0, 255, size=SIZE).astype("u1")


def test_a_frozen_tensor_is_taken_from_the_base_without_hashing_it(tmp_path: Path, backbone: Any, hashed: list[int]) -> None:
    base = ckptfmt.save(tmp_path / "a", state_of(backbone, 0))
    info = ckptfmt.save(tmp_path / "b", state_of(backbone, 1), base=base, frozen="model.backbone")
    assert hashed == [8000]
    assert info.unique_bytes < SIZE
    loaded = ckptfmt.load(tmp_path / "b")["model"]
    np.testing.assert_array_equal(loaded["backbone"], backbone)
    assert loaded["head"][0] == 1
    assert ckptfmt.verify(tmp_path / "b").ok


@pytest.mark.parametrize("place", [0, SIZE // 2, SIZE - 1], ids=["first byte", "middle byte", "last byte"])
def test_a_tensor_that_is_trained_after_all_is_stored(tmp_path: Path, backbone: Any, hashed: list[int], place: int) -> None:
    base = ckptfmt.save(tmp_path / "a", state_of(backbone, 0))
    trained = backbone.copy()
    trained[place] ^= 1
    ckptfmt.save(tmp_path / "b", state_of(trained, 0), base=base, frozen=["model.back*"])
    assert SIZE in hashed
    np.testing.assert_array_equal(ckptfmt.load(tmp_path / "b")["model"]["backbone"], trained)


def test_a_frozen_tensor_of_another_shape_or_not_in_the_base_is_stored(tmp_path: Path, backbone: Any) -> None:
    base = ckptfmt.save(tmp_path / "a", state_of(backbone, 0))
    reshaped = {"model": {"backbone": backbone.reshape(2, -1), "new": backbone[::-1].copy()}}
    ckptfmt.save(tmp_path / "b", reshaped, base=base, frozen="model.*")
    loaded = ckptfmt.load(tmp_path / "b")["model"]
    np.testing.assert_array_equal(loaded["backbone"], reshaped["model"]["backbone"], strict=True)
    np.testing.assert_array_equal(loaded["new"], reshaped["model"]["new"], strict=True)


def test_a_frozen_tensor_whose_base_has_lost_its_shard_is_stored(tmp_path: Path, backbone: Any) -> None:
    base = ckptfmt.save(tmp_path / "a", state_of(backbone, 0))
    (shard,) = (tmp_path / "a").glob("model-*")
    shard.unlink()
    ckptfmt.save(tmp_path / "b", state_of(backbone, 0), base=base, frozen="model.*")
    np.testing.assert_array_equal(ckptfmt.load(tmp_path / "b")["model"]["backbone"], backbone)


def test_small_and_strided_frozen_tensors_are_hashed(tmp_path: Path, backbone: Any) -> None:
    strided = backbone.reshape(-1, 2)[:, 0]
    state = {"model": {"strided": strided, "small": np.arange(10), "large": backbone}}
    base = ckptfmt.save(tmp_path / "a", state)
    ckptfmt.save(tmp_path / "b", state, base=base, frozen=("model.*",))
    assert ckptfmt.verify(tmp_path / "b").ok
    np.testing.assert_array_equal(ckptfmt.load(tmp_path / "b")["model"]["strided"], strided)


@pytest.mark.parametrize("with_base", [False, True], ids=["without a base", "with a base"])
def test_a_glob_that_matches_nothing_is_refused_and_nothing_is_written(tmp_path: Path, backbone: Any, with_base: bool) -> None:
    base = ckptfmt.save(tmp_path / "a", state_of(backbone, 0)) if with_base else None
    with pytest.raises(ckptfmt.NameNotFoundError, match=r"frozen: bakbone matches none of 2 tensors\nThere are model.backbone, "):
        ckptfmt.save(tmp_path / "b", state_of(backbone, 1), base=base, frozen="bakbone")
    assert not (tmp_path / "b").exists() or not ckptfmt.is_complete(tmp_path / "b")


def test_run_takes_frozen_tensors_from_its_previous_checkpoint(tmp_path: Path, backbone: Any, hashed: list[int]) -> None:
    with ckptfmt.Run(tmp_path / "run") as run:
        for step in range(3):
            run.save(step, state_of(backbone, step), frozen="model.backbone")
        run.async_save(3, state_of(backbone, 3), frozen="model.backbone").result()
        assert SIZE not in hashed
        assert run.checkpoint(3).unique_bytes < SIZE
        restored = run.restore()
    assert restored is not None
    np.testing.assert_array_equal(restored.state["model"]["backbone"], backbone)
