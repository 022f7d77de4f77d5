"""Studies in `ckpt-inspect report` and `watch`: charts, tables and changes, without Optuna on the reader's side."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import optuna
import pytest

import ckptfmt
from ckpt_inspect.main import main
from ckpt_inspect.sources.run_watch import RunWatch
from ckpt_inspect.views.watch_changes import changes_between
from tests.unit.page import check_is_inert

HOSTILE = "</td><script>alert(1)</script>"


@pytest.fixture(autouse=True)
def quiet_optuna():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def objective(trial):
    lr = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    kind = trial.suggest_categorical(HOSTILE, [HOSTILE, "plain"])
    if trial.number == 3:
        raise optuna.TrialPruned
    return float("nan") if trial.number == 4 else abs(lr - 0.01) + (kind == "plain")


@pytest.fixture
def run_path(tmp_path):
    with ckptfmt.Run(tmp_path / "run", durable=False) as run:
        study = run.study("search", direction="minimize", sampler=optuna.samplers.RandomSampler(seed=1))
        ckptfmt.optimize(study, objective, n_trials=12)
        front = run.study("front", directions=["minimize", "maximize"], sampler=optuna.samplers.RandomSampler(seed=1))
        ckptfmt.optimize(front, lambda trial: (trial.suggest_float("x", 0, 1), trial.params["x"]), n_trials=5)
    return str(tmp_path / "run")


def report(run_path, tmp_path):
    assert main(["report", run_path, "-o", str(tmp_path / "page.html")]) == 0
    return (tmp_path / "page.html").read_text("utf-8")


def test_studies_are_charted_and_ranked(run_path, tmp_path):
    html = report(run_path, tmp_path)
    page = check_is_inert(html)
    section = html.partition('id="studies"')[2].partition("<h2")[0]

    assert "Studies" in page.text_of("h2")
    assert "12 trials, best " in page.text
    assert "10 complete, 1 pruned, 1 failed." in page.text
    assert "5 trials, 5 on the Pareto front" in page.text
    assert section.count("<figure>") == 1
    assert section.count('class="dots') == 1
    first = re.search(r">search<.*?<tbody>(.*?)</tbody>", section)[1]
    values = [float(row) for row in re.findall(r'<td class="number">([^<]*)</td>', first)]
    assert values == sorted(values)
    assert len(values) == 10
    assert HOSTILE in page.text
    assert "Sound: 2 of 2 studies" in page.text


def test_a_damaged_study_is_told(run_path, tmp_path):
    folder = os.path.join(run_path, "studies", "search")
    segment = os.path.join(folder, next(name for name in os.listdir(folder) if os.path.getsize(os.path.join(folder, name)) > 500))
    os.chmod(segment, 0o644)
    with open(segment, "r+b") as file:
        file.seek(300)
        file.write(b"\xff" * 40)
    page = check_is_inert(report(run_path, tmp_path))

    assert "1 damaged" in page.text
    assert "5 trials, 5 on the Pareto front" in page.text


def test_watch_shows_studies_and_their_changes(run_path, tmp_path, capsys):
    with RunWatch(run_path) as looking:
        before = looking.look()
        again = looking.look()
        assert [id(found) for found in again.studies] == [id(found) for found in before.studies]
        with ckptfmt.Run(run_path, durable=False) as run:
            study = run.study("search", direction="minimize", sampler=optuna.samplers.RandomSampler(seed=1))
            ckptfmt.optimize(study, objective, n_trials=13)
            after = looking.look()
        changes = list(changes_between(before, after))

    assert [(change.kind, change.document.get("trial_count")) for change in changes] == [("writer", None), ("study", 13)]
    assert main(["watch", run_path, "--once"]) == 0
    assert "  search  13 trials, best " in capsys.readouterr().out
    assert main(["watch", run_path, "--once", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {study["name"]: study["trial_count"] for study in document["studies"]} == {"search": 13, "front": 5}


def test_reading_studies_needs_no_optuna(run_path, tmp_path):
    script = (
        "import sys; sys.modules.update(dict.fromkeys(['optuna', 'torch', 'numpy']));"
        "from ckpt_inspect.main import main; sys.exit(main(sys.argv[1:]))"
    )
    for command in (["report", run_path, "-o", str(tmp_path / "x.html")], ["watch", run_path, "--once"]):
        finished = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, check=False)
        assert (finished.returncode, finished.stderr) == (0, "")
