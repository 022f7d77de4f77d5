"""The commands of ckpt-inspect on checkpoints that ckptfmt wrote: what they show, find and return."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pytest

import ckptfmt
from ckpt_inspect.main import main
from ckpt_inspect.registry import COMMANDS

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)


def state():
    tied = WEIGHT.copy()
    return {
        "model": {"embed.weight": tied, "head.weight": tied, "bias": np.array([1.0, np.nan, np.inf], np.float16)},
        "optimizer": {"state": {0: {"exp_avg": np.zeros((3, 4), np.float32)}}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999)}]},
        "epoch": 3,
    }


@pytest.fixture
def checkpoint(tmp_path):
    path = str(tmp_path / "checkpoint")
    ckptfmt.save(path, state(), step=7, metrics={"loss": 0.25, "worst": float("inf")}, fingerprint={"seed": 42}, durable=False)
    return path


@pytest.fixture
def run_directory(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    for step in (200, 1000, 99999):
        ckptfmt.save(path / f"step-{step:08d}", state(), step=step, metrics={"loss": 1 / step}, durable=False)
    return str(path)


def find_file(path, start):
    return os.path.join(path, next(name for name in os.listdir(path) if name.startswith(start)))


def flip(path, offset):
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0xFF]))


def test_a_path_alone_is_inspected(checkpoint, run):
    status, out, err = run(checkpoint)

    assert (status, err) == (0, "")
    assert run(checkpoint, "--json") == run("inspect", checkpoint, "--json") == run("ls", checkpoint, "--json")
    assert re.search(r"created  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC \((just now|\d+ seconds? ago)\)", out)
    assert "  model            2        15  54 B  float32, float16" in out
    assert "  epoch                               int 3" in out


def test_global_options_may_stand_before_the_command(checkpoint, run):
    assert run("--json", "verify", checkpoint)[1] == run("verify", checkpoint, "--json")[1]
    assert run("-q", "--json", checkpoint)[0] == 0


def test_tree_shows_types_values_and_ties(checkpoint, run):
    assert (
        run(checkpoint, "--tree")[1]
        == """\
model  dict of 3
  embed.weight  float32 [3, 4] 48 B  numpy
  head.weight   float32 [3, 4] 48 B  tied to model.embed.weight, numpy
  bias          float16 [3] 6 B  numpy
optimizer  dict of 2
  state  dict of 1
    0  dict of 1
      exp_avg  float32 [3, 4] 48 B  numpy
  param_groups  list of 1
    0  dict of 2
      lr     float 0.001
      betas  tuple (0.9, 0.999)
epoch  int 3
"""
    )


def test_tensors_can_be_chosen_and_ordered(checkpoint, run):
    _, out, _ = run(checkpoint, "--filter", "model.*", "--sort", "size")

    assert [line.split()[0] for line in out.splitlines()] == ["name", "model.embed.weight", "model.bias"]
    assert "model.embed.weight  float32  [3, 4]  48 B  model-00001" in out


def test_nothing_that_matches_is_said_so(checkpoint, run):
    assert run(checkpoint, "--filter", "nothing")[:2] == (0, "no tensor matches\n")


def test_statistics_count_what_is_not_finite(checkpoint, run):
    _, out, _ = run(checkpoint, "--stats", "--filter", "model.*")

    assert [line.split() for line in out.splitlines()] == [
        ["name", "dtype", "shape", "min", "max", "mean", "NaN", "Inf"],
        ["model.embed.weight", "float32", "[3,", "4]", "0", "11", "5.5", "0", "0"],
        ["model.bias", "float16", "[3]", "1", "1", "1", "1", "1"],
    ]


def test_documents_have_a_schema_version(checkpoint, run_directory, run):
    for arguments in ([checkpoint], [checkpoint, "--tree"], [checkpoint, "--stats"], [run_directory], ["verify", checkpoint]):
        status, out, _ = run(*arguments, "--json")
        assert status == 0
        assert json.loads(out)["schema_version"] == 1
        assert out.isascii()


def test_documents_hold_what_was_asked_for(checkpoint, run):
    document = json.loads(run(checkpoint, "--tree", "--tensors", "--json")[1])

    assert document["step"] == 7
    assert document["metrics"] == {"loss": 0.25, "worst": "Infinity"}
    assert document["fingerprint"] == {"seed": 42}
    assert [tensor["name"] for tensor in document["tensors"]] == ["model.embed.weight", "model.bias", "optimizer.state.0.exp_avg"]
    assert {"path": "optimizer.param_groups.0.lr", "type": "float", "value": 0.001} in document["tree"]
    assert "tree" not in json.loads(run(checkpoint, "--json")[1])


def test_checkpoints_of_a_run_stand_in_the_order_of_their_numbers(run_directory, run):
    _, out, _ = run(run_directory)

    assert re.findall(r"^ *([\d,]+)  \d{4}-", out, re.MULTILINE) == ["200", "1,000", "99,999"]


def test_damaged_and_incomplete_checkpoints_of_a_run_are_marked(run_directory, run):
    flip(f"{run_directory}/step-00000200/manifest.json", 200)
    os.unlink(find_file(f"{run_directory}/step-00001000", "model-"))
    os.mkdir(f"{run_directory}/step-00002000")

    status, out, _ = run(run_directory)
    statuses = [listed["status"] for listed in json.loads(run(run_directory, "--json")[1])["checkpoints"]]

    assert status == 0
    assert re.search(r"^ *200  damaged: manifest.json: ", out, re.MULTILINE)
    assert re.search(r"^ *damaged: model-00001-[0-9a-f]{8}.safetensors: missing$", out, re.MULTILINE)
    assert re.search(r"^ *2,000  incomplete: no manifest.json", out, re.MULTILINE)
    assert statuses == ["damaged", "damaged", "incomplete", "complete"]


def test_a_run_has_no_tensors_of_its_own(run_directory, run):
    status, _, err = run(run_directory, "--tree")

    assert status == 2
    assert f"Give one of its checkpoints, such as {run_directory}/step-00099999" in err


def test_a_run_that_has_only_begun_is_empty(tmp_path, run):
    (tmp_path / "run.json").write_text("{}")

    assert run(str(tmp_path)) == (0, f"{tmp_path}\n\n  checkpoints  none yet\n", "")
    assert run("verify", str(tmp_path))[0] == 2


def test_shared_files_are_told(tmp_path, run):
    for step, base in ((1, None), (2, tmp_path / "step-00000001")):
        ckptfmt.save(tmp_path / f"step-{step:08d}", {"w": np.zeros(1000), "step": step}, step=step, base=base, durable=False)

    assert " of it shared with other checkpoints" in run(str(tmp_path / "step-00000001"))[1]
    assert ": what did not change is stored once" in run(str(tmp_path))[1]


def test_a_sound_checkpoint_verifies(checkpoint, run):
    status, out, err = run("verify", checkpoint)

    assert (status, err) == (0, "")
    assert re.search(r"102 B of tensors verified in \d+\.\d s$", out)
    assert "all but the tensors' data checked" in run("check", checkpoint, "--quick")[1]


def test_damage_is_named_with_file_tensor_and_rule(checkpoint, run):
    shard = find_file(checkpoint, "model-")
    flip(shard, -1)

    status, out, _ = run("verify", checkpoint)
    document = json.loads(run("verify", checkpoint, "--json")[1])

    assert status == 1
    assert f"E040  error: {os.path.basename(shard)}" in out
    assert "tensor 'bias' of section 'model': digest differs" in out
    assert document["ok"] is False
    assert document["checkpoints"][0]["findings"][0].items() >= {"rule": "E040", "path": shard, "tensor": "bias"}.items()


def test_damage_that_statistics_meet_is_told(checkpoint, run):
    flip(find_file(checkpoint, "model-"), -1)

    status, out, err = run(checkpoint, "--stats")

    assert status == 1
    assert "damaged [E040]" in out
    assert out.count("\n") == 4
    assert "tensor 'bias' of section 'model': digest differs" in err


def test_a_missing_shard_is_found_by_statistics(checkpoint, run):
    os.unlink(find_file(checkpoint, "model-"))

    assert run(checkpoint, "--stats")[0] == 1
    assert "missing" in run(checkpoint)[1]


def test_extra_files_fail_only_on_demand(checkpoint, run):
    with open(f"{checkpoint}/notes.txt", "w"):
        pass

    assert run("verify", checkpoint)[0] == 0
    status, out, _ = run("verify", checkpoint, "--fail-on-extra-files")
    assert status == 1
    assert "W001  warning: notes.txt" in out
    assert "unclean" in out


def test_every_checkpoint_of_a_run_is_verified(run_directory, run):
    flip(find_file(f"{run_directory}/step-00001000", "optimizer-"), -1)

    status, out, _ = run("verify", run_directory)

    assert status == 1
    assert [line.split()[0] for line in out.splitlines() if line.startswith(("sound", "damaged"))] == ["sound", "damaged", "sound"]
    assert out.endswith("3 checkpoints: 2 sound, 1 damaged\n")


def test_a_save_in_progress_is_no_failure_of_its_run(run_directory, run):
    os.mkdir(f"{run_directory}/step-00200000")

    status, out, _ = run("verify", run_directory)

    assert status == 0
    assert out.endswith("4 checkpoints: 3 sound, 1 incomplete\n")
    assert run("verify", f"{run_directory}/step-00200000")[0] == 1


def test_one_path_that_is_missing_stops_no_other(checkpoint, tmp_path, run):
    status, out, err = run("verify", f"{tmp_path}/nothing", checkpoint)
    document = json.loads(run("verify", f"{tmp_path}/nothing", checkpoint, "--json")[1])

    assert status == 10
    assert "2 checkpoints: 1 sound, 1 could not be verified" in out
    assert err == f"ckpt-inspect: {tmp_path}/nothing: no such file or directory\n"
    assert document["errors"][0]["exit_status"] == 10
    assert document["ok"] is False


def test_quiet_leaves_only_the_exit_status(checkpoint, run):
    assert run("-q", checkpoint) == (0, "", "")
    flip(find_file(checkpoint, "model-"), -1)
    assert run("verify", "-q", checkpoint) == (1, "", "")


def test_a_path_that_is_not_there_is_status_10(tmp_path, run):
    assert run(f"{tmp_path}/nothing") == (10, "", f"ckpt-inspect: {tmp_path}/nothing: no such file or directory\n")
    assert run("inspect", "nothing")[0] == 10
    assert run("inspect", "nothing/step-00000001")[0] == 10


def test_a_directory_without_a_manifest_is_told_in_the_words_of_the_library(tmp_path, run):
    status, out, err = run(str(tmp_path))
    with pytest.raises(ckptfmt.IncompleteError) as caught:
        ckptfmt.load(tmp_path)

    assert (status, out) == (2, "")
    assert err == "ckpt-inspect: " + str(caught.value).replace("\n", "\n  ") + "\n"
    assert run("verify", str(tmp_path))[0] == 1


def test_a_damaged_manifest_cannot_be_inspected(checkpoint, run):
    flip(f"{checkpoint}/manifest.json", 200)

    status, out, err = run(checkpoint)

    assert (status, out) == (2, "")
    assert "[E00" in err
    assert run("verify", checkpoint)[0] == 1


def test_an_unknown_command_is_status_2(run):
    status, out, err = run("verfy", "x")

    assert (status, out) == (2, "")
    assert err == "ckpt-inspect: 'verfy' is neither a command nor an existing path\n  Did you mean verify?\n"


def test_a_file_holds_nothing_to_verify(checkpoint, run):
    status, _, err = run("verify", find_file(checkpoint, "model-"))

    assert status == 2
    assert "a single file holds no digests to verify" in err


@pytest.mark.parametrize("arguments", [[], ["-q"], ["inspect"], ["verify"], ["inspect", "a", "b"], ["inspect", "--nonsense", "a"]])
def test_wrong_usage_is_status_2(arguments, capsys):
    assert main(arguments) == 2
    assert "usage: ckpt-inspect" in capsys.readouterr().err


def test_debug_shows_where_an_error_comes_from(tmp_path, run):
    status, _, err = run("--debug", str(tmp_path))

    assert status == 2
    assert "Traceback (most recent call last)" in err
    assert "IncompleteError" in err


def test_a_defect_is_no_finding(checkpoint, monkeypatch, run):
    monkeypatch.setattr("ckpt_inspect.inspection.kind_of", lambda path: 1 / 0)

    status, out, err = run(checkpoint)

    assert (status, out) == (2, "")
    assert "ZeroDivisionError" in err
    assert "--debug" in err


def test_the_version_names_the_format(run):
    assert run("--version") == (0, f"ckpt-inspect {ckptfmt.__version__} (format 1.0)\n", "")


def test_help_fits_eighty_columns_and_has_examples(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for arguments in (["--help"], *([command.name, "--help"] for command in COMMANDS), ["help", "verify"]):
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert "examples:" in out
        assert max(map(len, out.splitlines())) <= 80


def test_the_overview_names_every_command(run):
    _, out, _ = run("--help")

    for command in COMMANDS:
        assert f"  {command.name} {command.operands}" in out
        assert ", ".join(command.synonyms) in out


def test_hostile_metrics_and_fingerprints_are_escaped(tmp_path, run, monkeypatch):
    # The library refuses such names; a file from elsewhere may have them.
    monkeypatch.setattr("ckptfmt.checkpoint.saving.metric_values", dict)
    hostile = "\x1b[2J\u202e\n"
    ckptfmt.save(tmp_path / "c", {hostile: {hostile: np.ones(1), "text": hostile}}, metrics={hostile: 1}, fingerprint={hostile: hostile})

    for arguments in ([], ["--tree"], ["--tensors"], ["--stats"], ["-v"], ["--tree", "--json"]):
        status, out, err = run(str(tmp_path / "c"), *arguments)
        assert (status, err) == (0, "")
        assert all(character.isprintable() or character == "\n" for character in out)
    assert "\\x1b[2J\\u202e\\n" in run(str(tmp_path / "c"), "--tree")[1]


def test_hostile_paths_are_escaped(tmp_path, run):
    path = tmp_path / "\x1b[2J"
    path.mkdir()

    assert run(str(path))[2].startswith(f"ckpt-inspect: {tmp_path}/\\x1b[2J: not a checkpoint")
    for arguments in ([str(path), "--debug"], [str(path), str(path)], ["verify", str(path)], ["verify", str(path) + "2"]):
        _, out, err = run(*arguments)
        assert all(character.isprintable() or character == "\n" for character in out + err)


def test_a_slash_behind_a_directory_changes_nothing(checkpoint, run):
    assert run(checkpoint + "/", "--tree") == run(checkpoint, "--tree")
    assert run(checkpoint + "/", "--json") == run(checkpoint, "--json")
