"""What ckpt-inspect shows of runs and of findings: golden outputs at 80 columns."""

from __future__ import annotations

import json

from ckpt_inspect.sources.run_directory import ListedCheckpoint, RunDirectory
from ckpt_inspect.views.findings import Verified, closing_lines, verified_document, verified_lines
from ckpt_inspect.views.run_table import run_document, run_lines
from ckptfmt.checkpoint.verify import Finding, VerifyReport
from ckptfmt.format.manifest import Manifest
from tests.unit.test_inspect_views import MANIFEST, PATH, SHARDS, files, screen, text_of


def listed(step, metrics, **options):
    manifest = Manifest(**{name: getattr(MANIFEST, name) for name in MANIFEST.__slots__} | {"step": step, "metrics": metrics})
    return ListedCheckpoint(step, f"runs/exp1/step-{step:08d}", "complete", None, manifest, files(), **options)


RUN = RunDirectory(
    "runs/exp1",
    [
        listed(200, {"lr": 0.001, "val_loss": 3.5, "accuracy": 0.25}),
        listed(1000, {"lr": 0.001, "val_loss": 3.25}),
        ListedCheckpoint(1100, "runs/exp1/step-00001100", "damaged", "manifest.json: manifest digest differs [E004]"),
        ListedCheckpoint(1200, "runs/exp1/step-00001200", "incomplete", "no manifest.json; a save is in progress or was interrupted"),
    ],
)


def test_checkpoints_of_a_run():
    assert (
        text_of(run_lines(RUN, screen()))
        == """
runs/exp1

  checkpoints  4, 1 damaged, 1 incomplete
  size         309.4 MB, on disk 154.7 MB: what did not change is stored once

 step  created (UTC)            size    unique  val_loss      lr
  200  2025-11-21 03:05:12  154.7 MB  303.4 kB       3.5   0.001
1,000  2025-11-21 03:05:12  154.7 MB  303.4 kB      3.25*  0.001  newest
1,100  damaged: manifest.json: manifest digest differs [E004]
1,200  incomplete: no manifest.json; a save is in progress or was interrupted
* the best, as far as a metric's name tells which end is good
not shown: accuracy
"""
    )


def test_a_run_without_checkpoints():
    assert text_of(run_lines(RunDirectory("runs/new", []), screen())) == "\nruns/new\n\n  checkpoints  none yet\n"


def test_metrics_that_do_not_fit_are_named():
    run = RunDirectory("runs/exp1", [listed(1, {f"a_long_metric_{index}": 0.5 for index in range(6)})])
    lines = list(run_lines(run, screen()))

    assert lines[-1].startswith("not shown: a_long_metric_")
    assert max(map(len, lines)) <= 80


FINDINGS = (
    Finding("W001", "warning", f"{PATH}/notes.txt", None, None, None, f"{PATH}/notes.txt: file is not named by the manifest [W001]"),
    Finding(
        "E040",
        "error",
        f"{PATH}/{SHARDS[0].name}",
        "wte.weight",
        "blake3:9f2c41d07ab3",
        "blake3:01ab77e0c9d4",
        f"{PATH}/{SHARDS[0].name}: tensor 'wte.weight' of section 'model': digest differs: "
        "expected blake3:9f2c41d07ab3, found blake3:01ab77e0c9d4 [E040]",
    ),
)


def verified(*findings, fails=False, seconds=0.84):
    report = VerifyReport(PATH, "full", findings, 154_691_336)
    return Verified(report, report.ok and not fails, seconds)


def test_findings_name_rule_file_and_tensor():
    assert (
        text_of(verified_lines(verified(*FINDINGS), screen()))
        == """
damaged     runs/exp1/step-00001200  1 error, 1 warning
  E040  error: model-00001-3fa98c12.safetensors
        tensor 'wte.weight' of section 'model': digest differs: expected
        blake3:9f2c41d07ab3, found blake3:01ab77e0c9d4
  W001  warning: notes.txt
        file is not named by the manifest
"""
    )


def test_a_sound_checkpoint_is_one_line():
    assert text_of(verified_lines(verified(), screen())) == f"\nsound       {PATH}  154.7 MB of tensors verified in 0.8 s\n"


def test_a_warning_that_counts_as_a_failure_makes_a_checkpoint_unclean():
    lines = list(verified_lines(verified(FINDINGS[0], fails=True), screen()))

    assert lines[0] == f"unclean     {PATH}  1 warning"


def test_several_checkpoints_are_counted():
    results = [verified(), verified(*FINDINGS), verified(FINDINGS[0], fails=True)]

    assert list(closing_lines(results, 1)) == ["", "4 checkpoints: 1 sound, 1 damaged, 1 unclean, 1 could not be verified"]
    assert list(closing_lines(results[:1], 0)) == []


def test_damage_beyond_the_first_twenty_is_counted():
    lines = list(verified_lines(verified(*FINDINGS[1:] * 30), screen()))

    assert lines[-1] == "  ... and 10 more findings (-v shows all)"


def test_nothing_of_them_is_wider_than_eighty_columns():
    for lines in (run_lines(RUN, screen()), verified_lines(verified(*FINDINGS), screen())):
        assert max(map(len, lines)) <= 80


def test_they_are_json_with_every_fact():
    run, report = run_document(RUN), verified_document(verified(*FINDINGS))

    json.dumps([run, report], allow_nan=False)
    assert [each["status"] for each in run["checkpoints"]] == ["complete", "complete", "damaged", "incomplete"]
    assert run["checkpoints"][0].keys() == run["checkpoints"][2].keys()
    assert report["findings"][0].keys() == {"rule", "level", "path", "tensor", "expected", "found", "message"}
    assert (report["findings"][0]["tensor"], report["findings"][1]["level"]) == ("wte.weight", "warning")
