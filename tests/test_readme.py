"""Everything that the README shows is run as it stands there."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (ckpt-inspect .*)$", README, re.MULTILINE)


def write_studies_of_optuna(place: Path) -> None:
    """Write the files of Optuna's own that a reader of the README is supposed to have."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(place / "study.log")))
    for storage in (f"sqlite:///{place / 'study.db'}", journal, None):
        study = optuna.create_study(study_name="lr", storage=storage)
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    (place / "study.pkl").write_bytes(pickle.dumps(study))


@pytest.fixture(scope="module")
def toured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the README's Python was run, block after block."""
    place = tmp_path_factory.mktemp("readme")
    write_studies_of_optuna(place)
    script = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    (place / "tour.py").write_text(script, encoding="utf-8")
    done = subprocess.run([sys.executable, "-W", "error", "tour.py"], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return place


def test_the_python_of_the_readme_runs_without_a_warning(toured: Path) -> None:
    assert (toured / "runs/exp1/step-00000005/manifest.json").is_file()


def test_the_commands_of_the_readme_run_one_after_the_other(toured: Path) -> None:
    for command in COMMANDS:
        done = subprocess.run(
            [sys.executable, "-m", "ckpt_inspect", *command.split()[1:]],
            cwd=toured,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "COLUMNS": "80"},
        )
        assert done.returncode == 0, f"$ {command}\n{done.stderr}"
        assert done.stdout.strip(), command


def test_every_file_that_the_readme_names_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not missing


def test_the_map_of_the_house_names_every_folder_of_the_package() -> None:
    folders = {path.name for path in (ROOT / "ckptfmt").iterdir() if (path / "__init__.py").is_file()}
    house = README[README.index("## The house") :]
    assert all(f"  {folder}/" in house for folder in folders)
