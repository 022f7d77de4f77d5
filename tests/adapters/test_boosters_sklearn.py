"""The scikit-learn interfaces of XGBoost and LightGBM: cut short, gone on, and stored by their boosters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost

import ckptfmt
from ckptfmt.adapters import lightgbm as light
from ckptfmt.adapters import xgboost as extreme

INPUTS = np.random.default_rng(0).normal(size=(300, 5))
LABELS = (INPUTS.sum(1) > 0).astype(int)


def xgboost_model(trees: int, **options: Any) -> Any:
    return xgboost.XGBClassifier(n_estimators=trees, max_depth=3, n_jobs=1, random_state=1, **options)


def lightgbm_model(trees: int) -> Any:
    return lightgbm.LGBMClassifier(n_estimators=trees, num_leaves=7, n_jobs=1, random_state=1, deterministic=True, verbose=-1)


def test_a_classifier_of_xgboost_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path / "trees") as run:
        xgboost_model(12, callbacks=[extreme.checkpoint_callback(run, every=4)]).fit(INPUTS, LABELS)
    with ckptfmt.Run(tmp_path / "trees") as run:
        booster = extreme.resume(run)
        assert booster is not None
        done = booster.num_boosted_rounds()
        model = xgboost_model(20 - done, callbacks=[extreme.checkpoint_callback(run, every=4)])
        model.fit(INPUTS, LABELS, xgb_model=booster)
        assert (done, run.all_steps()) == (12, [4, 8, 12, 16, 20])
    undisturbed = xgboost_model(20).fit(INPUTS, LABELS)
    np.testing.assert_array_equal(model.predict_proba(INPUTS), undisturbed.predict_proba(INPUTS))
    state = extreme.booster_state(model)
    again = extreme.booster_from_state(state)
    np.testing.assert_array_equal(again.predict(xgboost.DMatrix(INPUTS)), model.predict_proba(INPUTS)[:, 1])


def test_a_classifier_of_lightgbm_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path / "trees") as run:
        lightgbm_model(12).fit(INPUTS, LABELS, callbacks=[light.checkpoint_callback(run, every=4)])
    with ckptfmt.Run(tmp_path / "trees") as run:
        booster = light.resume(run)
        assert booster is not None
        done = booster.current_iteration()
        model = lightgbm_model(20 - done)
        model.fit(INPUTS, LABELS, init_model=booster, callbacks=[light.checkpoint_callback(run, every=4)])
        assert (done, run.all_steps()) == (12, [4, 8, 12, 16, 20])
    undisturbed = lightgbm_model(20).fit(INPUTS, LABELS)
    np.testing.assert_allclose(model.predict_proba(INPUTS), undisturbed.predict_proba(INPUTS), rtol=1e-6)
    again = light.booster_from_state(light.booster_state(model))
    np.testing.assert_array_equal(again.predict(INPUTS), model.predict_proba(INPUTS)[:, 1])


@pytest.mark.parametrize("make", [xgboost_model, lightgbm_model])
def test_a_classifier_itself_is_refused_with_what_to_give(tmp_path: Path, make: Any) -> None:
    model = make(3).fit(INPUTS, LABELS)
    with pytest.raises(ckptfmt.UnsupportedTypeError, match="Give its booster, which is what predicts"):
        ckptfmt.save(tmp_path / "checkpoint", {"model": model})
