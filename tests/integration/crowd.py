"""Several processes that work on one run at once: `python crowd.py DIRECTORY SECONDS SEED`. Two of them are killed at random moments.

Every state is made from its step, so a reader knows what is right. The writer notes each acknowledged step outside of the run.
Prints the number of kills. Ends with 1 as soon as one process finds something wrong.
"""

import contextlib
import multiprocessing
import os
import random
import sys
import time
import warnings

import numpy as np

import ckptfmt

# A kill needs no fsync, and without them there are many more steps to be killed in.
OPTIONS = {"keep_last": 3, "keep_every": 50, "durable": False}


def state_of(step):
    return {"step": step, "head": np.full(2000, step), "frozen": np.arange(5000), "text": f"{step}" * 20}


def is_right(step, state):
    expected = state_of(step)
    arrays = all(np.array_equal(state[name], expected[name]) for name in ("head", "frozen"))
    return arrays and state["text"] == expected["text"] and state["step"] == step


def acknowledged(directory):
    try:
        with open(os.path.join(directory, "acknowledged")) as file:
            return int((file.read().split("\n")[-2:] or [""])[0] or -1)
    except FileNotFoundError:
        return -1


def write(directory, until):
    log = os.open(os.path.join(directory, "acknowledged"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while time.monotonic() < until:
        try:
            with ckptfmt.Run(os.path.join(directory, "run"), **OPTIONS) as run:
                restored = run.restore()
                step = restored.step if restored else -1
                assert step >= acknowledged(directory), f"acknowledged {acknowledged(directory)}, restored {step}"
                assert restored is None or is_right(step, restored.state)
                for _ in range(20):
                    step += 1
                    run.save(step, state_of(step), metrics={"half": step / 2})
                    os.write(log, f"{step}\n".encode())
                    if time.monotonic() > until:
                        return
        except ckptfmt.RunLockedError:
            time.sleep(0.005)


def read(directory, until):
    count = 0
    while time.monotonic() < until or count == 0:
        least = acknowledged(directory)
        run = ckptfmt.Run(os.path.join(directory, "run"))
        restored = run.restore()
        if restored is None:
            assert least == -1
        else:
            assert restored.step >= least, f"acknowledged {least}, read {restored.step}"
            assert is_right(restored.step, restored.state)
            history = {row["step"]: row for row in run.history()}
            assert all(row["half"] == step / 2 for step, row in history.items())
            assert least in (-1, *history), f"acknowledged {least}, history ends with {sorted(history)[-3:]}"
            count += 1


def clean(directory, until):
    while time.monotonic() < until:
        with ckptfmt.Run(os.path.join(directory, "run"), durable=False) as run, contextlib.suppress(ckptfmt.RunLockedError):
            run.cleanup(keep_last=2, keep_every=50)
        time.sleep(0.05)


def start(role, directory, until):
    process = multiprocessing.get_context("fork").Process(target=role, args=(directory, until), name=role.__name__)
    process.start()
    return process


def main(directory, seconds, seed):
    # Names are imported when they are used: here, for all forks.
    for name in ckptfmt.__all__:
        getattr(ckptfmt, name)
    generator = random.Random(seed)
    ending = time.monotonic() + seconds
    lasting = [start(read, directory, ending) for _ in range(4)]
    killed = {role: start(role, directory, ending) for role in (write, clean)}
    kill_count = 0
    while time.monotonic() < ending - 0.5:
        time.sleep(generator.uniform(0.05, 1.0))
        role = generator.choice([write, write, clean])
        if killed[role].is_alive():
            killed[role].kill()
            kill_count += 1
        killed[role].join()
        if killed[role].exitcode not in (-9, 0):
            break
        killed[role] = start(role, directory, ending)
    for process in (*lasting, *killed.values()):
        process.join(60)
        process.kill()
    print(kill_count)
    sys.exit(any(process.exitcode != 0 for process in (*lasting, *killed.values())))


if __name__ == "__main__":
    warnings.simplefilter("error")
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
