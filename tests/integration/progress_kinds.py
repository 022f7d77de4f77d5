"""Several kinds of work in small units in one command, each resuming by itself. Public names only.

    python progress_kinds.py DIRECTORY [KIND...]

`work.log` gets a line `work KIND KEY` when a unit is worked on (paid for), and `done KIND KEY` when its record was acknowledged.
"""

import json
import os
import sys
import time
import warnings

import numpy as np

import ckptfmt

FOLDS, ITEMS, CALLS, BATCHES, SHARED = 4, 9870, 120, 60, 150


class Log:
    """Lines that survive a kill, whole."""

    def __init__(self, directory):
        self.file = os.open(os.path.join(directory, "work.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def __call__(self, *words):
        os.write(self.file, (" ".join(map(str, words)) + "\n").encode())


def generator_of(*seed):
    return np.random.default_rng(seed)


def cross_validate(run, log):
    """D2: each fold's model and metrics; finished folds are skipped."""
    data = generator_of(0).normal(size=(80, 5))
    with run.progress("folds") as folds:
        for fold in folds.pending(range(FOLDS)):
            log("work", "folds", fold)
            train = np.delete(data, slice(fold * 20, fold * 20 + 20), axis=0)
            weights, *_ = np.linalg.lstsq(train[:, :4], train[:, 4], rcond=None)
            score = float(np.square(data[fold * 20 : fold * 20 + 20, :4] @ weights).mean())
            folds.done(fold, {"score": score}, {"score": score}, state={"weights": weights, "epochs": 3})
            log("done", "folds", fold)
        models = {fold: ckptfmt.load(folds.state_path(fold))["weights"].tolist() for fold in range(FOLDS)}
        return {"results": folds.results(), "models": models, "mean": folds.aggregate["score"].mean}


def augment(run, log):
    """D3: augmentation, made durable every 100 of 9,870 items."""
    with run.progress("augmentation", flush_every=100) as items:
        for item in items.pending(range(ITEMS)):
            log("work", "augmentation", item)
            items.done(item, np.uint8([item % 256, item % 7]))
            log("done", "augmentation", item)
        results = items.results()
        assert list(results) == list(range(ITEMS))
        return {"sum": [int(value) for value in sum(result.astype(int) for result in results.values())], "bar": items.bar(10)}


def call_api(run, log):
    """D5: paid calls with token counts and latency, in batches; some fail at first."""
    attempts = {}
    with run.progress("calls", total=CALLS) as calls:
        for batch in calls.pending([("question", number) for number in range(CALLS)], batch_size=8):
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
        running = {}
        for batch in batches.track(range(BATCHES)):
            log("work", "validation", batch)
            batches.done(batch, None, {"accuracy": batch % 10 / 16})
            running[batch] = batches.aggregate["accuracy"].mean
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


KINDS = {"folds": cross_validate, "augmentation": augment, "calls": call_api, "validation": validate, "shared": share}


def main(directory, *kinds):
    os.makedirs(directory, exist_ok=True)
    log = Log(directory)
    with ckptfmt.Run(os.path.join(directory, "run")) as run:
        result = {kind: KINDS[kind](run, log) for kind in kinds or [name for name in KINDS if name != "shared"]}
    with open(os.path.join(directory, f"result-{os.getppid()}.json"), "w") as file:
        json.dump(result, file)


if __name__ == "__main__":
    warnings.simplefilter("error")
    main(*sys.argv[1:])
