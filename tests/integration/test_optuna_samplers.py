"""Every sampler and pruner of the table in the README goes on, in a new process and built with another seed, as if nothing had happened."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parent / "optuna_cases.py"
README = Path(__file__).resolve().parents[2] / "README.md"


def run_cases(directory: Path, *, seed: int, portion: float) -> dict[str, list[str]]:
    command = [sys.executable, "-W", "error", str(PROGRAM), str(directory), str(seed), str(portion)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    trials: dict[str, list[str]] = json.loads(done.stdout)
    return trials


def documented_table() -> dict[str, str]:
    """The rows `| sampler | identical |` of the README's section about studies."""
    section = README.read_text().partition("## Studies")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^|]+)` \| (yes|no) \|$", section, re.MULTILINE)
    return dict(rows)


def test_the_documented_table_says_which_samplers_resume_identically(tmp_path: Path) -> None:
    whole = run_cases(tmp_path / "whole", seed=1, portion=1)
    first = run_cases(tmp_path / "parts", seed=1, portion=0.55)
    resumed = run_cases(tmp_path / "parts", seed=2, portion=1)

    assert all(0 < len(first[name]) < len(whole[name]) for name in whole)
    found = {name.replace("`", ""): "yes" if resumed[name] == trials else "no" for name, trials in whole.items()}
    assert found == documented_table()
    assert set(found.values()) == {"yes"}
