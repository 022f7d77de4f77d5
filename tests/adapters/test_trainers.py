"""Adapters of trainers and estimators with the real libraries: what is damaged is passed over, what is older still loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import ckptfmt
from ckptfmt.adapters.sklearn import estimator_from_state, estimator_state
from ckptfmt.adapters.transformers import last_valid
from ckptfmt.checkpoint.seal import SEAL_NAME, seal_directory
from tests.adapters.test_trainers_killed import ROOT, run


@pytest.mark.parametrize("way", ["sealed", "ckptfmt"])
def test_a_damaged_newest_checkpoint_of_a_trainer_is_passed_over(tmp_path: Path, way: str) -> None:
    run("transformers", tmp_path, way)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-12", "checkpoint-9"]
    assert last_valid(tmp_path) == str(tmp_path / "checkpoint-12")
    weights = next((tmp_path / "checkpoint-12").glob("model*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(data)
    with pytest.warns(RuntimeWarning, match=r"(?s)digest differs.*\ncheckpoint-12 is passed over"):
        assert last_valid(tmp_path) == str(tmp_path / "checkpoint-9")


def test_a_trainers_checkpoint_through_ckptfmt_holds_no_pickle_and_converts_to_hugging_face(tmp_path: Path) -> None:
    from transformers import GPT2LMHeadModel

    from ckpt_inspect.main import main

    run("transformers", tmp_path / "run", "ckptfmt")
    source = tmp_path / "run" / "checkpoint-12"
    assert {path.suffix for path in source.iterdir()} == {".json", ".safetensors", ".zst"}
    assert ckptfmt.verify(source).ok
    assert main(["convert", str(source), str(tmp_path / "hf"), "--to", "huggingface"]) == 0
    model = GPT2LMHeadModel.from_pretrained(tmp_path / "hf")
    saved = ckptfmt.load(source, only="model")["model"]
    assert all(torch.equal(saved[name], tensor) for name, tensor in model.state_dict().items())


def test_a_sealed_checkpoint_without_its_seal_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "x").write_bytes(b"1")
    (tmp_path / "checkpoint-20").mkdir()
    seal_directory(tmp_path / "checkpoint-3")
    with pytest.warns(RuntimeWarning, match=f"not sealed: no {SEAL_NAME}\ncheckpoint-20 is passed over"):
        assert last_valid(tmp_path) == str(tmp_path / "checkpoint-3")


@pytest.mark.parametrize("way", ["sync", "async"])
def test_lightning_modules_come_back_from_their_checkpoints(tmp_path: Path, way: str) -> None:
    from ckptfmt.adapters.lightning import load_from_checkpoint
    from tests.adapters.programs.lightning_program import Model

    run("lightning", tmp_path, 2, way)
    assert sorted(os.listdir(tmp_path)) == ["epoch=0.ckpt", "epoch=1.ckpt", "last.ckpt"]
    model = load_from_checkpoint(Model, tmp_path / "last.ckpt", rate=0.5)
    assert (model.hparams.width, model.hparams.rate) == (8, 0.5)
    saved = ckptfmt.load(tmp_path / "last.ckpt")["state_dict"]
    assert all(torch.equal(saved[name], tensor) for name, tensor in model.state_dict().items())


def test_an_older_lightning_file_still_loads_and_nothing_of_it_is_run(tmp_path: Path) -> None:
    import lightning

    from ckptfmt.adapters.lightning import load_checkpoint
    from tests.adapters.programs.lightning_program import Model

    trainer = lightning.Trainer(max_epochs=0, logger=False, enable_checkpointing=True, accelerator="cpu", enable_progress_bar=False)
    trainer.strategy.connect(Model(width=3))
    trainer.save_checkpoint(tmp_path / "old.ckpt")
    found = load_checkpoint(tmp_path / "old.ckpt")
    assert found["hyper_parameters"] == {"width": 3, "rate": 0.1}
    assert found["state_dict"]["layers.0.weight"].shape == (3, 4)


def test_an_older_checkpoint_stays_when_the_newer_one_could_not_be_saved(tmp_path: Path) -> None:
    from ckptfmt.adapters.lightning import checkpoint_io

    plugin = checkpoint_io(asynchronous=True)
    plugin.save_checkpoint({"state_dict": {"w": torch.ones(2)}, "global_step": 1}, tmp_path / "a.ckpt")
    (tmp_path / "file").write_text("in the way")
    plugin.save_checkpoint({"state_dict": {"w": torch.ones(2)}, "global_step": 2}, tmp_path / "file" / "b.ckpt")

    def remove_and_wait() -> None:
        plugin.remove_checkpoint(tmp_path / "a.ckpt")
        plugin.teardown()

    with pytest.warns(RuntimeWarning, match=r"a\.ckpt: stays"), pytest.raises(OSError, match="file"):
        remove_and_wait()
    assert ckptfmt.load(tmp_path / "a.ckpt")["global_step"] == 1


def test_estimators_of_scikit_learn_come_back_and_go_on_identically(tmp_path: Path) -> None:
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(200, 4)), rng.integers(0, 2, 200)
    one = SGDClassifier(random_state=np.random.RandomState(3))
    one.partial_fit(features[:100], labels[:100], classes=[0, 1])
    pipeline = make_pipeline(StandardScaler(), SGDClassifier(random_state=0)).fit(features, labels)
    ckptfmt.save(tmp_path / "c", {"classifier": estimator_state(one), "pipeline": estimator_state(pipeline)})
    state = ckptfmt.load(tmp_path / "c")
    two = estimator_from_state(state["classifier"])
    for classifier in (one, two):
        classifier.partial_fit(features[100:], labels[100:])
    np.testing.assert_array_equal(one.coef_, two.coef_)
    np.testing.assert_array_equal(estimator_from_state(state["pipeline"]).predict(features), pipeline.predict(features))


def test_an_estimator_with_untrusted_types_is_refused_until_they_are_named() -> None:
    from sklearn.ensemble import RandomForestClassifier

    fitted = RandomForestClassifier(n_estimators=2, random_state=0).fit([[0.0], [1.0]], [0, 1])
    state = estimator_state(fitted)
    assert state["untrusted"] == ["sklearn.tree._tree.Tree"]
    with pytest.raises(ckptfmt.UnsupportedTypeError, match=r"not trusted by themselves: sklearn\.tree\._tree\.Tree"):
        estimator_from_state({**state, "untrusted": []})
    forest = estimator_from_state(state, trusted=["sklearn.tree._tree.Tree"])
    assert forest.predict([[1.0]]) == fitted.predict([[1.0]])


@pytest.mark.parametrize("adapter", ["lightning", "transformers", "accelerate", "ignite", "sklearn", "jax_trees"])
def test_importing_an_adapter_imports_no_framework(adapter: str) -> None:
    program = (
        f"import sys, ckptfmt.adapters.{adapter}; "
        "print([name for name in ('torch', 'numpy', 'lightning', 'transformers', 'accelerate', 'ignite', 'sklearn', 'skops', 'jax') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
