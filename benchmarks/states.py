"""The states that are saved and loaded: the same bytes in every process, made quickly.

Values look like trained weights (normal, small), because compressing libraries take part. They are cut out of one pool of
random numbers at ever different offsets, so that no two tensors are equal and making a state costs little more than
touching its memory.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch

POOL_ELEMENTS = 2**22
POOL_STEP = 100_003
STANDARD_DEVIATION = 0.02

Shape = tuple[int, ...]


class Fill(Protocol):
    """Makes one tensor after the other."""

    def __call__(self, shape: Shape, dtype: torch.dtype = torch.float32) -> torch.Tensor: ...


@dataclass(frozen=True)
class StateKind:
    """One state: `build(scale, fill)` makes it, with about `scale` times the bytes; `one_tensor` is read alone."""

    description: str
    build: Callable[[float, Fill], Any]
    one_tensor: str


class _Filler:
    """Makes tensors out of the pool, each from where the one before ended and a step further."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(20261121)
        pool = torch.randn(POOL_ELEMENTS, generator=generator).mul_(STANDARD_DEVIATION)
        self.pools = {torch.float32: pool, torch.bfloat16: pool.bfloat16()}
        self.position = 0

    def __call__(self, shape: Shape, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        pool = self.pools[dtype]
        made = torch.empty(shape, dtype=dtype)
        flat, filled = made.view(-1), 0
        while filled < len(flat):
            part = pool[self.position : self.position + len(flat) - filled]
            flat[filled : filled + len(part)] = part
            filled += len(part)
            self.position = (self.position + len(part) + POOL_STEP) % POOL_ELEMENTS
        return made


def _outline(shape: Shape, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _transformer(scale: float, fill: Fill) -> Any:
    """Weights in bf16 and AdamW's moments in fp32, 400 of each, as state_dict() nests them."""
    width = max(64, round(704 * math.sqrt(scale) / 64) * 64)
    shapes = dict(_transformer_shapes(width))
    moments = {
        index: {"step": 1200.0, "exp_avg": fill(shape), "exp_avg_sq": fill(shape).square_()} for index, shape in enumerate(shapes.values())
    }
    groups = [{"lr": 3e-4, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1, "params": list(range(len(shapes)))}]
    return {
        "model": {name: fill(shape, torch.bfloat16) for name, shape in shapes.items()},
        "optimizer": {"state": moments, "param_groups": groups},
        "epoch": 3,
    }


def _transformer_shapes(width: int) -> Iterator[tuple[str, Shape]]:
    yield "token_embedding.weight", (32 * 1024, width)
    yield "position_embedding.weight", (1024, width)
    for layer in range(33):
        for norm in ("attention_norm", "mlp_norm"):
            yield f"layers.{layer}.{norm}.weight", (width,)
            yield f"layers.{layer}.{norm}.bias", (width,)
        for part, outputs, inputs in (("attention.qkv", 3, 1), ("attention.out", 1, 1), ("mlp.up", 4, 1), ("mlp.down", 1, 4)):
            yield f"layers.{layer}.{part}.weight", (outputs * width, inputs * width)
            yield f"layers.{layer}.{part}.bias", (outputs * width,)
    yield "final_norm.weight", (width,)
    yield "final_norm.bias", (width,)


def _residual_network(scale: float, fill: Fill) -> Any:
    """The weights of a ResNet-18 in fp32 and as much momentum of SGD."""
    shapes = dict(_residual_shapes(max(8, round(64 * math.sqrt(scale)))))
    momentum = {index: {"momentum_buffer": fill(shape)} for index, shape in enumerate(shapes.values())}
    groups = [{"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "params": list(range(len(shapes)))}]
    return {
        "model": {name: fill(shape) for name, shape in shapes.items()},
        "optimizer": {"state": momentum, "param_groups": groups},
        "epoch": 3,
    }


def _residual_shapes(width: int) -> Iterator[tuple[str, Shape]]:
    yield "conv1.weight", (width, 3, 7, 7)
    yield from _norm_shapes("bn1", width)
    inputs = width
    for stage in range(4):
        outputs = width * 2**stage
        for block in range(2):
            name = f"layer{stage + 1}.{block}"
            yield f"{name}.conv1.weight", (outputs, inputs, 3, 3)
            yield from _norm_shapes(f"{name}.bn1", outputs)
            yield f"{name}.conv2.weight", (outputs, outputs, 3, 3)
            yield from _norm_shapes(f"{name}.bn2", outputs)
            if inputs != outputs:
                yield f"{name}.downsample.0.weight", (outputs, inputs, 1, 1)
                yield from _norm_shapes(f"{name}.downsample.1", outputs)
            inputs = outputs
    yield "fc.weight", (1000, inputs)
    yield "fc.bias", (1000,)


def _norm_shapes(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    for member in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{member}", (width,)


def uniform(tensor_count: int, tensor_bytes: int, fill: Fill) -> Any:
    """Equally large fp32 tensors in one section."""
    return {"model": {f"blocks.{index // 100}.{index % 100}.weight": fill((tensor_bytes // 4,)) for index in range(tensor_count)}}


STATES = {
    "2GB": StateKind(
        "2.2 GB: 400 transformer weights in bf16, 800 AdamW moments in fp32", _transformer, "model.layers.16.attention.out.weight"
    ),
    "50k": StateKind(
        "50,000 tensors of 1 KB", lambda scale, fill: uniform(max(200, round(50_000 * scale)), 1024, fill), "model.blocks.1.50.weight"
    ),
    "one": StateKind("one tensor of 2 GB", lambda scale, fill: uniform(1, round(500_000_000 * scale) * 4, fill), "model.blocks.0.0.weight"),
    "45MB": StateKind("45 MB of ResNet-18 weights and as much momentum", _residual_network, "model.layer3.0.conv1.weight"),
}


def build(name: str, *, scale: float = 1.0) -> Any:
    """Make a state of the table, or `uniform:COUNTxBYTES`."""
    return _build(name, scale, _Filler())


def sizes(name: str, *, scale: float = 1.0) -> tuple[int, int]:
    """Return the bytes of a state and of the tensor that is read alone, without making them."""
    outline = dict(tensors_of(_build(name, scale, _outline)))
    one_bytes = outline[STATES[name].one_tensor].nbytes if name in STATES else 0
    return sum(int(tensor.nbytes) for tensor in outline.values()), one_bytes


def _build(name: str, scale: float, fill: Fill) -> Any:
    if name.startswith("uniform:"):
        count, size = name.removeprefix("uniform:").split("x")
        return uniform(int(count), int(size), fill)
    return STATES[name].build(scale, fill)


def tensors_of(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, tensor or array) of everything with bytes below a value."""
    if isinstance(value, dict):
        for key, member in value.items():
            yield from tensors_of(member, (*path, str(key)))
    elif isinstance(value, (list, tuple)):
        for index, member in enumerate(value):
            yield from tensors_of(member, (*path, str(index)))
    elif hasattr(value, "nbytes") and hasattr(value, "shape"):
        yield ".".join(path), value


def map_tensors(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """Return a copy of nested dicts and lists with every tensor changed."""
    if isinstance(value, dict):
        return {key: map_tensors(member, change) for key, member in value.items()}
    if isinstance(value, list):
        return [map_tensors(member, change) for member in value]
    return change(value) if isinstance(value, torch.Tensor) else value


def size_bytes(value: Any) -> int:
    """Return the bytes of all tensors of a state."""
    return sum(int(tensor.nbytes) for _, tensor in tensors_of(value))


def change_fraction(state: Any, fraction: float) -> int:
    """Change about this fraction of a state's bytes, whole tensors spread over the state; return how many bytes that are."""
    tensors = [tensor for _, tensor in tensors_of(state)]
    random.Random(1).shuffle(tensors)
    wanted, changed = fraction * sum(tensor.nbytes for tensor in tensors), 0
    for tensor in tensors:
        if fraction >= 1 or changed + tensor.nbytes <= wanted * 1.05:
            tensor.view(-1)[:1] += 1
            changed += tensor.nbytes
    return changed
