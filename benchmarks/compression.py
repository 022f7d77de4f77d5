"""What compression does to real trained tensors, beside others: sizes, and speed on one core with digests.

    python -m benchmarks.trained DIRECTORY
    python -m benchmarks.compression DIRECTORY [--step N] [--level 3] [--rounds 5]

Methods take turns, and the best round counts. Time is the processor's, of all threads together, so that what else the machine does matters
less. Each gives a digest of what goes in and of what comes out, as a checkpoint has one for each of its tensors; ours is measured
block by block, as it reads and writes. blosc2 and zipnn take part where they are installed. The last table is a whole
checkpoint of a mixed-precision training, compressed by `ckptfmt.compress` with all cores, in real time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy
import zstandard
from safetensors.numpy import load_file

import ckptfmt
from benchmarks.machine import is_importable
from benchmarks.trained import MOMENTS, file_of, kept_steps
from ckptfmt.format.byte_planes import PlanesEncoder, open_planes
from ckptfmt.format.digest import digest_of
from ckptfmt.format.plane_fit import plan_planes, take_sample
from ckptfmt.format.rounding import round_floats

MIN_BYTES = 4096


@dataclass(frozen=True)
class Tensor:
    """One tensor: its bytes, element type and shape."""

    data: memoryview
    dtype: str
    shape: tuple[int, ...]


@dataclass
class Method:
    """A way to compress one tensor: `encode` gives what `decode` takes. `rounds` limits how often it is measured."""

    name: str
    encode: Callable[[Tensor], Any]
    decode: Callable[[Any, Tensor], Any]
    size: Callable[[Any], int] = len
    rounds: int = 100
    seconds: dict[str, tuple[float, float]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


def _ours(level: int) -> Method:
    stream_room, room = (memoryview(numpy.zeros(2**26, numpy.uint8)) for _ in range(2))

    def encode(tensor: Tensor) -> memoryview:
        raw = tensor.data
        plan = plan_planes(take_sample(raw, tensor.dtype, tensor.shape), tensor.dtype, tensor.shape, len(raw), level=level)
        encoder = PlanesEncoder(plan, len(raw))
        end = _filled(stream_room, 0, [encoder.encode_head()])
        step = encoder.head.block_bytes
        for block in range(encoder.head.block_count):
            end = _filled(stream_room, end, encoder.encode_parts(block, raw[block * step : (block + 1) * step]))
        return stream_room[: _filled(stream_room, end, [encoder.encode_table(end)])]

    def decode(view: memoryview, tensor: Tensor) -> memoryview:
        stream = open_planes(lambda begin, end: view[begin:end], len(view), len(tensor.data))
        out, step = room[: len(tensor.data)], stream.head.block_bytes
        for block in range(stream.head.block_count):
            stream.decode_block(block, view[stream.offsets[block] : stream.offsets[block + 1]], out[block * step : (block + 1) * step])
        return out

    return Method("ckptfmt", encode, decode)


def _filled(room: memoryview, begin: int, parts: Sequence[bytes | memoryview]) -> int:
    for part in parts:
        room[begin : begin + len(part)] = part
        begin += len(part)
    return begin


def _zstd(level: int, rounds: int) -> Method:
    compressor, decompressor = zstandard.ZstdCompressor(level=level), zstandard.ZstdDecompressor()
    return Method(
        f"zstd-{level}", lambda tensor: compressor.compress(tensor.data), lambda data, _: decompressor.decompress(data), rounds=rounds
    )


def _blosc2(level: int) -> Method:
    import blosc2

    blosc2.set_nthreads(1)

    def encode(tensor: Tensor) -> Any:
        item = 2 if tensor.dtype == "bfloat16" else 4
        return blosc2.compress2(bytes(tensor.data), typesize=item, clevel=level, codec=blosc2.Codec.ZSTD, filters=[blosc2.Filter.SHUFFLE])

    return Method(f"blosc2 shuffle, zstd {level}", encode, lambda data, _: blosc2.decompress2(data))


def _zipnn() -> Method:
    from zipnn import ZipNN

    coders = {dtype: ZipNN(input_format="byte", bytearray_dtype=dtype, threads=1) for dtype in ("bfloat16", "float32")}

    # A copy, because it changes what it is given; the copy is not counted against it beyond what memory costs.
    def encode(tensor: Tensor) -> Any:
        return coders[tensor.dtype].compress(bytearray(tensor.data))

    return Method("zipnn", encode, lambda data, tensor: coders[tensor.dtype].decompress(data))


def methods(level: int) -> list[Method]:
    """Return every method that this machine has."""
    found = [_ours(level), _zstd(3, 3), _zstd(19, 1)]
    if is_importable("blosc2"):
        found += [_blosc2(1), _blosc2(5)]
    return [*found, _zipnn()] if is_importable("zipnn") else found


def kinds_of(path: Path) -> dict[str, list[Tensor]]:
    """Return the tensors of a trained checkpoint by kind."""
    tensors = load_file(path)
    kinds: dict[str, list[Tensor]] = {"bf16 weights": [], "fp32 weights": [], **{moment: [] for moment in MOMENTS}}
    for name, array in tensors.items():
        if array.nbytes < MIN_BYTES:
            continue
        tensor = Tensor(memoryview(numpy.ascontiguousarray(array)).cast("B"), "float32", array.shape)
        kind = name.partition(".")[0]
        kinds["fp32 weights" if kind == "model" else kind].append(tensor)
        if kind == "model":
            kinds["bf16 weights"].append(Tensor(_rounded(tensor.data), "bfloat16", array.shape))
    return kinds


def _rounded(data: memoryview) -> memoryview:
    rounded = memoryview(bytearray(len(data) // 2))
    round_floats(data, "bfloat16", rounded)
    return rounded


def measure(method: Method, kind: str, tensors: list[Tensor]) -> None:
    """Encode and decode every tensor of a kind once, with digests, and keep the best times."""
    encoding = decoding = 0.0
    size = 0
    for tensor in tensors:
        began = time.process_time()
        encoded = method.encode(tensor)
        digest = digest_of(tensor.data), digest_of(encoded)
        middle = time.process_time()
        decoded = method.decode(encoded, tensor)
        assert (digest_of(decoded), digest_of(encoded)) == digest
        decoding += time.process_time() - middle
        encoding += middle - began
        size += method.size(encoded)
    best = method.seconds.get(kind, (float("inf"), float("inf")))
    method.seconds[kind] = (min(best[0], encoding), min(best[1], decoding))
    method.sizes[kind] = size


def print_table(found: list[Method], kinds: dict[str, list[Tensor]]) -> None:
    """Print sizes as fractions, and MB/s in and out, of each method and kind."""
    print(f"| {'':22} | " + " | ".join(f"{kind:>24}" for kind in kinds) + " |")
    print("|---|" + "---:|" * len(kinds))
    for method in found:
        cells = []
        for kind, tensors in kinds.items():
            raw = sum(len(tensor.data) for tensor in tensors)
            encoding, decoding = method.seconds[kind]
            cells.append(f"{method.sizes[kind] / raw:.4f}, {raw / encoding / 1e6:5,.0f} / {raw / decoding / 1e6:5,.0f}")
        print(f"| {method.name:22} | " + " | ".join(f"{cell:>24}" for cell in cells) + " |")


def measure_checkpoint(path: Path, level: int) -> None:
    """Compress a checkpoint with weights in bf16 and fp32 and both moments, and print what became of each section."""
    tensors = load_file(path)
    model = {name.partition(".")[2]: array for name, array in tensors.items() if name.startswith("model.")}
    state = {"master": model, **{moment: {name: tensors[f"{moment}.{name}"] for name in model} for moment in MOMENTS}}
    state["model"] = {name: _bfloat16(array) for name, array in model.items()}
    with TemporaryDirectory() as directory:
        info = ckptfmt.save(f"{directory}/c", state)
        times = [time.perf_counter()]
        report = ckptfmt.compress(info.path, level=level)
        times.append(time.perf_counter())
        assert ckptfmt.verify(info.path).ok
        times.append(time.perf_counter())
        ckptfmt.load(info.path)
        times.append(time.perf_counter())
        ckptfmt.decompress(info.path)
        times.append(time.perf_counter())
    speeds = [report.before_bytes / (end - begin) / 1e6 for begin, end in pairwise(times)]
    print(f"\nmixed precision, {report.before_bytes / 1e6:.0f} MB: {report.after_bytes / report.before_bytes:.4f}")
    print(", ".join(f"{section} {after / before:.4f}" for section, (before, after) in report.sections.items()))
    print(
        "MB/s: "
        + ", ".join(f"{what} {speed:,.0f}" for what, speed in zip(("compress", "verify", "load", "decompress"), speeds, strict=True))
    )


def _bfloat16(array: Any) -> Any:
    import torch

    return torch.from_numpy(array).bfloat16()


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--step", type=int)
    parser.add_argument("--level", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    step = arguments.step or max(step for step in kept_steps(4000) if file_of(arguments.directory, step).exists())
    path = file_of(arguments.directory, step)
    kinds, found = kinds_of(path), methods(arguments.level)
    for turn in range(arguments.rounds):
        for kind, tensors in kinds.items():
            for method in found:
                if turn < method.rounds:
                    measure(method, kind, tensors)
    print(f"step {step}; size, MB/s in / out on one core with digests\n")
    print_table(found, kinds)
    measure_checkpoint(path, arguments.level)


if __name__ == "__main__":
    main()
