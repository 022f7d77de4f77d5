"""Every sampler and pruner of the table in the README, each with a study of its own.

    python optuna_cases.py DIRECTORY SEED PORTION

Runs PORTION (0 to 1) of the trials of each case; what is there is resumed. Prints the trials of all cases as JSON.
"""

import json
import sys
import warnings

import optuna
import torch

import ckptfmt


def mixed(trial):
    x = trial.suggest_float("x", -5, 5)
    y = trial.suggest_float("y", 1e-3, 1, log=True)
    n = trial.suggest_int("n", 1, 20)
    kind = trial.suggest_categorical("kind", ["a", 1, True, None])
    return x**2 + y * n + (kind == "a")


def conditional(trial):
    if trial.suggest_categorical("kind", ["a", "b"]) == "a":
        return trial.suggest_float("x", -5, 5) ** 2
    return abs(trial.suggest_float("y", 0, 3)) + trial.suggest_int("n", 0, 4)


def numbers(trial):
    return trial.suggest_float("x", -5, 5) ** 2 + (trial.suggest_float("y", -2, 2) - 1) ** 2 + trial.suggest_int("n", 0, 5)


def two_goals(trial):
    x, y = trial.suggest_float("x", 0, 5), trial.suggest_float("y", 0, 3)
    return 4 * x**2 + 4 * y**2, (x - 5) ** 2 + (y - 5) ** 2


def choices(trial):
    return trial.suggest_int("n", 0, 4) * 0.5 + trial.suggest_categorical("k", [2, 3, 5])


def stepwise(trial):
    x = trial.suggest_float("x", -5, 5)
    value = x**2
    for step in range(1, 12 + 10 * (trial.number % 3)):
        value = x**2 + (trial.number % 4) / step
        trial.report(value, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return value


S, P = optuna.samplers, optuna.pruners
GRID = {"n": [0, 1, 2, 3, 4], "k": [2, 3, 5]}
# Name: objective, trials, directions, a sampler made from a seed, a pruner.
CASES = {
    "RandomSampler": (mixed, 20, 1, lambda seed: S.RandomSampler(seed=seed), P.NopPruner),
    "TPESampler": (mixed, 25, 1, lambda seed: S.TPESampler(seed=seed), P.NopPruner),
    "TPESampler, univariate": (mixed, 25, 1, lambda seed: S.TPESampler(seed=seed, multivariate=False), P.NopPruner),
    "TPESampler, multivariate": (mixed, 25, 1, lambda seed: S.TPESampler(seed=seed, multivariate=True), P.NopPruner),
    "TPESampler, group": (conditional, 25, 1, lambda seed: S.TPESampler(seed=seed, multivariate=True, group=True), P.NopPruner),
    "TPESampler, two objectives": (two_goals, 25, 2, lambda seed: S.TPESampler(seed=seed), P.NopPruner),
    "NSGAIISampler": (two_goals, 30, 2, lambda seed: S.NSGAIISampler(seed=seed, population_size=6), P.NopPruner),
    "NSGAIIISampler": (two_goals, 30, 2, lambda seed: S.NSGAIIISampler(seed=seed, population_size=6), P.NopPruner),
    "CmaEsSampler": (numbers, 30, 1, lambda seed: S.CmaEsSampler(seed=seed), P.NopPruner),
    "CmaEsSampler, separable": (numbers, 30, 1, lambda seed: S.CmaEsSampler(seed=seed, use_separable_cma=True), P.NopPruner),
    "CmaEsSampler, with margin": (numbers, 30, 1, lambda seed: S.CmaEsSampler(seed=seed, with_margin=True), P.NopPruner),
    "QMCSampler, sobol": (numbers, 20, 1, lambda seed: S.QMCSampler(seed=seed, scramble=True), P.NopPruner),
    "QMCSampler, halton": (numbers, 20, 1, lambda seed: S.QMCSampler(seed=seed, qmc_type="halton", scramble=True), P.NopPruner),
    "GridSampler": (choices, 12, 1, lambda seed: S.GridSampler(GRID, seed=seed), P.NopPruner),
    "BruteForceSampler": (choices, 12, 1, lambda seed: S.BruteForceSampler(seed=seed), P.NopPruner),
    "GPSampler": (numbers, 16, 1, lambda seed: S.GPSampler(seed=seed, n_startup_trials=5), P.NopPruner),
    "TPESampler with MedianPruner": (stepwise, 25, 1, lambda seed: S.TPESampler(seed=seed), P.MedianPruner),
    "TPESampler with SuccessiveHalvingPruner": (stepwise, 25, 1, lambda seed: S.TPESampler(seed=seed), P.SuccessiveHalvingPruner),
    "TPESampler with HyperbandPruner": (stepwise, 25, 1, lambda seed: S.TPESampler(seed=seed), P.HyperbandPruner),
    "RandomSampler with HyperbandPruner": (stepwise, 25, 1, lambda seed: S.RandomSampler(seed=seed), lambda: P.HyperbandPruner(1, 20)),
}


def comparable(trial):
    # The pickles of CMA-ES have other bytes in every process, for equal optimizers; what they suggest is compared.
    attributes = {key: value for key, value in trial.system_attrs.items() if ":optimizer:" not in key}
    return repr((trial.number, trial.state.name, trial.values, trial.params, attributes, trial.intermediate_values))


def main(directory, seed, portion):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    torch.set_num_threads(1)
    trials = {}
    with ckptfmt.Run(directory, durable=False) as run:
        for position, (name, (objective, count, goals, make_sampler, make_pruner)) in enumerate(CASES.items()):
            study = run.study(f"case-{position}", directions=["minimize"] * goals, sampler=make_sampler(int(seed)), pruner=make_pruner())
            ckptfmt.optimize(study, objective, n_trials=round(count * float(portion)))
            trials[name] = [comparable(trial) for trial in study.get_trials(deepcopy=False)]
    json.dump(trials, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
