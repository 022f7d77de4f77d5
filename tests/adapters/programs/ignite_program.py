"""Train with Ignite: DIRECTORY [KILL_AT_ITERATION]. Prints the digest of the weights."""

import os
import signal
import sys
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint

import ckptfmt
from ckptfmt.adapters.ignite import save_handler
from tests.adapters.programs.outcome import print_digest


def main(directory: str, kill_at: str = "0") -> None:
    torch.manual_seed(0)
    data = [torch.randn(8, 4) for _ in range(6)]
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters())

    def step(engine, batch):
        optimizer.zero_grad()
        model(batch).pow(2).mean().backward()
        optimizer.step()
        if engine.state.iteration == int(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)

    trainer = Engine(step)
    parts = {"model": model, "optimizer": optimizer, "trainer": trainer}
    trainer.add_event_handler(Events.EPOCH_COMPLETED, Checkpoint(parts, save_handler(directory), n_saved=2))
    found = sorted(Path(directory).glob("checkpoint_*"), key=lambda path: int(path.name.rpartition("_")[2]))
    if found:
        Checkpoint.load_objects(parts, checkpoint=ckptfmt.load(found[-1]))
    trainer.run(data, max_epochs=5)
    assert found or len(list(Path(directory).glob("checkpoint_*"))) == 2
    print_digest(model.state_dict())


if __name__ == "__main__":
    main(*sys.argv[1:])
