"""Show that being killed changes nothing: train twice, once undisturbed and once killed with SIGKILL at random moments.

Both trainings run tools/demo/train.py side by side in child processes, started with the same command each time. The
demo passes, with exit status 0, when every loss, every weight and the optimizer's whole state agree bit by bit.
"""

import argparse
import hashlib
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import ckptfmt

TRAIN = Path(__file__).with_name("train.py")
STEP_COUNT = 500
# Each kill falls somewhere in its own part of the training, so the second one meets a process that has resumed.
KILL_RANGES = ((0.15, 0.45), (0.55, 0.90))
COLUMNS = 80
STARTED = time.monotonic()


def say(text: str = "") -> None:
    print(textwrap.fill(text, COLUMNS), flush=True)


def tell(name: str, text: str) -> None:
    """One line of the story: when, which training, what happened."""
    print(f"{time.monotonic() - STARTED:6.1f} s  {name:<7} {text}", flush=True)


@dataclass
class Training:
    """One training over all the processes it takes: what they printed and how they ended."""

    directory: Path
    losses: dict[int, str] = field(default_factory=dict)
    contradictions: list[str] = field(default_factory=list)
    exit_statuses: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def last_checkpoint(self) -> Path:
        return self.directory / f"step-{STEP_COUNT:08d}"

    def start(self, *, kill_after: int | None = None) -> None:
        """Run the training program to its end, or kill it at a random moment soon after step `kill_after`."""
        command = [sys.executable, str(TRAIN), str(self.directory), "--steps", str(STEP_COUNT)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            previous_line_at = time.monotonic()
            for line in process.stdout or ():
                seconds_between_lines = time.monotonic() - previous_line_at
                previous_line_at = time.monotonic()
                match line.split():
                    case ["start", step]:
                        tell(self.name, f"goes on after step {step}" if int(step) else "starts with step 1")
                    case ["step", step, "loss", loss]:
                        self.note_loss(int(step), loss)
                        if kill_after is not None and int(step) >= kill_after:
                            time.sleep(random.random() * seconds_between_lines)
                            process.kill()
                            tell(self.name, f"is killed with SIGKILL a moment after step {step}")
                            break
        self.exit_statuses.append(process.returncode)
        if process.returncode == 0:
            tell(self.name, f"has finished step {STEP_COUNT}")

    def note_loss(self, step: int, loss: str) -> None:
        """Remember a loss; a step that was done again must have given the same one."""
        if self.losses.setdefault(step, loss) != loss:
            self.contradictions.append(f"step {step}: loss {self.losses[step]}, done again {loss}")


def train_both(directory: Path) -> tuple[Training, Training]:
    """Train side by side: `steady` in one process, `killed` in as many as there are kills and one more."""
    steady, killed = Training(directory / "steady"), Training(directory / "killed")
    for training in (steady, killed):
        shutil.rmtree(training.directory, ignore_errors=True)
        training.directory.mkdir(parents=True)

    beside = threading.Thread(target=steady.start)
    beside.start()
    for low, high in KILL_RANGES:
        killed.start(kill_after=random.randint(int(low * STEP_COUNT), int(high * STEP_COUNT)))
    killed.start()
    beside.join()
    return steady, killed


def flatten(tree: object, path: str) -> Iterator[tuple[str, bytes]]:
    """Every leaf of a loaded section with its path: the raw bytes of a tensor, the text of any other value."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from flatten(value, f"{path}.{key}")
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from flatten(value, f"{path}.{index}")
    else:
        yield path, tree.numpy().tobytes() if hasattr(tree, "numpy") else repr(tree).encode()


def section_bytes(checkpoint: Path, section: str) -> dict[str, bytes]:
    return dict(flatten(ckptfmt.load(checkpoint, only=f"{section}*")[section], section))


def compare(steady: Training, killed: Training) -> list[str]:
    """Print both trainings side by side; return what differs, nothing if all is well."""
    problems = list(killed.contradictions)
    first, last = min(steady.losses), max(steady.losses)
    rows: list[tuple[str, object, object]] = [
        ("", steady.name, killed.name),
        ("processes", len(steady.exit_statuses), len(killed.exit_statuses)),
        ("losses printed", len(steady.losses), len(killed.losses)),
        (f"loss at step {first}", steady.losses[first], killed.losses.get(first, "-")),
        (f"loss at step {last}", steady.losses[last], killed.losses.get(last, "-")),
    ]
    different_losses = [step for step, loss in steady.losses.items() if killed.losses.get(step, loss) != loss]
    problems += [f"loss at step {step}: {steady.losses[step]} and {killed.losses[step]}" for step in different_losses]

    for section in ("model", "optimizer", "scheduler"):
        expected, found = (section_bytes(training.last_checkpoint, section) for training in (steady, killed))
        problems += [f"{path}: differs" for path in sorted(expected.keys() | found.keys()) if expected.get(path) != found.get(path)]
        size_bytes = sum(map(len, expected.values()))
        left, right = (hashlib.sha256(b"".join(leaves.values())).hexdigest()[:16] for leaves in (expected, found))
        rows.append((f"{section}: sha256 of {size_bytes:,} B", left, right))

    print()
    for label, *values in rows:
        print(f"  {label:<34}{values[0]!s:>20}  {values[1]!s:>20}")
    print()
    return problems


def inspect(*arguments: str) -> int:
    """Run `ckpt-inspect` as a user would, with its output indented."""
    command = [str(Path(sys.executable).with_name("ckpt-inspect")), *arguments]
    print("$", shlex.join(["ckpt-inspect", *arguments]), flush=True)
    done = subprocess.run(command, env=os.environ | {"COLUMNS": str(COLUMNS - 2)}, stdout=subprocess.PIPE, text=True, check=False)
    print(textwrap.indent(done.stdout, "  "), flush=True)
    return done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill a training twice and compare it with one that was never disturbed.")
    parser.add_argument("directory", type=Path, nargs="?", default=Path("build/demo"), help="where to work (default: build/demo)")
    directory = parser.parse_args().directory

    say("A training that is killed must end as if it had never been.")
    say()
    say(
        f"A small character-level transformer learns the text of Python's own standard library: {STEP_COUNT} steps of AdamW with "
        "dropout and a learning rate schedule, a checkpoint every 50 steps. It is trained twice with the same program, "
        f"tools/demo/train.py: once undisturbed, once killed {len(KILL_RANGES)} times at random moments and started again. "
        f"Checkpoints go to {directory}."
    )
    say()

    steady, killed = train_both(directory)
    expected_statuses = [-signal.SIGKILL] * len(KILL_RANGES) + [0]
    if steady.exit_statuses != [0] or killed.exit_statuses != expected_statuses:
        say(f"The demo fails: a training ended by itself or not at all: exit statuses {steady.exit_statuses}, {killed.exit_statuses}.")
        return 1

    problems = compare(steady, killed)
    last = str(killed.last_checkpoint)
    commands = (("inspect", str(killed.directory)), ("history", str(killed.directory)), ("inspect", last), ("verify", last))
    problems += [f"ckpt-inspect {' '.join(command)}: exit status {status}" for command in commands if (status := inspect(*command))]
    if problems:
        print(*problems[:10], sep="\n")
        say(f"The demo fails: {len(problems)} problems, the first of them above.")
        return 1
    say(f"The demo passes: killed {len(KILL_RANGES)} times, and every loss, weight and optimizer value is bit-identical.")
    say(f"It took {time.monotonic() - STARTED:.0f} seconds.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
