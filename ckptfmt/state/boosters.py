"""Boosters of XGBoost and LightGBM as plain data: the bytes of the model in the library's own format, and what that format leaves out.

A booster is asked for its bytes through its own methods, so that neither library is imported here. The bytes are an array, so that
they lie in a shard as any tensor does. Reading a model back is the library's affair: see `ckptfmt.adapters`.
"""

from __future__ import annotations

from typing import Any

from ckptfmt.state.encode_walk import EncodeWalk, Instead
from ckptfmt.state.places import Place

XGBOOST, LIGHTGBM = "xgboost", "lightgbm"
_BOOSTERS = {"xgboost.core.Booster": XGBOOST, "lightgbm.basic.Booster": LIGHTGBM}
WRAPPER_ADVICE = {
    XGBOOST: "Give its booster, which is what predicts: model.get_booster().",
    LIGHTGBM: "Give its booster, which is what predicts: model.booster_.",
}


def library_of(cls: type) -> str | None:
    """Return the library of a booster's class; None if it is no booster."""
    return _BOOSTERS.get(f"{cls.__module__}.{cls.__qualname__}")


def xgboost_state(booster: Any) -> dict[str, Any]:
    """Return a booster of XGBoost as a state: its model as UBJSON, and its parameters, which are no part of the model."""
    return {"library": XGBOOST, "model": _as_array(booster.save_raw("ubj")), "config": booster.save_config()}


def lightgbm_state(booster: Any) -> dict[str, Any]:
    """Return a booster of LightGBM as a state: its model as text, parameters included, and its best iteration, which is no part of it."""
    # Without num_iteration=-1 the trees after the best iteration would be left out.
    model = booster.model_to_string(num_iteration=-1).encode()
    scores = {name: dict(values) for name, values in booster.best_score.items()}
    return {"library": LIGHTGBM, "model": _as_array(model), "best_iteration": booster.best_iteration, "best_score": scores}


def encode_booster(walk: EncodeWalk, value: Any, place: Place) -> Instead:
    """Have a booster encoded as the state that it is made of."""
    del walk, place
    return Instead(xgboost_state(value) if library_of(type(value)) == XGBOOST else lightgbm_state(value))


def _as_array(data: bytes | bytearray) -> Any:
    import numpy

    return numpy.frombuffer(data, dtype=numpy.uint8)
