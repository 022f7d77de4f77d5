"""Train with Accelerate: DIRECTORY [KILL_AT_BATCH]. Prints the digest of the weights."""

import os
import signal
import sys

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

import ckptfmt
from ckptfmt.adapters.accelerate import load_state, save_state
from tests.adapters.programs.outcome import print_digest


class Progress:
    def __init__(self) -> None:
        self.epoch = 0

    def state_dict(self):
        return {"epoch": self.epoch}

    def load_state_dict(self, state):
        self.epoch = state["epoch"]


def main(directory: str, kill_at: str = "0") -> None:
    torch.manual_seed(0)
    data = DataLoader(TensorDataset(torch.randn(32, 4)), batch_size=8, shuffle=True)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    accelerator = Accelerator(cpu=True)
    model, optimizer, data, scheduler = accelerator.prepare(model, optimizer, data, scheduler)
    progress = Progress()
    accelerator.register_for_checkpointing(progress)
    path = f"{directory}/latest"
    if ckptfmt.is_complete(path):
        report, extra = load_state(accelerator, path)
        assert "model" in report.restored
        assert extra == {"note": "kept"}
    left = int(kill_at)
    while progress.epoch < 5:
        for (batch,) in data:
            accelerator.backward(model(batch).pow(2).mean())
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        progress.epoch += 1
        save_state(accelerator, path, overwrite=True, extra={"note": "kept"})
    print_digest(accelerator.unwrap_model(model).state_dict())


if __name__ == "__main__":
    main(*sys.argv[1:])
