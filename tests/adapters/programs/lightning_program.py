"""Train a small LightningModule: DIRECTORY EPOCHS sync|async [KILL_AT_BATCH]. Prints the digest of the weights at the end."""

import logging
import os
import signal
import sys
import warnings

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from ckptfmt.adapters.lightning import checkpoint_io
from tests.adapters.programs.outcome import print_digest


class Model(lightning.LightningModule):
    def __init__(self, width: int = 4, rate: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.BatchNorm1d(width), torch.nn.Linear(width, 1))

    def training_step(self, batch, index):
        loss = self.layers(batch[0]).pow(2).mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.rate)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1)}


class Kill(Callback):
    def __init__(self, at: int) -> None:
        self.left = at

    def on_train_batch_end(self, *_: object) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def main(directory: str, epochs: str, way: str, kill_at: str = "0") -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    data = DataLoader(TensorDataset(torch.randn(64, 4)), batch_size=8)
    model = Model(width=8)
    trainer = lightning.Trainer(
        max_epochs=int(epochs),
        default_root_dir=directory,
        accelerator="cpu",
        plugins=[checkpoint_io(asynchronous=way == "async")],
        callbacks=[ModelCheckpoint(directory, save_last=True, save_top_k=2, monitor="loss", filename="{epoch}"), Kill(int(kill_at))],
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
    )
    trainer.fit(model, data, ckpt_path="last")
    print_digest(model.state_dict())


if __name__ == "__main__":
    main(*sys.argv[1:])
