"""`ckpt-inspect diff`: golden output, JSON, exit statuses, foreign files and hostile names."""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pytest

import ckptfmt
from ckpt_inspect.main import main

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(autouse=True)
def pipe_without_width(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def save(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def save(name, state, **options):
        ckptfmt.save(name, state, durable=False, **options)
        return name

    return save


@pytest.fixture
def run(capsys):
    def run(*arguments):
        status = main(["diff", *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def pair(save):
    changed = WEIGHT.copy()
    changed[0, 1], changed[1, 2] = 1.5, math.nan
    one = {"model": {"w": WEIGHT, "same": WEIGHT + 1, "old": WEIGHT + 2}, "optimizer": {"lr": 0.1, "betas": (0.9, 0.999)}, "epoch": 1}
    other = {"model": {"w": changed, "same": WEIGHT + 1, "new": WEIGHT + 2}, "optimizer": {"lr": 0.01, "betas": [0.9, 0.999]}, "epoch": 2}
    save("a", one, step=100, metrics={"loss": 0.5}, fingerprint={"seed": 1})
    save("b", other, step=200, metrics={"loss": 0.25}, fingerprint={"seed": 2})
    return "a", "b"


def test_every_kind_of_difference_is_shown(pair, run):
    status, out, err = run(*pair)

    assert (status, err) == (1, "")
    assert (
        out
        == """\
  A  a
  B  b

step and metrics (2)
  step          100 -> 200
  metrics.loss  0.5 -> 0.25

fingerprint (1)
  seed  1 -> 2

only in A (1)
  model.old  numpy tensor

only in B (1)
  model.new  numpy tensor

values (3)
  optimizer.lr     float 0.1 -> 0.01
  optimizer.betas  tuple of 2 -> list of 2
  epoch            int 1 -> 2

tensors (1)
  name     type and shape  differ  max abs  max rel  max ULP  NaN
  model.w  float32 [2, 3]       2      0.5   0.3333  4.2e+06  0 -> 1

1 tensor equal
"""
    )


def test_two_that_are_the_same_say_so_in_one_line(pair, run):
    status, out, _ = run("a", "a")

    assert (status, out) == (0, "  A  a\n  B  a\n\nno difference  3 tensors equal\n")
    assert run("-q", "a", "a") == (0, "", "")
    assert run("-q", "a", "b") == (1, "", "")


def test_what_is_compared_can_be_chosen(pair, run):
    assert run("a", "b", "--only", "model.same")[0] == 0
    assert "values (1)\n  epoch  int 1 -> 2\n" in run("a", "b", "--only", "epoch")[1]
    _, out, _ = run("a", "b", "--exclude", "@*", "--exclude", "model")
    assert "step" not in out
    assert "model" not in out
    assert run("a", "b", "--only", "optimizer.lr", "--atol", "0.1")[0] == 0
    assert run("a", "b", "--only", "optimizer.lr", "--rtol", "0.5")[0] == 1


def test_differences_are_a_document(pair, run):
    status, out, _ = run("a", "b", "--json")
    document = json.loads(out)

    assert status == 1
    assert (document["schema_version"], document["kind"], document["same"]) == (1, "diff", False)
    assert document["manifest"] == [{"path": "step", "a": 100, "b": 200}, {"path": "metrics.loss", "a": 0.5, "b": 0.25}]
    assert document["fingerprint"] == [{"field": "seed", "a": 1, "b": 2, "severity": "error"}]
    assert [found["path"] for found in document["removed"]] == ["model.old"]
    assert [found["path"] for found in document["added"]] == ["model.new"]
    assert document["changed"][0] == {"path": "optimizer.lr", "a_type": "float", "b_type": "float", "a": 0.1, "b": 0.01}
    assert document["tensors"] == [
        {
            "path": "model.w",
            "a": {"dtype": "float32", "shape": [2, 3]},
            "b": {"dtype": "float32", "shape": [2, 3]},
            "differing_count": 2,
            "max_abs": 0.5,
            "max_relative": 0.5 / 1.5,
            "max_ulp": 4194304,
            "nan_counts": [0, 1],
        }
    ]
    assert json.loads(run("a", "a", "--json")[1])["same"] is True


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("a", "nothing"), 10, "nothing: no such file or directory"),
        (("a", "run"), 2, "run: expected a checkpoint, found a run\n  Give one of its steps"),
        (("a", "run/history"), 2, "expected a checkpoint, found a journal"),
        (("a", "a", "--atol", "-1"), 2, "--atol=-1.0: expected a number of at least 0"),
        (("a", "a", "--rtol", "nan"), 2, "--rtol=nan: expected a number"),
        (("a", "text"), 2, "text: expected a checkpoint"),
        (("a",), 2, "the following arguments are required: B"),
    ],
)
def test_what_cannot_be_compared_is_no_difference(pair, run, arguments, status, message):
    with ckptfmt.Run("run", durable=False) as writing:
        writing.save(1, {})
    with open("text", "w") as file:
        file.write("x" * 100)
    found, out, err = run(*arguments)

    assert (found, out) == (status, "")
    assert message in err


def test_damage_is_no_difference(pair, run):
    name = next(name for name in os.listdir("b") if name.endswith(".safetensors"))
    os.chmod(f"b/{name}", 0o644)
    with open(f"b/{name}", "r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) - 4)
    status, _, err = run("a", "b")

    assert status == 2
    assert "E014" in err


def test_files_from_elsewhere_are_compared_by_their_tensors(save, run):
    from safetensors.numpy import save_file

    save("c", {"model": {"layer": {"w": WEIGHT}}, "epoch": 3}, step=1)
    save_file({"layer.w": WEIGHT}, "same.safetensors")
    save_file({"layer.w": WEIGHT + 1, "more": WEIGHT}, "other.safetensors")

    status, out, _ = run("c", "same.safetensors")
    assert (status, out.splitlines()[2:]) == (
        0,
        ["  a .safetensors file holds tensors only: nothing else is compared", "", "no difference  1 tensor equal"],
    )
    assert run("same.safetensors", "same.safetensors")[0] == 0
    status, out, _ = run("other.safetensors", "c")
    assert status == 1
    assert "only in A (1)\n  more  torch tensor\n" in out
    assert "layer.w  float32 [2, 3]       6        1" in out


def test_other_types_shapes_and_kinds_are_named(save, run):
    save("c", {"w": np.zeros(3, np.float32), "s": np.zeros(3), "n": np.float32(1), "x": 1})
    save("d", {"w": np.zeros(3, np.float64), "s": np.zeros((1, 3)), "n": np.float64(1), "x": True})
    _, out, _ = run("c", "d")

    assert "n  numpy.float32 1 -> numpy.float64 1.0" in out
    assert "x  int 1 -> bool True" in out
    assert "w     float32 -> float64 [3]       0        0        0" in out
    assert "s     float64 [3] -> [1, 3]" in out


def test_long_lists_are_cut_and_v_shows_all(save, run):
    save("c", {f"value{index:03}": index for index in range(50)})
    save("d", {f"value{index:03}": -index - 1 for index in range(50)})

    assert "  ... and 30 more (-v shows all)\n" in run("c", "d")[1]
    assert run("-v", "c", "d")[1].count("int ") == 50


def test_hostile_names_and_values_are_escaped_and_fit(save, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("ckptfmt.checkpoint.saving.metric_values", dict)
    save("c", {"\x1b[31m\n\u202e": "a\x1b[0m" * 100, "w" * 300: WEIGHT}, metrics={"\x07": 1.0})
    save("d", {"\x1b[31m\n\u202e": "b\x1b[0m" * 100, "w" * 300: WEIGHT + 1})
    _, out, _ = run("c", "d")

    assert not set(out) & set("\x1b\x07\u202e")
    assert max(map(len, out.splitlines())) <= 80
