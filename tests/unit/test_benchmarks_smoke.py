"""The benchmarks run from end to end on tiny states, and their parts do what the report relies on."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from benchmarks import cases, goals, limits, machine, measure, progress, publish, run, scaling, states, training
from benchmarks.chart import Bar, Line, Panel, Plot, bar_chart, line_chart
from benchmarks.measure import Job, Measurement
from benchmarks.report import report
from benchmarks.results import Results, read_results
from benchmarks.tables import table, with_spread


def test_tiny_run_measures_reports_and_cleans_up(tmp_path, capsys):
    scratch, kept = tmp_path / "scratch", tmp_path / "kept"
    arguments = ["--states", "45MB", "--peers", "ckptfmt", "--scale", "0.02", "--rounds", "1"]
    assert run.main([*arguments, "--scratch", str(scratch), "--results", str(kept)]) == 0
    printed = capsys.readouterr().out
    results = read_results(kept / "last.json")
    assert results.errors() == []
    for case in (cases.SAVE, cases.DURABLE_SAVE, cases.WARM_LOAD, cases.COLD_LOAD, cases.ONE_TENSOR, cases.ASYNC_STALL):
        assert results.median("45MB", case, "ckptfmt") is not None, case
    assert results.median("45MB", limits.DIRECT_READ, limits.ROW) is not None
    assert "45MB, durable save: at least 1.3 times as fast as torch" in printed
    assert not scratch.exists()


def test_a_library_that_fails_is_reported_and_not_hidden(tmp_path):
    found = measure.run_child(Job("torch_save", "45MB", 0.02, str(tmp_path / "missing" / "directory")))
    assert found
    assert found[-1].seconds is None
    assert found[-1].error


def test_every_goal_is_judged_also_when_it_was_not_measured():
    results = _results([Measurement("50k", cases.DURABLE_SAVE, "ckptfmt", 0.5), Measurement("50k", cases.DURABLE_SAVE, "torch", 2.0)])
    verdicts = goals.judge(results)
    assert [verdict.goal for verdict in verdicts] == [goal for goal in goals.GOALS if goal.state == "50k"]
    assert [verdict.is_met for verdict in verdicts] == [False, *[None] * (len(verdicts) - 1)]
    assert verdicts[0].measured == "4.00 times"


def test_goals_against_several_libraries_take_the_fastest_of_them():
    seconds = {"ckptfmt": 1.0, "torch": 3.0, "safetensors": 2.0}
    results = _results([Measurement("2GB", cases.DURABLE_SAVE, row, value) for row, value in seconds.items()])
    results.add([Measurement("2GB", "incremental 1 %", "ckptfmt", 0.1)])
    verdicts = {(verdict.goal.case, verdict.goal.form): verdict for verdict in goals.judge(results)}
    both = verdicts[cases.DURABLE_SAVE, goals.AT_LEAST_TIMES_BEST]
    assert (both.measured, both.is_met) == ("2.00 times", False)
    anyone = verdicts["incremental 1 %", goals.AT_LEAST_TIMES_ANY]
    assert (anyone.measured, anyone.is_met) == ("20.00 times", True)


def test_report_names_what_could_not_be_measured():
    text = report(_results([Measurement("50k", cases.SAVE, "torch", None, error="RuntimeError: no")]))
    assert "50k, save, torch: RuntimeError: no" in text


@pytest.mark.parametrize("name", list(states.STATES))
def test_states_are_the_same_every_time_and_of_the_announced_size(name):
    first, second = (dict(states.tensors_of(states.build(name, scale=0.005))) for _ in range(2))
    assert all(torch.equal(first[path], second[path]) for path in first)
    assert states.sizes(name, scale=0.005) == (states.size_bytes(first), first[states.STATES[name].one_tensor].nbytes)


def test_full_states_have_the_sizes_in_their_descriptions():
    assert {name: round(states.sizes(name)[0] / 1e6) for name in states.STATES} == {"2GB": 2204, "50k": 51, "one": 2000, "45MB": 94}


def test_changing_a_fraction_changes_about_that_many_bytes():
    state = states.build("2GB", scale=0.02)
    before = {path: tensor.clone() for path, tensor in states.tensors_of(state)}
    changed_bytes = states.change_fraction(state, 0.1)
    found_bytes = sum(tensor.nbytes for path, tensor in states.tensors_of(state) if not torch.equal(tensor, before[path]))
    assert found_bytes == changed_bytes
    assert 0.08 < changed_bytes / states.size_bytes(state) < 0.11


def test_files_that_were_made_cold_are_not_in_the_page_cache(tmp_path):
    file = tmp_path / "data"
    file.write_bytes(bytes(2**20))
    machine.make_warm(file)
    try:
        machine.make_cold(file)
    except OSError as error:
        pytest.skip(str(error))
    assert machine.cached_bytes(file) == 0


def test_charts_are_well_formed():
    bars = bar_chart([Panel("A & B", [Bar("<ours>", 1.0, 0.9, 1.2, True), Bar("theirs", 2.0, 2.0, 2.0, False)], "limit", 0.8)])
    lines = line_chart([Plot("Time", "MB", "s", [Line("a", [(10, 0.1), (100, 1.0)], "#123456"), Line("b", [(10, 0.2)], "#654321")])])
    for drawing in (bars, lines):
        assert ElementTree.fromstring(drawing).tag.endswith("svg")


def test_tables_are_replaced_between_their_markers_only(tmp_path):
    document = tmp_path / "README.md"
    document.write_text("before\n<!-- tables -->\nold\n<!-- end of tables -->\nafter\n", "utf-8")
    publish.replace_between(document, "tables", "new")
    assert document.read_text("utf-8") == "before\n<!-- tables -->\n\nnew\n\n<!-- end of tables -->\nafter\n"
    with pytest.raises(ValueError, match="markers"):
        publish.replace_between(document, "others", "new")


def test_numbers_keep_three_digits_and_their_spread():
    assert with_spread([1.234, 1.0, 2.0]) == "1.23 (1.00..2.00)"
    assert table(["a", "b"], [["x", "10"]]) == "| a |  b |\n|---|---:|\n| x | 10 |"


def _results(measurements):
    settings = {
        "date": "2026-11-21",
        "rounds": 1,
        "repeats": 1,
        "scales": {"50k": 1.0},
        "tensor_bytes": {"50k": 51_200_000},
        "left_out": [],
    }
    facts = {"processor": "a", "cores": 2, "memory_gb": 1, "system": "Linux", "file_system": "ext4", "python": "3.11", "libraries": {}}
    results = Results(settings, json.loads(json.dumps(facts)))
    results.add(measurements)
    return results


def test_units_of_work_are_measured_and_judged(tmp_path, capsys):
    assert progress.main(["--quick", "--units", "1000", "--scratch", str(tmp_path), "--results", str(tmp_path / "kept")]) == 0
    printed = capsys.readouterr().out
    assert read_results(tmp_path / "kept/progress.json").errors() == []
    assert "not measured" not in printed
    assert "opening 1,000 units, processor time: less than 3 s" in printed


def test_a_run_that_was_cut_short_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    arguments = ["--states", "45MB", "--peers", "ckptfmt", "--scale", "0.02", "--rounds", "1"]
    arguments += ["--scratch", str(tmp_path / "scratch"), "--results", str(tmp_path / "kept")]
    subjects = []

    def fake_child(job):
        subjects.append(job.subject)
        if subjects == ["limits", "ckptfmt"]:
            raise KeyboardInterrupt
        return [Measurement(job.state, cases.SAVE, job.subject, 1.0)]

    monkeypatch.setattr(run, "run_child", fake_child)
    with pytest.raises(KeyboardInterrupt):
        run.main(arguments)
    assert run.main(arguments) == 0
    assert subjects == ["limits", "ckptfmt", "ckptfmt", "startup"]
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["last.json"]
    assert "goes on after 1 processes" in capsys.readouterr().err
    assert run.main(arguments) == 0
    assert subjects[4:] == ["limits", "ckptfmt", "startup"]


def test_what_grows_faster_than_its_input_is_named(tmp_path):
    lines = [Line("ckptfmt, even", [(10, 1.0), (100, 10.0)], "#1"), Line("ckptfmt, steep", [(10, 1.0), (100, 50.0)], "#2")]
    assert "ckptfmt, steep from 10 to 100: 10.0 times the input, 50.0 times the time." in scaling._growth(lines)
    assert scaling._growth(lines[:1]).endswith("nothing.")
    results = _results([])
    scaling._measure_runs((3, 6), results, tmp_path / "run", 1)
    assert all(results.median(f"steps:{count}", case, "ckptfmt") for count in (3, 6) for case in scaling.RUN_CASES)


def test_a_training_tells_what_its_saves_cost(tmp_path):
    text = training.frozen_backbone(tmp_path, 0.01)
    assert "at most 1.05 times the head and 1 MB" in text
    assert training.small_saves(tmp_path, 0.01).count("Run.save") == 2
