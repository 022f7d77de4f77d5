"""One of many processes on one study: `python optuna_worker.py STORAGE LOG SECONDS`. Notes each finished trial in LOG."""

import os
import random
import sys
import time

import optuna

import ckptfmt


def main(storage_path, log_path, seconds):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = ckptfmt.optuna_storage(storage_path)
    sampler = optuna.samplers.RandomSampler()
    study = optuna.create_study(storage=storage, study_name="shared", load_if_exists=True, sampler=sampler)
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    end = time.monotonic() + float(seconds)
    print("ready", flush=True)
    while time.monotonic() < end:
        trial = study.ask()
        x = trial.suggest_float("x", -5, 5)
        time.sleep(random.uniform(0, 0.01))
        trial.report(x, 0)
        study.tell(trial, x**2)
        os.write(log, f"{trial.number} {x!r}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
