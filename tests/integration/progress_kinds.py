"""Six kinds of work in small units in one command, each resuming by itself. Public names only.

    python progress_kinds.py DIRECTORY SECONDS [KIND...]

Each kind takes SECONDS more than its work, spread over its units, so that there is time to be killed in.

`work.log` gets a line `work KIND KEY` when a unit is worked on (paid for), and `done KIND KEY` when its record was acknowledged.
"""

import json
import os
import sys
import time
import warnings

import numpy as np
import optuna

import ckptfmt

UNITS = {"search": 20, "folds": 4, "augmentation": 9870, "correction": 40, "calls": 120, "validation": 60}
SHARED = 150


class Log:
    """Lines that survive a kill, whole. Work takes its time."""

    def __init__(self, directory, seconds):
        self.file = os.open(os.path.join(directory, "work.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.seconds = seconds

    def __call__(self, what, kind, unit):
        os.write(self.file, f"{what} {kind} {unit}\n".encode())
        if what == "work" and kind in UNITS:
            time.sleep(self.seconds / UNITS[kind])


def generator_of(*seed):
    return np.random.default_rng(seed)


def search(run, log):
    """D1: a search, after each trial."""

    def objective(trial):
        log("work", "search", trial.number)
        x, kind = trial.suggest_float("x", -2, 2), trial.suggest_categorical("kind", ["a", "b"])
        return (x - 0.5) ** 2 + (kind == "a")

    study = run.study("search", sampler=optuna.samplers.TPESampler(seed=1))
    done = lambda study, trial: log("done", "search", trial.number)  # noqa: E731
    progress = ckptfmt.optimize(study, objective, n_trials=UNITS["search"], callbacks=[done])
    return {"trials": [[trial.state.name, trial.value, trial.params] for trial in study.trials], "said": str(progress)}


def cross_validate(run, log):
    """D2: each fold's model and metrics; finished folds are skipped."""
    data = generator_of(0).normal(size=(80, 5))
    with run.progress("folds") as folds:
        for fold in folds.pending(range(UNITS["folds"])):
            log("work", "folds", fold)
            train = np.delete(data, slice(fold * 20, fold * 20 + 20), axis=0)
            weights, *_ = np.linalg.lstsq(train[:, :4], train[:, 4], rcond=None)
            score = float(np.square(data[fold * 20 : fold * 20 + 20, :4] @ weights).mean())
            folds.done(fold, {"score": score}, {"score": score}, state={"weights": weights, "epochs": 3})
            log("done", "folds", fold)
        models = {fold: ckptfmt.load(folds.state_path(fold))["weights"].tolist() for fold in folds.results()}
        return {"results": folds.results(), "models": models, "mean": folds.aggregate["score"].mean}


def augment(run, log):
    """D3: augmentation, made durable every 100 of 9,870 items."""
    count = UNITS["augmentation"]
    with run.progress("augmentation", flush_every=100) as items:
        for item in items.pending(range(count)):
            log("work", "augmentation", item)
            items.done(item, np.uint8([item % 256, item % 7]))
            log("done", "augmentation", item)
        results = items.results()
        assert list(results) == list(range(count))
        return {"sum": [int(value) for value in sum(result.astype(int) for result in results.values())], "bar": items.bar(10)}


def correct(run, log):
    """D4: labels corrected by a model, after each batch. A batch is a unit."""
    inputs = generator_of(1).normal(size=(UNITS["correction"] * 16, 8))
    weights = generator_of(2).normal(size=8)
    with run.progress("correction") as batches:
        for batch in batches.pending(range(UNITS["correction"])):
            log("work", "correction", batch)
            labels = inputs[batch * 16 : batch * 16 + 16] @ weights > 0
            batches.done(batch, {"labels": labels, "model": "linear"}, {"changed": int(labels.sum())})
            log("done", "correction", batch)
        labels = np.concatenate([result["labels"] for _, result in sorted(batches.results().items())])
        assert (labels == (inputs @ weights > 0)).all()
        return {"labels": labels.astype(int).tolist(), "changed": batches.aggregate["changed"].sum, "bar": batches.bar(10)}


def call_api(run, log):
    """D5: paid calls with token counts and latency, in batches; some fail at first."""
    attempts = {}
    with run.progress("calls", total=UNITS["calls"]) as calls:
        for batch in calls.pending([("question", number) for number in range(UNITS["calls"])], batch_size=8):
            for call in batch:
                _, number = call
                attempts[number] = attempts.get(number, 0) + 1
                if number % 50 == 49 and attempts[number] == 1:
                    calls.fail(call, ConnectionError("try again"))
                    continue
                log("work", "calls", number)
                calls.done(call, {"text": f"answer {number}"}, {"tokens": 10 + number % 13, "latency": 0.25 * (number % 4)})
                log("done", "calls", number)
        found = {name: [one.count, one.sum, one.min, one.max] for name, one in calls.aggregate.items()}
        assert not calls.failed
        return {"results": sorted(calls.results().items()), "aggregate": found, "ratio": calls.ratio}


def validate(run, log):
    """D6: batch by batch, with the running metric."""
    with run.progress("validation") as batches:
        for batch in batches.track(range(UNITS["validation"])):
            log("work", "validation", batch)
            batches.done(batch, None, {"accuracy": batch % 10 / 16})
            running = batches.aggregate["accuracy"]
            # Whatever was killed before: it is the mean over all batches so far, those of earlier processes included.
            assert running.mean == sum(number % 10 / 16 for number in range(batch + 1)) / (batch + 1)
            log("done", "validation", batch)
        return {"accuracy": batches.aggregate["accuracy"].mean, "count": batches.completed}


def share(run, log):
    """Units that several processes do together, each of them once."""
    with run.progress("shared") as units:
        for unit in units.pending(range(SHARED), wait=True):
            log("work", "shared", unit)
            time.sleep(0.002)
            units.done(unit, unit * unit, {"unit": unit})
            log("done", "shared", unit)
        return {"results": sorted(units.results().items()), "sum": units.aggregate["unit"].sum}


KINDS = {
    "search": search,
    "folds": cross_validate,
    "augmentation": augment,
    "correction": correct,
    "calls": call_api,
    "validation": validate,
    "shared": share,
}


def main(directory, seconds, *kinds):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    os.makedirs(directory, exist_ok=True)
    log = Log(directory, float(seconds))
    with ckptfmt.Run(os.path.join(directory, "run")) as run:
        result = {kind: KINDS[kind](run, log) for kind in kinds or UNITS}
    with open(os.path.join(directory, f"result-{os.getppid()}.json"), "w") as file:
        json.dump(result, file)


if __name__ == "__main__":
    warnings.simplefilter("error")
    main(*sys.argv[1:])
