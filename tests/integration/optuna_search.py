"""A search that is killed: `python optuna_search.py DIRECTORY SAMPLER`. Prints the trials when all are done."""

import json
import sys
import time

import optuna

import ckptfmt

N_TRIALS = 30


def objective(trial):
    x = trial.suggest_float("x", -5, 5)
    kind = trial.suggest_categorical("kind", ["a", "b"])
    for step in range(4):
        time.sleep(0.002)
        trial.report(x**2 + step, step)
    trial.set_user_attr("kind", [kind])
    return x**2 + (kind == "a")


def main(directory, sampler):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print("ready", flush=True)
    with ckptfmt.Run(f"{directory}/run") as run:
        study = run.study("search", sampler=getattr(optuna.samplers, sampler)(seed=1))
        ckptfmt.optimize(study, objective, n_trials=N_TRIALS)
        trials = [[t.number, t.state.name, t.values, t.params, t.user_attrs, sorted(t.intermediate_values.items())] for t in study.trials]
    with open(f"{directory}/result.json", "w") as file:
        json.dump(trials, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
