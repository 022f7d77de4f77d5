"""`ckpt-inspect report`: what is on the page, that it is inert, and what it may replace."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import warnings
from itertools import pairwise

import numpy as np
import pytest

import ckptfmt
from ckpt_inspect.main import main
from ckpt_inspect.output.chart import Chart, Series, drawing
from ckpt_inspect.output.markup import element, join, named, text
from ckpt_inspect.output.shell import command_line, shell_quoted
from ckpt_inspect.output.visible import visible
from tests.unit.page import check_is_inert

HOSTILE = "</title><script>alert(1)</script>\"' onload=x \x1b[31m\u202e& {} <!--"


def write_run(path, *, metric="val.loss", steps=(100, 200, 300, 400), config=None):
    fingerprint = ckptfmt.Fingerprint(seed=1, config=config or {"lr": 0.1}, environment=False)
    with ckptfmt.Run(path, durable=False, fingerprint=fingerprint) as run:
        for step in range(1, steps[-1] + 1) if steps else ():
            run.log(step, {"train.loss": math.nan if step == 50 else 1 / step, "adversarial.loss": 1e4 / step, "lr": 0.1})
            if step in steps:
                state = {"model": {"w": np.full(500, step, np.float32), "frozen": np.zeros(20_000)}}
                run.save(step, state, metrics={metric: 1 / step if step < 300 else 0.5, "epoch": step})
        calls = run.progress("calls", total=10)
        for key in list(calls.pending(range(4))):
            calls.done(key, "x")
        for key in list((folds := run.progress("folds")).pending(range(3))):
            folds.done(key)
    return str(path)


@pytest.fixture(scope="module")
def run_path(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture
def report(tmp_path, run):
    def report(path, *options):
        target = tmp_path / "report.html"
        status, _, err = run("report", str(path), "-o", str(target), *options)
        assert (status, err) == (0, "")
        return target.read_text("utf-8")

    return report


# What is on the page


def test_the_page_tells_where_the_run_stands(run_path, report):
    page = check_is_inert(report(run_path))

    assert "Nobody is writing: it resumes from step 400." in page.text
    for words in ("step 400", "lowest val.loss", "at step 200", "checkpoints", "on the disk", "more without sharing", "verified"):
        assert words in page.text
    assert page.text_of("h2") == "HistoryUnits of workCheckpointsVerifiedFingerprintFrom here"


def test_every_section_has_its_facts(run_path, report):
    page = check_is_inert(report(run_path))

    assert "Sound: 4 of 4 checkpoints, 2 of 2 progresses, 1 of 1 journal; checked was all but the tensors' data." in page.text
    assert "lowest val.loss" in page.text
    assert "40 %" in page.text
    assert ", 4 of 10 done" in page.text
    assert "config.lr" in page.text
    assert "this page loads nothing" in page.text.lower()


def test_a_writer_is_told(run_path, report, tmp_path):
    path = write_run(tmp_path / "run")
    with ckptfmt.Run(path, on_mismatch="ignore") as writing:
        writing.log(401, {})
        page = check_is_inert(report(path))

    assert f"Process {os.getpid()} on " in page.text
    assert "is writing. Stopped now, it resumes from step 400." in page.text.replace("  ", " ")
    assert "next save" in page.text


def test_damage_is_the_first_thing_that_is_told(report, tmp_path, run):
    path = write_run(tmp_path / "run")
    os.truncate(os.path.join(path, "step-00000400", "manifest.json"), 50)
    page = check_is_inert(report(path))

    assert "The newest checkpoint, step 400, is damaged: it resumes from step 300." in page.text
    assert "E003 error" in page.text
    assert "1 damaged" in page.text
    document = json.loads(run("report", path, "-o", str(tmp_path / "report.html"), "--json")[1])
    assert (document["ok"], document["damaged_count"]) == (False, 1)


def test_only_verifying_every_byte_finds_a_changed_tensor(report, tmp_path):
    path = write_run(tmp_path / "run", steps=(100, 200))
    folder = os.path.join(path, "step-00000200")
    shard = next(name for name in os.listdir(folder) if name.endswith(".safetensors") and os.stat(os.path.join(folder, name)).st_nlink == 1)
    os.chmod(os.path.join(folder, shard), 0o644)
    with open(os.path.join(folder, shard), "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")

    assert "is damaged" not in report(path)
    page = check_is_inert(report(path, "--verify", "full"))
    assert "The newest checkpoint, step 200, is damaged: it resumes from step 100." in page.text
    assert "E040 error" in page.text
    assert "Nothing was verified for this page." in report(path, "--verify", "none")


def test_an_empty_run_has_a_page_too(report, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "run.json").write_text("{}")
    page = check_is_inert(report(tmp_path / "empty"))

    assert "there is nothing to resume from yet" in page.text
    assert "No metrics yet." in page.text
    assert "There is nothing to verify yet." in page.text


def test_many_checkpoints_are_folded_and_what_stands_out_is_not(report, tmp_path):
    path = write_run(tmp_path / "run", steps=(100, 200))
    source = os.path.join(path, "step-00000100")
    for step in range(1000, 1150):
        os.mkdir(os.path.join(path, f"step-{step:08d}"))
        for name in os.listdir(source):
            os.link(os.path.join(source, name), os.path.join(path, f"step-{step:08d}", name))
    html = report(path, "--verify", "none")
    page = check_is_inert(html)

    assert "older checkpoints" in page.text
    assert "lowest val.loss" in html.partition("<details>")[0].partition('id="checkpoints"')[2]


# Charts


def test_series_of_one_range_share_a_chart_and_others_do_not(run_path, report):
    html = report(run_path)
    figures = re.findall(r"<figure>.*?</figure>", html, re.DOTALL)

    names = [re.findall(r"<b><bdi>(.*?)</bdi>", figure) for figure in figures]
    assert names == [["train.loss", "val.loss"], ["adversarial.loss"], ["lr"], ["epoch"]]
    assert [figure.count('<svg viewBox="0 0 440') for figure in figures] == [2, 2, 1, 2]


def test_what_is_not_finite_is_a_gap_and_marked():
    points = [(step, math.nan if step in (3, 4) else float(step)) for step in range(8)]
    svg = drawing(Chart("c", [Series("loss", points)]), is_log=False)

    assert svg.count("<polyline") == 2
    assert re.findall(r"<title>(.*?)</title>", svg) == ["loss is not finite at step 3", "loss is not finite at step 4"]


def test_a_logarithmic_scale_spreads_decades_evenly():
    points = [(step, 10.0**-step) for step in range(5)]
    svg = drawing(Chart("c", [Series("loss", points)]), is_log=True)
    heights = [float(pair.split(",")[1]) for pair in re.search(r'<polyline[^>]* points="([^"]*)"', svg)[1].split()]

    gaps = [after - before for before, after in pairwise(heights)]
    assert max(gaps) - min(gaps) < 0.2
    assert all(f">{tick}<" in svg for tick in ("1", "0.1", "0.01", "0.001", "0.0001"))


def test_a_logarithmic_scale_leaves_out_what_has_no_logarithm():
    chart = Chart("c", [Series("x", [(0, -1.0), (1, 0.0), (2, 1.0), (3, 100.0)])])

    assert chart.has_log
    assert drawing(chart, is_log=True).count(",") == 2 + 1
    assert not Chart("c", [Series("x", [(0, -1.0), (1, 0.0)])]).has_log


def test_a_hundred_thousand_points_are_thinned_and_a_spike_stays():
    points = [(step, 0.5) for step in range(100_000)]
    points[54_321] = (54_321, 9.0)
    svg = drawing(Chart("c", [Series("loss", points)]), is_log=False)

    assert len(svg) < 40_000
    assert min(float(pair.split(",")[1]) for pair in re.search(r' points="([^"]*)"', svg)[1].split()) < 40


@pytest.mark.parametrize(
    "values",
    [[1.0], [0.0, 0.0], [1e308, -1e308], [5e-324, 1e-300], [math.inf, 3.0], [math.nan], [-1.0, -2.0], [1e-9, 1e9]],
)
def test_odd_series_are_drawn_too(values):
    chart = Chart(HOSTILE, [Series(HOSTILE, list(enumerate(values)))], marks=[(0, HOSTILE)])
    for is_log in (False, True):
        svg = drawing(chart, is_log=is_log)
        assert "<script" not in svg
        assert not re.search(r'="(nan|inf|-inf)', svg)


# Names of any kind


def test_text_is_never_markup():
    assert text("<&>\"'\n\u202e") == "&lt;&amp;&gt;&quot;&#x27;\\n\\u202e"
    assert (
        element("p", "<b>", element("b", "x"), title='"', hidden=False, data_x=1.25)
        == '<p title="&quot;" data-x="1.2">&lt;b&gt;<b>x</b></p>'
    )
    assert join(["<", None, [named(">")]]) == "&lt;<bdi>&gt;</bdi>"


def test_hostile_names_change_nothing_but_texts(report, tmp_path, monkeypatch):
    for module in ("ckptfmt.run.run", "ckptfmt.checkpoint.saving"):
        monkeypatch.setattr(f"{module}.metric_values", dict)
    plain = check_is_inert(report(write_run(tmp_path / "plain", metric="!" + "p" * len(visible(HOSTILE)) + " loss", config={"p": "v"})))
    hostile = check_is_inert(report(write_run(tmp_path / HOSTILE.replace("/", "_"), metric=HOSTILE + " loss", config={HOSTILE: HOSTILE})))

    assert hostile.tags == plain.tags
    assert [name for _, name, _ in hostile.attributes] == [name for _, name, _ in plain.attributes]
    assert "\\u202e" in hostile.text


def test_a_name_of_500_characters_is_cut_and_there_whole_when_pointed_at(report, tmp_path):
    name = "n" * 490 + ".loss"
    html = report(write_run(tmp_path / "run", metric=name, steps=(100, 200)))

    check_is_inert(html)
    assert f'<bdi title="{name}">nnn' in html
    assert f">{name}<" not in html


# Commands


@pytest.mark.parametrize("word", ["plain", "with space", "it's", '$HOME `x` "q"', "-n", "\n\t\x1b[31m'\\", "größe \u202e", "ü'\x07", ""])
def test_commands_mean_the_path_that_they_show(word):
    quoted = shell_quoted(word)

    assert quoted.isprintable()
    shown = subprocess.run(["bash", "-c", f"printf %s {command_line(word)}"], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"})
    assert shown.stdout.decode("utf-8") == word


def test_the_commands_on_the_page_run(report, tmp_path):
    path = write_run(tmp_path / "it's a run", steps=(100, 200))
    page = check_is_inert(report(path))
    commands = [data for tag, data in page.texts if tag == "code"]

    assert commands[0] == f"run = ckptfmt.Run({path!r}, resume='must')"
    space: dict[str, object] = {"ckptfmt": ckptfmt}
    exec(commands[0].replace("resume='must'", "resume='must', on_mismatch='ignore'"), space)
    assert space["run"].latest_step() == 200
    inspections = [command for command in commands if command.startswith("ckpt-inspect") and " watch " not in command]
    assert len(inspections) >= 3
    for command in inspections:
        words = json.loads(
            subprocess.run(
                ["bash", "-c", f'f() {{ python3 -c "import json,sys; print(json.dumps(sys.argv[1:]))" "$@"; }}; f {command}'],
                capture_output=True,
                check=True,
                cwd=tmp_path,
            ).stdout
        )
        assert words[2] == path
        if words[1] != "convert":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert main(words[1:]) == 0


# The file


def test_a_report_is_replaced_and_any_other_file_is_not(run_path, run, tmp_path):
    target = tmp_path / "report.html"
    for content in ("<!doctype html><p>mine", "notes", '<p>name="generator" content="ckpt-inspect report 1"'):
        target.write_text(content)
        status, _, err = run("report", run_path, "-o", str(target))
        assert (status, target.read_text()) == (2, content)
        assert err == f"ckpt-inspect: {target}: exists already, and is no report\n  Give another name, or --force to replace it.\n"
    assert run("report", run_path, "-o", str(target), "--force")[0] == 0
    assert run("report", run_path, "-o", str(target))[0] == 0
    target.write_text("")
    assert run("report", run_path, "-o", str(target))[0] == 0
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_report_goes_to_standard_output_too(run_path, capfdbinary):
    assert main(["report", run_path, "-o", "-"]) == 0
    check_is_inert(capfdbinary.readouterr().out.decode("utf-8"))


@pytest.mark.parametrize(("target", "status"), [("{tmp}", 2), ("{tmp}/nowhere/x.html", 10), ("/dev/null", 2), ("a\0b", 2)])
def test_what_cannot_be_written_is_refused(run_path, run, tmp_path, target, status):
    assert run("report", run_path, "-o", target.format(tmp=tmp_path))[0] == status
    assert os.listdir(tmp_path) == []


def test_what_is_no_run_is_refused(run_path, run, tmp_path):
    target = str(tmp_path / "x.html")

    assert "expected a run, found a checkpoint" in run("report", os.path.join(run_path, "step-00000100"), "-o", target)[2]
    assert run("report", str(tmp_path / "nothing"), "-o", target)[0] == 10
    assert run("report", run_path)[0] == 2
    assert run("report", run_path, "-o", "-", "--json")[0] == 2
    assert os.listdir(tmp_path) == []
