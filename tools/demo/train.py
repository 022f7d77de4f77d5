"""Train a small character-level transformer; kill it at any moment and start it again with the same command.

    python tools/demo/train.py runs/demo

It reads the source text of Python's own standard library, saves a checkpoint every 50 steps and goes on from the newest
sound one. Model, optimizer, learning rate, dropout and the order of the data all continue where they were, so the
weights at the end do not depend on how often the program was killed.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import ckptfmt

CONTEXT, BATCH, WIDTH, VOCABULARY = 64, 16, 128, 128
SEED, RATE = 0, 1e-3
SAVE_EVERY, LOG_EVERY = 50, 10


class CharacterTransformer(nn.Module):
    """Predict the next character at every place of a text of CONTEXT characters."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.TransformerEncoderLayer(WIDTH, nhead=4, dim_feedforward=4 * WIDTH, dropout=0.1, batch_first=True, norm_first=True)
        self.characters = nn.Embedding(VOCABULARY, WIDTH)
        self.places = nn.Parameter(0.02 * torch.randn(CONTEXT, WIDTH))
        self.blocks = nn.TransformerEncoder(block, num_layers=2, enable_nested_tensor=False)
        self.readout = nn.Linear(WIDTH, VOCABULARY)
        self.register_buffer("future", nn.Transformer.generate_square_subsequent_mask(CONTEXT), persistent=False)

    def forward(self, text: Tensor) -> Tensor:
        hidden = self.blocks(self.characters(text) + self.places, mask=self.future, is_causal=True)
        logits: Tensor = self.readout(hidden)
        return logits


def read_text(limit: int = 4_000_000) -> Tensor:
    """The standard library's modules one after the other, as ASCII codes."""
    files = sorted(Path(os.__file__).parent.glob("*.py"))
    text = "".join(path.read_text("utf-8") for path in files).encode("ascii", "ignore")
    return torch.frombuffer(bytearray(text[:limit]), dtype=torch.uint8).long()


def draw_batch(text: Tensor) -> Tensor:
    """BATCH random excerpts; the place in the data is the state of the random number generator, nothing else."""
    starts = torch.randint(len(text) - CONTEXT, (BATCH, 1))
    return text[starts + torch.arange(CONTEXT + 1)]


def train(directory: Path, step_count: int) -> None:
    torch.manual_seed(SEED)
    text = read_text()
    model = CharacterTransformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=step_count)
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "rng": ckptfmt.Rng()}

    config = {"context": CONTEXT, "batch": BATCH, "width": WIDTH, "rate": RATE, "steps": step_count}
    with ckptfmt.Run(directory, fingerprint=ckptfmt.Fingerprint(seed=SEED, config=config)) as run:
        restored = run.restore(parts)
        first = restored.step if restored else 0
        print(f"start {first}", flush=True)

        for step in range(first + 1, step_count + 1):
            batch = draw_batch(text)
            logits = model(batch[:, :-1])
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()

            if step % SAVE_EVERY == 0 or step == step_count:
                run.save(step, parts, metrics={"loss": loss.item()})
            if step % LOG_EVERY == 0:
                run.log(step, {"loss": loss.item()})
                print(f"step {step} loss {loss.item()!r}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small character-level transformer, resuming by itself.")
    parser.add_argument("directory", type=Path, help="where the checkpoints are")
    parser.add_argument("--steps", type=int, default=500, help="how many steps in total, over all starts (default: 500)")
    arguments = parser.parse_args()

    # One thread and deterministic kernels: the same sums in the same order, so that results can be compared bit by bit.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    train(arguments.directory, arguments.steps)


if __name__ == "__main__":
    main()
