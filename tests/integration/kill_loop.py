"""Runs programs again and again, killing them with SIGKILL at random moments, until they have ended by themselves.

    python kill_loop.py SEED JOBS

JOBS is JSON: [[PROGRAM, KILLS, [ARGUMENT...]], ...]. For each job it prints how often the program was killed. The libraries are imported
once, in the parent; each attempt is a fork of it, so that a kill costs no import. The parent never opens a run.
"""

import contextlib
import importlib
import json
import multiprocessing
import os
import random
import runpy
import signal
import sys
import time
from pathlib import Path

SHARED = ("numpy", "torch", "torchdata.stateful_dataloader", "optuna", "xgboost")


def attempt(program, arguments):
    sys.argv = [program, *arguments]
    runpy.run_path(program, run_name="__main__")


def line_count(directory):
    """Count what was done so far: a line for each unit in one of two files."""
    for name in ("units.log", "work.log"):
        with contextlib.suppress(FileNotFoundError), open(os.path.join(directory, name), "rb") as file:
            return file.read().count(b"\n")
    return 0


def wait_for_a_moment(process, directory, longest_seconds, generator):
    """Wait for a moment to kill: any, or one soon after the next or the next but one unit, so that work that went on is killed too."""
    unit_count = generator.randrange(3)
    if unit_count:
        wanted, deadline = line_count(directory) + unit_count, time.monotonic() + 20
        while process.is_alive() and line_count(directory) < wanted and time.monotonic() < deadline:
            time.sleep(0.001)
        longest_seconds = 0.03
    process.join(generator.uniform(0.0, longest_seconds))


def repeat_until_done(program, arguments, kill_count, generator):
    fork = multiprocessing.get_context("fork")
    killed, longest_seconds = 0, 0.15
    while True:
        process = fork.Process(target=attempt, args=(program, arguments))
        process.start()
        if killed < kill_count:
            wait_for_a_moment(process, arguments[0], longest_seconds, generator)
        else:
            process.join(120)
        if not process.is_alive():
            break
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        if killed == kill_count:
            sys.exit(f"{program} did not end")
        killed += 1
        longest_seconds = min(3.0, longest_seconds * 1.1)
    if process.exitcode != 0:
        sys.exit(f"{program} ended with {process.exitcode} after {killed} kills")
    return killed


def main(seed, jobs):
    import ckptfmt

    jobs = json.loads(jobs)
    texts = {Path(program).read_text() for program, _, _ in jobs}
    for name in SHARED:
        if any(name in text for text in texts):
            importlib.import_module(name)
    # Names are imported when they are used: here, for all forks.
    for name in ckptfmt.__all__:
        getattr(ckptfmt, name)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    generator = random.Random(int(seed))
    for program, kill_count, arguments in jobs:
        print(repeat_until_done(program, arguments, kill_count, generator), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
