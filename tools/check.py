"""Run every check of the project: format, lint, types, floors, tests. CI runs this and nothing else.

Each step is one command. All steps run even when one fails, so that one look shows everything; a step that
passes says one line, a step that fails shows its whole output. The tests speak while they run, and their
closing line comes last.

    python tools/check.py                  every step
    python tools/check.py --only types     one step; may be given several times
    python tools/check.py --fix            format and mend what can be mended, then check
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLOORS = "tests/test_floors.py"


@dataclass(frozen=True)
class Step:
    """One check: `arguments` follow `python -m`; `fixes` are commands of the same kind that mend what it finds."""

    name: str
    arguments: Sequence[str]
    fixes: Sequence[Sequence[str]] = ()
    is_live: bool = False


@dataclass(frozen=True)
class Outcome:
    name: str
    exit_status: int
    seconds: float
    closing_line: str

    @property
    def has_passed(self) -> bool:
        return self.exit_status == 0

    def __str__(self) -> str:
        return f"{'ok' if self.has_passed else 'FAILED':6}  {self.name:6}  {self.seconds:6.1f} s  {self.closing_line.strip('= ')}"


STEPS = (
    Step("format", ("ruff", "format", "--check"), fixes=[("ruff", "format")]),
    Step("lint", ("ruff", "check"), fixes=[("ruff", "check", "--fix", "--quiet"), ("ruff", "format", "--quiet")]),
    Step("types", ("mypy",)),
    Step("floors", ("pytest", "-q", FLOORS)),
    Step("tests", ("pytest", "-n", "2", "--ignore", FLOORS), is_live=True),
)


def run_step(step: Step) -> Outcome:
    """Run one step; its output is shown as it comes if the step is live, else only when it fails."""
    started = time.perf_counter()
    lines: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-m", *step.arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for line in process.stdout or ():
            lines.append(line)
            if step.is_live:
                print(line, end="", flush=True)
    if process.returncode and not step.is_live:
        print("".join(lines), end="")
    closing_line = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
    outcome = Outcome(step.name, process.returncode, time.perf_counter() - started, closing_line)
    print(outcome, flush=True)
    return outcome


def fix(steps: Sequence[Step]) -> None:
    for command in (command for step in steps for command in step.fixes):
        subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run every check of the project.")
    parser.add_argument("--fix", action="store_true", help="first format and mend what can be mended")
    parser.add_argument(
        "--only", action="append", choices=[step.name for step in STEPS], metavar="STEP", help="format, lint, types, floors or tests"
    )
    arguments = parser.parse_args()
    steps = [step for step in STEPS if arguments.only is None or step.name in arguments.only]

    if arguments.fix:
        fix(steps)
    outcomes = [run_step(step) for step in steps]
    failed = [outcome.name for outcome in outcomes if not outcome.has_passed]

    print(f"failed: {', '.join(failed)}" if failed else "everything passes")
    if steps[-1].name == "tests":
        print(outcomes[-1].closing_line)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
