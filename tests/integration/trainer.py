"""A trainer, as users write it: every few batches a checkpoint, the position inside an epoch included. Public names only.

    python trainer.py DIRECTORY [--async] [--plain-loader] [--resume | --resume-from DIR | --ignore-checkpoint]

`units.log` in DIRECTORY gets a line for each batch that was really computed; `result.json` says how it ended.
"""

import argparse
import itertools
import json
import os
import warnings

import torch
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import RandomSampler

import ckptfmt

EPOCHS, BATCHES, SAVE_EVERY = 4, 10, 2


class Points(torch.utils.data.Dataset):
    def __init__(self):
        generator = torch.Generator().manual_seed(7)
        self.inputs = torch.randn(BATCHES * 4, 6, generator=generator)

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        return self.inputs[index], self.inputs[index].sum().sin()


def plain_batches(points, step):
    """The README's way with a plain DataLoader: a generator seeded by the epoch, and the batches that were done are skipped."""
    for epoch in range(step // BATCHES, EPOCHS):
        generator = torch.Generator().manual_seed(epoch)
        loader = torch.utils.data.DataLoader(points, batch_size=4, shuffle=True, generator=generator)
        yield from itertools.islice(loader, step % BATCHES if epoch == step // BATCHES else 0, None)


def stateful_batches(loader, step):
    """Batches are counted, not epochs: after the last batch of an epoch its rest is empty, and the loader begins the next one then."""
    while step < EPOCHS * BATCHES:
        for batch in loader:
            step += 1
            yield batch


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("--async", dest="is_async", action="store_true")
    parser.add_argument("--plain-loader", action="store_true")
    ckptfmt.add_resume_arguments(parser)
    args = parser.parse_args()
    os.makedirs(args.directory, exist_ok=True)
    torch.manual_seed(0)
    points = Points()
    frozen = torch.nn.Linear(6, 300).requires_grad_(False)
    head = torch.nn.Sequential(torch.nn.Dropout(0.3), torch.nn.ReLU(), torch.nn.Linear(300, 1))
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS * BATCHES)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=7)
    parts = {"frozen": frozen, "head": head, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler, "rng": ckptfmt.Rng()}
    loader = None
    if not args.plain_loader:
        # Two generators, none of them the global one: what a loader draws when it begins is not drawn again when it goes on.
        sampler = RandomSampler(points, generator=torch.Generator().manual_seed(0))
        loader = parts["loader"] = StatefulDataLoader(points, batch_size=4, sampler=sampler, num_workers=0, generator=torch.Generator())
    fingerprint = ckptfmt.Fingerprint(seed=0, config={"lr": 0.01, "epochs": EPOCHS}, code=False)
    options = {"fingerprint": fingerprint, "monitor": "loss", "mode": "min", "keep_last": 2, "keep_best": 1, "keep_every": 20}
    with ckptfmt.run_from_arguments(args, os.path.join(args.directory, "run"), **options) as run:
        restored = run.restore(parts)
        step = restored.step if restored else 0
        best = restored.state["best"] if restored else (float("inf"), 0)
        batches = plain_batches(points, step) if loader is None else stateful_batches(loader, step)
        units = os.open(os.path.join(args.directory, "units.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for inputs, targets in batches:
            step += 1
            loss = (head(frozen(inputs)).squeeze(1) - targets).square().mean()
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            best = min(best, (loss.item(), step))
            os.write(units, f"{step}\n".encode())
            if step % SAVE_EVERY:
                run.log(step, {"loss": loss, "lr": scheduler.get_last_lr()[0]})
            else:
                save = run.async_save if args.is_async else run.save
                save(step, {**parts, "best": best}, metrics={"loss": loss, "lr": scheduler.get_last_lr()[0]})
        run.wait_until_finished()
        history = [{name: value for name, value in row.items() if name != "created_at_utc"} for row in run.history()]
        kept = {"steps": run.all_steps(), "best_step": run.best_step()}
    weights = {name: tensor.tolist() for name, tensor in head.state_dict().items()}
    drawn = torch.rand(3).tolist()
    with open(os.path.join(args.directory, "result.json"), "w") as file:
        json.dump({"weights": weights, "history": history, "best": best, "drawn": drawn, "step": step, **kept}, file)


if __name__ == "__main__":
    warnings.simplefilter("error", RuntimeWarning)
    main()
