"""An architecture search on a machine that disconnects: models one after the other, a copy on a mounted drive. Public names only.

    python architecture_search.py DIRECTORY

`units.log` gets a line for each model that was trained to its end. Everything so far is in the newest checkpoint.
"""

import json
import sys
import warnings
from pathlib import Path

import torch

import ckptfmt

MODELS, EPOCHS = 12, 3


def train_model(number, features):
    torch.manual_seed(1000 + number)
    width = 4 + 2 * (number % 5)
    model = torch.nn.Sequential(torch.nn.Linear(8, width), torch.nn.Tanh(), torch.nn.Linear(width, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    epochs = []
    for epoch in range(EPOCHS):
        loss = (model(features) - features.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        epochs.append({"epoch": epoch, "loss": loss.item()})
    return model, {"width": width, "epochs": epochs, "loss": epochs[-1]["loss"]}


def main(directory):
    base = Path(directory)
    base.mkdir(exist_ok=True)
    data = base / "data.txt"
    data.write_text("1 2 3 4 5 6 7 8\n" * 16)

    def compute():
        with open(base / "computed.log", "a") as file:
            file.write("features\n")
        torch.manual_seed(3)
        return {"features": torch.tensor([[float(word) for word in line.split()] for line in data.read_text().splitlines()]) / 8}

    fingerprint = ckptfmt.Fingerprint(seed=1000, config={"models": MODELS}, data=[data], code=False)
    with ckptfmt.Run(
        base / "run", fingerprint=fingerprint, monitor="loss", mode="min", keep_last=2, keep_best=1, mirror=base / "drive"
    ) as run:
        features = run.cached("features", compute, inputs={"data": data, "bins": 8})["features"]
        restored = run.restore()
        results = restored.state["results"] if restored else []
        for number in range(len(results), MODELS):
            model, result = train_model(number, features)
            results.append(result)
            with open(base / "units.log", "a") as file:
                file.write(f"{number}\n")
            run.save(number, {"results": results, "model": model, "rng": ckptfmt.rng_state()}, metrics={"loss": result["loss"]})
        run.wait_until_finished()
        run.export(base / "results", overwrite=True)
        outcome = {
            "results": results,
            "history": [{"step": row["step"], "loss": row["loss"]} for row in run.history()],
            "best_step": run.best_step(),
            "steps": run.all_steps(),
            "mirrored": run.mirror_status().verified,
        }
    (base / "result.json").write_text(json.dumps(outcome))


if __name__ == "__main__":
    warnings.simplefilter("error", RuntimeWarning)
    warnings.filterwarnings("ignore", ".* brought from the mirror", RuntimeWarning)
    main(sys.argv[1])
