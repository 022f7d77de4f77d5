"""Real trained weights to compress: a byte-level language model, trained here on the text of Python's own library.

Random numbers look like trained weights to a reader and not to an entropy coder, so compression is measured on this. The
model has 10.9 million parameters and trains as large ones do: autocast to bf16, AdamW on fp32 with a warm-up and a
rate that decays to nothing. The text is the same list of files for one version of Python. Every SPARSE_STEPS a checkpoint is
kept, and every DENSE_STEPS one near the end and a few in the middle, as safetensors files with the weights and both moments.

    python -m benchmarks.trained DIRECTORY [--threads 1] [--steps 4000]

A run that was interrupted goes on from its last kept checkpoint. About 5.5 GB for the full run.
"""

from __future__ import annotations

import argparse
import json
import math
import sysconfig
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

WIDTH = 384
LAYERS = 6
HEADS = 6
CONTEXT = 128
BATCH = 3
RATE = 1e-3
WARM_UP = 100
SPARSE_STEPS = 200
DENSE_STEPS = 20
DENSE_COUNT = 20
MIDDLE_COUNT = 5
MAX_TEXT_BYTES = 16 * 2**20
MOMENTS = ("exp_avg", "exp_avg_sq")


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(WIDTH)
        self.attention = nn.Linear(WIDTH, 3 * WIDTH)
        self.projection = nn.Linear(WIDTH, WIDTH)
        self.norm_2 = nn.LayerNorm(WIDTH)
        self.expand = nn.Linear(WIDTH, 4 * WIDTH)
        self.contract = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            part.view(batch, length, HEADS, WIDTH // HEADS).transpose(1, 2) for part in self.attention(self.norm_1(x)).chunk(3, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.projection(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.contract(functional.gelu(self.expand(self.norm_2(x))))


class ByteModel(nn.Module):
    """A transformer that predicts the next byte."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Embedding(256, WIDTH)
        self.position = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(_Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 256, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * LAYERS) if "projection" in name or "contract" in name else 0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.token(tokens) + self.position.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def kept_steps(steps: int) -> list[int]:
    """Return the steps of which a checkpoint is kept."""
    sparse = range(SPARSE_STEPS, steps + 1, SPARSE_STEPS)
    dense = range(steps - DENSE_STEPS * (DENSE_COUNT - 1), steps + 1, DENSE_STEPS)
    middle = range(steps // 2, steps // 2 + DENSE_STEPS * MIDDLE_COUNT + 1, DENSE_STEPS)
    return sorted({*sparse, *dense, *middle})


def file_of(directory: Path, step: int) -> Path:
    """Return where the checkpoint of a step is kept: `model.*`, `exp_avg.*` and `exp_avg_sq.*`, all float32."""
    return directory / f"step-{step:08d}.safetensors"


def read_text() -> torch.Tensor:
    """Return the start of Python's standard library, file by file in the order of their names."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = sorted(path for path in root.rglob("*.py") if not {"site-packages", "test", "tests"} & set(path.parts))
    text = bytearray()
    for path in paths:
        text += path.read_bytes()
        if len(text) >= MAX_TEXT_BYTES:
            break
    return torch.frombuffer(text[:MAX_TEXT_BYTES], dtype=torch.uint8)


def rate_at(step: int, steps: int) -> float:
    """Return the learning rate: up to RATE in WARM_UP steps, then down along a cosine."""
    if step < WARM_UP:
        return RATE * (step + 1) / WARM_UP
    return RATE * 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / (steps - WARM_UP)))


def train(directory: Path, *, steps: int) -> None:
    """Train, keeping checkpoints; goes on after the last one that is there."""
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(20261121)
    text, model = read_text(), ByteModel()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.1, foreach=True)
    kept = kept_steps(steps)
    done = max((step for step in kept if file_of(directory, step).exists()), default=0)
    if done:
        _restore(file_of(directory, done), done, model, optimizer)
    began, smooth = time.perf_counter(), 0.0
    for step in range(done, steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps)
        starts = torch.randint(len(text) - CONTEXT - 1, (BATCH,), generator=torch.Generator().manual_seed(step))
        batch = torch.stack([text[start : start + CONTEXT + 1] for start in starts.tolist()]).long()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(batch[:, :-1])
        loss = functional.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        smooth = loss.item() if not smooth else 0.98 * smooth + 0.02 * loss.item()
        if step + 1 in kept:
            _keep(file_of(directory, step + 1), model, optimizer)
            speed = (step + 1 - done) / (time.perf_counter() - began)
            print(json.dumps({"step": step + 1, "loss": round(smooth, 4), "steps_per_second": round(speed, 2)}), flush=True)


def _keep(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[f"model.{name}"] = parameter.detach()
        for moment in MOMENTS:
            tensors[f"{moment}.{name}"] = optimizer.state[parameter][moment]
    partial = path.with_suffix(".partial")
    save_file(tensors, partial)
    partial.rename(path)


def _restore(path: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    tensors = load_file(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
            moments = {moment: tensors[f"{moment}.{name}"] for moment in MOMENTS}
            optimizer.state[parameter] = {"step": torch.tensor(float(step)), **moments}


def main() -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4000)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.directory, steps=arguments.steps)


if __name__ == "__main__":
    main()
