"""`ckptfmt.diff`: what is reported of two checkpoints, and that equal tensors are not read."""

from __future__ import annotations

import argparse
import math
import os
from collections import OrderedDict, deque

import numpy as np
import pytest

import ckptfmt
from ckptfmt.errors import CorruptError


@pytest.fixture
def save(tmp_path):
    def save(name, state, **options):
        path = str(tmp_path / name)
        ckptfmt.save(path, state, durable=False, **options)
        return path

    return save


@pytest.fixture
def compared(save):
    def compared(before, after, **options):
        return ckptfmt.diff(save("before", before), save("after", after), **options)

    return compared


def paths(differences):
    return [difference.path for difference in differences]


STATE = {
    "model": {"w": np.arange(6.0).reshape(2, 3), "b": np.array([1.0, math.nan])},
    "optimizer": OrderedDict(lr=0.1, betas=(0.9, 0.999), history=deque([1, 2], maxlen=5)),
    "loss": math.nan,
    "args": argparse.Namespace(name="x", depth=3),
}


def test_a_checkpoint_is_the_same_as_itself_and_as_its_copy(save):
    one, other = save("a", STATE, step=1, metrics={"loss": math.nan}), save("b", STATE, step=1, metrics={"loss": math.nan})

    assert ckptfmt.diff(one, one).same
    report = ckptfmt.diff(one, other)
    assert report.same
    assert (report.before, report.after, report.equal_tensor_count, report.equal_in_value) == (one, other, 2, ())


def test_added_removed_and_changed_values_are_named_by_path(compared):
    report = compared({"a": 1, "old": {"x": 1, "y": [2]}, "same": "s"}, {"a": 2, "new": {"z": None}, "same": "s"})

    assert paths(report.removed) == ["old.x", "old.y.0"]
    assert [(found.path, found.after, found.after_type, found.before_type) for found in report.added] == [("new.z", None, "NoneType", None)]
    assert [(found.path, found.before, found.after) for found in report.changed] == [("a", 1, 2)]
    assert not report.same


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (1, 1.0),
        (1, True),
        (None, 0),
        ("1", b"1"),
        ([1], (1,)),
        ({"a": 1}, OrderedDict(a=1)),
        (deque([1]), deque([1], maxlen=3)),
        (argparse.Namespace(a=1), {"a": 1}),
        ([], {}),
        (np.float32(1), np.float64(1)),
        (0.5, 0.25),
        (2**70, 2**71),
        ({1}, {2}),
    ],
)
def test_values_of_another_type_or_content_are_changed(compared, before, after):
    assert paths(compared({"value": before}, {"value": after}).changed) == ["value"]


def test_an_int_key_is_not_the_text_of_it(compared):
    report = compared({"layers": {1: "x"}}, {"layers": {"1": "x"}})

    assert (paths(report.removed), paths(report.added)) == (["layers.1"], ["layers.1"])


def test_the_order_of_keys_is_no_difference(compared):
    assert compared({"a": 1, "b": 2}, {"b": 2, "a": 1}).same


def test_a_value_in_place_of_a_container_is_one_change(compared):
    report = compared({"x": {"a": 1, "b": 2}}, {"x": 3})

    assert [(found.path, found.before, found.after) for found in report.changed] == [("x", {"a": 1, "b": 2}, 3)]


def test_tensors_are_compared_by_elements(compared):
    before, after = np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(2, 3)
    after[0, 1], after[1, 2] = 1.5, math.nan
    (found,) = compared({"m": {"w": before, "b": before}}, {"m": {"w": after, "b": before.copy()}}).tensors

    assert found.path == "m.w"
    assert (found.before.dtype, found.before.shape) == ("float64", (2, 3))
    assert (found.differing_count, found.max_abs, found.max_relative) == (2, 0.5, 0.5 / 1.5)
    assert found.nan_counts == (0, 1)


def test_tensors_of_other_shapes_or_types_differ(compared):
    report = compared({"s": np.zeros(3), "t": np.zeros(3)}, {"s": np.zeros((3, 1)), "t": np.zeros(3, np.float32)})

    shaped, typed = report.tensors
    assert (shaped.path, shaped.after.shape, shaped.differing_count) == ("s", (3, 1), None)
    assert (typed.path, typed.after.dtype, typed.differing_count) == ("t", "float32", 0)


def test_a_tensor_on_one_side_only_is_added(compared):
    (found,) = compared({}, {"w": np.zeros(3)}).added

    assert (found.path, found.after_type, found.after.shape) == ("w", "tensor", (3,))


def test_bits_that_make_no_difference_in_value_are_told_apart(compared):
    report = compared({"w": np.array([0.0, 1.0])}, {"w": np.array([-0.0, 1.0])})

    assert report.same
    assert (report.equal_tensor_count, report.equal_in_value) == (1, ("w",))


def test_ties_on_one_side_only_are_a_difference(compared):
    shared = np.ones(3)
    report = compared({"a": shared, "b": shared}, {"a": shared, "b": shared.copy()})

    assert [(found.path, found.before, found.after) for found in report.changed] == [("b", "tied to a", "not tied")]


def test_views_generators_and_sparse_tensors_of_torch_are_compared(compared):
    torch = pytest.importorskip("torch")

    def state(value):
        base = torch.arange(10.0)
        base[4] = value
        generator = torch.Generator().manual_seed(int(value))
        return {
            "base": base,
            "view": base[2:8:2],
            "generator": generator,
            "sparse": torch.tensor([[0.0, value]]).to_sparse(),
            "h": base.bfloat16(),
        }

    assert compared(state(3.0), state(3.0), only="*").same


def test_a_change_within_values_that_hold_tensors_is_found(compared):
    torch = pytest.importorskip("torch")
    sparse = [torch.tensor([[0.0, value]]).to_sparse() for value in (1.0, 2.0)]
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    report = compared({"s": sparse[0], "g": generators[0]}, {"s": sparse[1], "g": generators[1]})

    assert {found.path.partition("[")[0] for found in (*report.tensors, *report.changed)} == {"s", "g"}


def test_tolerances_hold_for_tensors_values_and_metrics(save):
    one = save("a", {"w": np.array([1.0]), "x": 1.0}, metrics={"loss": 1.0})
    other = save("b", {"w": np.array([1.001]), "x": 1.001}, metrics={"loss": 1.001})

    assert not ckptfmt.diff(one, other, rtol=1e-4).same
    assert ckptfmt.diff(one, other, rtol=1e-2).same
    assert ckptfmt.diff(one, other, atol=1e-2).same
    with pytest.raises(ValueError, match="atol=-1"):
        ckptfmt.diff(one, other, atol=-1)


def test_only_and_exclude_choose_with_everything_below(save):
    one = save("a", {"model": {"w": 1, "b": 1}, "epoch": 1}, step=1, metrics={"loss": 1.0})
    other = save("b", {"model": {"w": 2, "b": 2}, "epoch": 2}, step=2, metrics={"loss": 2.0})

    assert paths(ckptfmt.diff(one, other, only="model").changed) == ["model.w", "model.b"]
    assert paths(ckptfmt.diff(one, other, only=["model.b", "epoch"]).changed) == ["model.b", "epoch"]
    assert paths(ckptfmt.diff(one, other, only="model", exclude="*.w").changed) == ["model.b"]
    assert ckptfmt.diff(one, other, only="model").manifest == ()
    assert paths(ckptfmt.diff(one, other, only="@*").manifest) == ["step", "metrics.loss"]
    assert paths(ckptfmt.diff(one, other, exclude=["@step", "model", "epoch"]).manifest) == ["metrics.loss"]
    assert ckptfmt.diff(one, other, exclude="*").same


def test_fingerprints_are_compared_by_field(tmp_path):
    for name, lr in (("a", 0.1), ("b", 0.2)):
        with ckptfmt.Run(tmp_path / name, fingerprint=ckptfmt.Fingerprint(seed=1, config={"lr": lr}, environment=False)) as run:
            run.save(1, {"x": 1})
    one, other = tmp_path / "a" / "step-00000001", tmp_path / "b" / "step-00000001"

    (found,) = ckptfmt.diff(one, other).fingerprint
    assert (found.field, found.expected, found.found, found.severity) == ("config.lr", 0.1, 0.2, "error")
    assert ckptfmt.diff(one, other, exclude="@fingerprint.config").same


def test_a_fingerprint_of_ones_own_is_compared_by_its_members(save):
    report = ckptfmt.diff(save("a", {}, fingerprint={"seed": 1, "name": "x"}), save("b", {}, fingerprint={"seed": 2, "name": "x"}))

    assert [(found.field, found.expected, found.found) for found in report.fingerprint] == [("seed", 1, 2)]


def test_equal_tensors_are_not_read_and_damage_in_others_is_an_error(save):
    state = {"m": {"w": np.arange(1000.0)}}
    one, other = save("a", state), save("b", {"m": {"w": np.arange(1000.0)}})
    shard = os.path.join(other, next(name for name in os.listdir(other) if name.endswith(".safetensors")))
    os.chmod(shard, 0o644)
    with open(shard, "r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\xff" * 8)

    assert ckptfmt.diff(one, other).same
    with pytest.raises(CorruptError, match="E040"):
        ckptfmt.diff(save("c", {"m": {"w": np.zeros(1000)}}), other)


def test_reports_are_frozen_and_values_of_libraries_are_outlined(compared):
    report = compared({"seed": np.float32(1)}, {"seed": np.float32(2)})

    assert report.changed[0].before_type == "numpy_scalar"
    with pytest.raises(AttributeError):
        report.changed = ()
