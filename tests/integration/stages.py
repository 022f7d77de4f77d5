"""A pipeline in stages, each resuming by itself: features, trees, a network. Public names only.

    python stages.py DIRECTORY [SECONDS]

`work.log` gets a line `work STAGE NUMBER` for each unit that is worked on, and `saved STAGE NUMBER` when that many units are acknowledged.
"""

import json
import os
import sys
import time
import warnings

import numpy as np
import torch
import xgboost

import ckptfmt
from ckptfmt.adapters import xgboost as boosting

TRACKS, TREES, EVERY, EPOCHS, SAVE_EPOCHS = 300, 300, 100, 40, 5


class Log:
    """Lines that survive a kill, whole. Work takes its time."""

    def __init__(self, directory, seconds):
        self.file = os.open(os.path.join(directory, "work.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.seconds = seconds

    def __call__(self, what, stage, number):
        os.write(self.file, f"{what} {stage} {number}\n".encode())
        if what == "work":
            time.sleep(self.seconds / {"features": 1, "trees": TREES, "network": EPOCHS}[stage])


class Watch(xgboost.callback.TrainingCallback):
    """Notes each tree, and what was saved before it."""

    def __init__(self, run, log):
        super().__init__()
        self.run, self.log = run, log

    def before_iteration(self, model, epoch, evals_log):
        if epoch and epoch % EVERY == 0:
            assert self.run.latest_step() == epoch
            self.log("saved", "trees", epoch)
        self.log("work", "trees", epoch + 1)
        return False


def features(log):
    log("work", "features", 1)
    tracks = np.random.default_rng(7).normal(size=(TRACKS, 6))
    return {"inputs": tracks, "targets": np.sin(tracks[:, 0]) + tracks[:, 1] * tracks[:, 2]}


def boost(run, log, data):
    matrix = xgboost.DMatrix(data["inputs"][:200], data["targets"][:200])
    evals = [(xgboost.DMatrix(data["inputs"][200:], data["targets"][200:]), "valid")]
    params = {"max_depth": 3, "eta": 0.1, "subsample": 0.5, "colsample_bynode": 0.7, "seed": 5, "nthread": 1}
    history = {}
    booster = boosting.train(run, params, matrix, TREES, every=EVERY, evals=evals, evals_result=history, callbacks=[Watch(run, log)])
    log("saved", "trees", TREES)
    return {"model": bytes(booster.save_raw()).hex(), "rmse": history["valid"]["rmse"], "predicted": booster.predict(evals[0][0]).tolist()}


def train_network(run, log, data):
    torch.manual_seed(11)
    inputs, targets = (torch.from_numpy(data[name]).float() for name in ("inputs", "targets"))
    model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Dropout(0.2), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    parts = {"model": model, "optimizer": optimizer, "rng": ckptfmt.Rng()}
    restored = run.restore(parts)
    losses = restored.state["losses"] if restored else []
    for epoch in range(len(losses), EPOCHS):
        log("work", "network", epoch + 1)
        loss = (model(inputs).squeeze(1) - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if len(losses) % SAVE_EPOCHS == 0:
            run.save(len(losses), {**parts, "losses": losses}, metrics={"loss": loss})
            log("saved", "network", len(losses))
    return {"losses": losses, "weights": {name: tensor.tolist() for name, tensor in model.state_dict().items()}}


def main(directory, seconds="0"):
    os.makedirs(directory, exist_ok=True)
    log = Log(directory, float(seconds))
    with ckptfmt.Run(os.path.join(directory, "features")) as run:
        data = run.cached("features", lambda: features(log), inputs={"tracks": TRACKS, "seed": 7})
        log("saved", "features", 1)
    with ckptfmt.Run(os.path.join(directory, "trees"), keep_last=2) as run:
        trees = boost(run, log, data)
    with ckptfmt.Run(os.path.join(directory, "network"), keep_last=2) as run:
        network = train_network(run, log, data)
    with open(os.path.join(directory, "result.json"), "w") as file:
        json.dump({"trees": trees, "network": network}, file)


if __name__ == "__main__":
    warnings.simplefilter("error")
    main(*sys.argv[1:])
