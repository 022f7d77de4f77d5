"""`ckpt-inspect history`: the table, charts in a terminal and in files."""

from __future__ import annotations

import io
import json
import math
import os
import re
from xml.etree import ElementTree

import pytest

import ckptfmt
from ckpt_inspect import histories
from ckpt_inspect.output.plot import PLOT_ROWS, plot_lines, range_of, stretches, thinned
from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.svg import html_document, svg_document

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def run_path(tmp_path):
    path = str(tmp_path / "run")
    with ckptfmt.Run(path, durable=False) as run:
        for step in range(1, 101):
            run.log(step, {"train.loss": 1 / step})
            if step % 25 == 0:
                run.save(step, {"x": step}, metrics={"val.loss": math.nan if step == 50 else 1 / step})
    return path


# The chart


def test_a_chart_has_an_axis_with_labels_and_a_line():
    assert plot_lines([(0, 0.0), (50, 1.0), (100, 0.5)], 40, is_ascii=True) == [
        "  1 +                 ***",
        "    |               **   ****",
        "    |             **         ****",
        "    |           **               ****",
        "0.5 +         **                     ***",
        "    |       **",
        "    |     **",
        "    |   **",
        "    | **",
        "  0 +*",
        "    +-----------------------------------",
        "     0              step             100",
    ]


def test_braille_has_eight_dots_to_a_character():
    lines = plot_lines([(0, 0.0), (1, 1.0)], 30, is_ascii=False)

    assert len(lines) == PLOT_ROWS + 2
    assert all(ord(" ") == ord(character) or 0x2800 < ord(character) < 0x2900 for line in lines[:PLOT_ROWS] for character in line[5:])
    assert lines[0].startswith("  1 ┤")
    assert lines[-1].split() == ["0", "step", "1"]


def test_what_is_not_finite_is_a_gap():
    points = [(0, 1.0), (1, 2.0), (2, math.nan), (3, math.inf), (4, 1.0), (5, -math.inf), (6, 2.0), (7, 2.0)]

    assert list(stretches(points)) == [[(0, 1.0), (1, 2.0)], [(4, 1.0)], [(6, 2.0), (7, 2.0)]]
    columns = {index for line in plot_lines(points, 40, is_ascii=True)[:PLOT_ROWS] for index, char in enumerate(line) if char == "*"}
    assert not any(15 < column < 22 for column in columns)


def test_a_spike_of_one_step_is_seen_however_long_the_series_is():
    points = [(step, 0.0) for step in range(100_000)]
    points[54_321] = (54_321, 1.0)

    assert max(value for _, value in thinned(points, range_of([0, 99_999]), 70)) == 1.0
    assert len(thinned(points, range_of([0, 99_999]), 70)) <= 4 * 70
    assert "*" in plot_lines(points, 80, is_ascii=True)[0]


@pytest.mark.parametrize(
    "points",
    [
        [(5, 1.0)],
        [(0, 0.0), (1, 0.0)],
        [(0, 1e308), (1, -1e308)],
        [(0, 5e-324), (1, 0.0)],
        [(0, 1e-300), (2**62, 2e-300)],
        [(0, math.inf), (1, 3.0)],
    ],
)
def test_odd_series_are_drawn_too(points):
    lines = plot_lines(points, 40, is_ascii=True)

    assert max(map(len, lines)) <= 40
    assert any("*" in line for line in lines)
    ElementTree.fromstring(svg_document("x", [("m", "", points)]))


def test_a_series_without_finite_values_has_no_chart():
    assert plot_lines([(0, math.nan)], 40, is_ascii=True) == []
    assert "no value is a finite number" in svg_document("x", [("m", "", [(0, math.nan)])])


# SVG


def test_a_drawing_is_self_contained_and_has_a_panel_for_each_metric():
    text = svg_document("runs/exp1", [("loss", "min 1", [(0, 1.0), (1, 2.0), (2, math.nan), (3, 1.0)]), ("accuracy", "", [(0, 0.5)])])
    root = ElementTree.fromstring(text)

    assert len(root.findall(f"{SVG}g")) == 2
    assert [len(panel.findall(f"{SVG}polyline")) for panel in root.findall(f"{SVG}g")] == [1, 0]
    assert [len(panel.findall(f"{SVG}circle")) for panel in root.findall(f"{SVG}g")] == [1, 1]
    assert not re.search(r"<script|href|url\(|@import", text)
    assert text.count("http") == 1


def test_names_cannot_break_out_of_a_drawing():
    hostile = "</text><script>alert(1)</script>\x1b[31m\u202e&\x00"
    text = svg_document(hostile, [(hostile, hostile, [(0, 1.0)])])

    ElementTree.fromstring(text)
    page = html_document(hostile, text)
    assert "<script" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page


# The command


def test_history_shows_a_table_and_a_chart_of_each_metric(run_path, run):
    status, out, err = run("history", run_path)

    assert (status, err) == (0, "")
    assert max(len(line) for line in out.splitlines() if run_path not in line) <= 80
    assert "20 of 100 rows; -v shows all, --json has them exactly" in out
    assert re.search(r"\ntrain.loss  min 0.01 at 100, max 1 at 1, last 0.01\n", out)
    assert re.search(r"\nval.loss  min 0.01 at 100, max 0.04 at 25, last 0.01, 1 not finite\n", out)
    assert re.search(r"\n +50  [-0-9]+ [:0-9]+ +0.02 +nan\n", out)


def test_metrics_can_be_chosen(run_path, run):
    status, out, _ = run("history", run_path, "--metric", "val.loss")

    assert status == 0
    assert "train.loss" not in out
    assert len([line for line in out.splitlines() if re.match(r" *\d+  2", line)]) == 4
    assert run("history", run_path, "--metric", "x")[::2] == (
        2,
        f"ckpt-inspect: {run_path}: no metric is named 'x'\n  There are: train.loss, val.loss.\n",
    )


def test_history_is_a_document_with_every_row(run_path, run):
    document = json.loads(run("history", run_path, "--json")[1])

    assert (document["schema_version"], document["kind"], document["metrics"]) == (1, "history", ["train.loss", "val.loss"])
    assert len(document["rows"]) == 100
    assert document["rows"][49]["metrics"] == {"train.loss": 0.02, "val.loss": "NaN"}


def test_an_ascii_output_gets_an_ascii_chart():
    assert Screen(io.TextIOWrapper(io.BytesIO(), "ascii")).is_ascii
    assert not Screen(io.TextIOWrapper(io.BytesIO(), "utf-8")).is_ascii


@pytest.mark.parametrize("name", ["loss.svg", "loss.html"])
def test_a_plot_is_written_whole_and_replaces_an_older_one(run_path, run, tmp_path, name):
    target = tmp_path / name
    target.write_text("old")
    status, out, _ = run("history", run_path, "--plot", str(target))

    assert status == 0
    assert f"drawn to {target}" in out
    assert "<svg" in target.read_text("utf-8")
    assert sorted(os.listdir(tmp_path)) == [name, "run"]


def test_a_png_without_a_renderer_names_the_alternative(run_path, run, tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(histories, "import_module", missing)
    status, _, err = run("history", run_path, "--plot", str(tmp_path / "loss.png"))

    assert status == 2
    assert "which is not installed" in err
    assert "loss.svg instead" in err
    assert os.listdir(tmp_path) == ["run"]


def test_a_png_is_what_the_renderer_makes_of_the_drawing(run_path, run, tmp_path, monkeypatch):
    class Renderer:
        @staticmethod
        def svg2png(*, bytestring, scale, background_color):
            ElementTree.fromstring(bytestring)
            return b"\x89PNG"

    monkeypatch.setattr(histories, "import_module", lambda name: Renderer)

    assert run("history", run_path, "--plot", str(tmp_path / "loss.png"))[0] == 0
    assert (tmp_path / "loss.png").read_bytes() == b"\x89PNG"


def test_other_kinds_of_files_are_refused(run_path, run):
    assert "expected a name that ends with .svg, .html or .png" in run("history", run_path, "--plot", "loss.pdf")[2]
    assert run("history", run_path, "--plot", "/nowhere/loss.svg")[0] == 10


def test_a_run_without_metrics_says_so(tmp_path, run):
    with ckptfmt.Run(tmp_path / "run", durable=False) as writing:
        writing.save(1, {})

    assert run("history", str(tmp_path / "run"))[1].endswith("  no metrics yet\n")
    assert "has no metrics to draw yet" in run("history", str(tmp_path / "run"), "--plot", "x.svg")[2]


def test_a_damaged_journal_is_told_and_the_checkpoints_are_shown(run_path, run):
    folder = os.path.join(run_path, "history")
    segment = os.path.join(folder, os.listdir(folder)[0])
    os.chmod(segment, 0o644)
    with open(segment, "r+b") as file:
        file.seek(300)
        file.write(b"\xff" * 40)
    status, out, err = run("history", run_path)

    assert status == 0
    assert "Only what the checkpoints say is shown." in err
    assert "val.loss" in out
    assert "train.loss" not in out
    assert run("verify", run_path)[0] == 1
    assert run(folder)[0] == 1


def test_hostile_names_are_escaped(tmp_path, run, monkeypatch):
    monkeypatch.setattr("ckptfmt.run.run.metric_values", dict)
    with ckptfmt.Run(tmp_path / "run", durable=False) as writing:
        writing.log(1, {"\x1b[31mred\n": 1.0})
    _, out, _ = run("history", str(tmp_path / "run"))

    assert "\x1b" not in out
    assert "\\x1b[31mred\\n" in out


# The journal itself


def test_a_journal_shows_its_last_records_and_a_torn_tail(run_path, run):
    folder = os.path.join(run_path, "history")
    segment = os.path.join(folder, os.listdir(folder)[0])
    os.chmod(segment, 0o644)
    with open(segment, "ab") as file:
        file.write(b"\x07" * 9)
    status, out, _ = run(folder)

    assert status == 0
    assert "  journal    104 records\n" in out
    assert "  torn tail  9 bytes that no record was confirmed in\n" in out
    assert '  104  {"step": 100, "metrics": {"val.loss": 0.01}' in out
    document = json.loads(run(folder, "--json")[1])
    assert (document["kind"], document["record_count"], document["torn_bytes"], len(document["last_records"])) == ("journal", 104, 9, 10)


def test_verify_covers_the_journals_of_a_run(run_path, run):
    status, out, _ = run("verify", run_path)

    assert status == 0
    assert out.endswith("4 checkpoints, 1 journal: 5 sound\n")
    assert f"sound       {run_path}/history\n" in out or f"sound       {run_path}/history  journal" in out
    document = json.loads(run("verify", run_path, "--json")[1])
    assert [found["sound"] for found in document["journals"]] == [True]
    assert len(document["checkpoints"]) == 4
    assert run("verify", os.path.join(run_path, "history"))[0] == 0
