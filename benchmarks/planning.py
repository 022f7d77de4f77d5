"""What very many ranks cost where nothing is written: plans, messages, the commit, the index and its reading, with the code that does it.

    python -m benchmarks.planning                       64, 256 and 1,024 ranks, and a million chunks
    python -m benchmarks.planning --ranks 256 --tensors 500
    python -m benchmarks.planning --steps 10000         and a run of so many checkpoints of 1,024 ranks

Each rank's share is planned, and told to the coordinator, by the code that a save has; its files are there in their full size but hold
nothing (sparse), and the digests are random, because they are what does not compress. The coordinator is `StorageWriter` itself. Every
layout has a process of its own; peaks of memory are beside what the process had.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from benchmarks import machine
from benchmarks.tables import digits, duration, table

LAYOUTS = ((64, 1000), (256, 1000), (1024, 1000), (1024, 250), (1024, 60))
TOTAL_BYTES = 10 * 10**12
KINDS = (("model",), ("optimizer", "state", "exp_avg"), ("optimizer", "state", "exp_avg_sq"), ("optimizer", "state", "master"))
MATRICES = (
    *("attention.wq", "attention.wk", "attention.wv", "attention.wo"),
    *("feed_forward.w1", "feed_forward.w2", "feed_forward.w3", "attention_norm", "ffn_norm"),
)
COLUMNS = 4096

TreePath = tuple[str, ...]


@dataclass(slots=True)
class Outcome:
    """What one layout cost: seconds of processor time and bytes by what they were needed for."""

    ranks: int
    tensors: int
    seconds: dict[str, float] = field(default_factory=dict)
    memory: dict[str, int | None] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Note the processor time of a part, and the memory that it needed at most."""
        machine.reset_peak()
        before = machine.resident_bytes()
        begun = time.process_time()
        yield
        self.seconds[name] = time.process_time() - begun
        peak = machine.peak_bytes()
        self.memory[name] = None if peak is None else max(0, peak - before)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, help="one layout: so many ranks")
    parser.add_argument("--tensors", type=int, default=1000, help="one layout: so many tensors, each cut over all ranks")
    parser.add_argument("--steps", type=int, default=0, help="measure a run of so many checkpoints too")
    parser.add_argument("--scratch", type=Path, help="where files are made; it must know sparse files")
    chosen = parser.parse_args(arguments)
    layouts = [(chosen.ranks, chosen.tensors)] if chosen.ranks else LAYOUTS
    scratch = Path(mkdtemp(prefix="ckptfmt-bench-", dir=chosen.scratch))
    try:
        print(report([measure(scratch / f"{ranks}-{tensors}", ranks, tensors) for ranks, tensors in layouts]))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


def report(outcomes: Sequence[Outcome]) -> str:
    """Return the tables."""
    plans, reads = [], []
    for found in outcomes:
        chunks, sizes, seconds = found.ranks * found.tensors, found.sizes, found.seconds
        layout = [f"{found.ranks:,}", f"{found.tensors:,}", f"{chunks:,}"]
        plans.append(
            [
                *layout,
                *(duration(seconds[part]) for part in ("plan of DCP", "begin", "tell", "commit")),
                _megabytes(found.memory["commit"]),
                f"{sizes['files']:,}",
                *(digits(sizes[name] / 1e6) for name in ("messages", "manifest", "metadata", "raw metadata")),
                digits(sizes["raw metadata"] / chunks),
            ]
        )
        reads.append(
            [
                *layout,
                *(duration(seconds[part]) for part in ("is complete", "open", "one entry", "list", "describe")),
                *(_megabytes(found.memory[part]) for part in ("list", "describe")),
            ]
        )
    layout = ["ranks", "tensors", "chunks"]
    first = ["DCP plans", "begin", "a rank plans", "commit", "memory, MB", "files"]
    sizes = ["messages, MB", "manifest, MB", "metadata, MB", "raw, MB", "raw, bytes a chunk"]
    second = ["is_complete", "open", "one entry", "list all", "a rank of DCP", "memory of list, MB", "of a rank, MB"]
    return "\n".join([table([*layout, *first, *sizes], plans), "", table([*layout, *second], reads)])


def _megabytes(size_bytes: int | None) -> str:
    return "—" if size_bytes is None else digits(size_bytes / 1e6)


def measure(directory: Path, ranks: int, tensors: int) -> Outcome:
    """Measure one layout in processes of its own: saving, then each way of reading from a fresh start."""
    found: Outcome = in_child(_measure_save, str(directory), ranks, tensors)
    for part in READINGS:
        read: Outcome = in_child(_measure_reading, str(directory), ranks, tensors, part)
        found.seconds.update(read.seconds)
        found.memory.update(read.memory)
    return found


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns in a new process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        result = ours.recv()
    except EOFError:
        raise RuntimeError(f"{function.__name__} of {arguments} ended without a result") from None
    finally:
        process.join()
    return result


def _send_result(pipe: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    pipe.send(function(*arguments))


def paths_of(tensors: int) -> list[TreePath]:
    """Return paths such as a transformer and its optimizer have; of each weight there are four tensors."""
    count = -(-tensors // len(KINDS))
    weights = [f"layers.{number // len(MATRICES)}.{MATRICES[number % len(MATRICES)]}.weight" for number in range(count)]
    return [(*kind[:2], weight, *kind[2:]) for kind in KINDS for weight in weights][:tensors]


def _rows_of_chunk(ranks: int, tensors: int) -> int:
    """Return how many rows a rank has of each tensor, so that all of them together have the size of the checkpoint."""
    return max(1, TOTAL_BYTES // (ranks * tensors * COLUMNS * 4))


def _measure_save(path: str, ranks: int, tensors: int) -> Outcome:
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
    from torch.distributed.checkpoint.metadata import MetadataIndex
    from torch.distributed.checkpoint.storage import WriteResult

    from ckptfmt.adapters.torch_distributed import StorageWriter
    from ckptfmt.format.manifest import MetadataEntry
    from ckptfmt.state.pause import collector_paused

    found = Outcome(ranks, tensors)
    paths, rows = paths_of(tensors), _rows_of_chunk(ranks, tensors)
    names = list(map(".".join, paths))
    with collector_paused():
        plans = [_plan_of(rank, ranks, names, rows) for rank in range(ranks)]
        planner: Any = DefaultSavePlanner(flatten_state_dict=False)
        planner.set_up_planner({}, is_coordinator=True)
        with found.part("plan of DCP"):
            plans, described = planner.create_global_plan(plans)
    described = replace(described, planner_data=dict(zip(names, paths, strict=True)))
    # A base that is not there, so that nobody asks whether so much would fit on this disk.
    writer = StorageWriter(path, base=f"{path}-none")
    writer.set_up_storage_writer(True, rank=0)
    with found.part("begin"):
        plans = writer.prepare_global_plan(plans)
    generation, limit = plans[0].storage_data, writer.options.max_shard_size_bytes
    results = []
    del plans
    for rank in range(ranks):
        message = _message_of(rank, ranks, paths, rows, limit, generation, path)
        results.append([WriteResult(MetadataIndex(""), 0, message)])
    with found.part("tell"):
        _message_of(0, ranks, paths, rows, limit, generation, None)
    with found.part("commit"):
        writer.finish(described, results)
    manifest, metadata = _manifest_of(path)
    assert isinstance(metadata, MetadataEntry)
    found.sizes = {
        "files": len(manifest.shards) + 2,
        "messages": sum(len(result.storage_data) for (result,) in results),
        "manifest": os.path.getsize(f"{path}/manifest.json"),
        "metadata": metadata.size_bytes,
        "raw metadata": metadata.raw_size_bytes,
    }
    return found


def _plan_of(rank: int, ranks: int, names: Sequence[str], rows: int) -> Any:
    """Return what DCP has as the plan of one rank, which holds its rows of every tensor."""
    import torch
    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
    from torch.distributed.checkpoint.planner import SavePlan, TensorWriteData, WriteItem, WriteItemType

    offset, shape, full = torch.Size((rank * rows, 0)), torch.Size((rows, COLUMNS)), torch.Size((ranks * rows, COLUMNS))
    properties = TensorProperties(dtype=torch.float32)
    return SavePlan(
        [
            WriteItem(
                MetadataIndex(name, offset, rank),
                WriteItemType.SHARD,
                tensor_data=TensorWriteData(ChunkStorageMetadata(offset, shape), properties, full),
            )
            for name in names
        ]
    )


def _message_of(rank: int, ranks: int, paths: Sequence[TreePath], rows: int, limit: int, generation: str, directory: str | None) -> bytes:
    """Plan the share of one rank as a save does, and return what it tells; its files are made under the path, if there is one."""
    from ckptfmt.adapters.torch_distributed_plan import chunk_path
    from ckptfmt.checkpoint.part import Part, PartChunk, encode_part
    from ckptfmt.checkpoint.shard_plan import name_tensors, plan_shards
    from ckptfmt.format.digest import format_digest
    from ckptfmt.format.layout import DIGEST_BYTES, section_stem, temporary_name
    from ckptfmt.format.manifest import ShardEntry
    from ckptfmt.format.metadata import ShardTable

    offset, shape, full = (rank * rows, 0), (rows, COLUMNS), (ranks * rows, COLUMNS)
    stored = [chunk_path(path, offset, shape, full) for path in paths]
    count = len(paths)
    tensors = name_tensors(stored, {}, ["float32"] * count, [shape] * count, [rows * COLUMNS * 4] * count)
    entries, tables, chunks = [], [], [PartChunk("", (), (), 0, 0)] * count
    for number, plan in enumerate(plan_shards(tensors, range(count), max_shard_size_bytes=limit)):
        name = temporary_name(section_stem(plan.section), generation + os.urandom(8).hex())
        entries.append(ShardEntry(name, plan.size_bytes, format_digest(os.urandom(DIGEST_BYTES)), plan.section, len(plan.rows)))
        tables.append(ShardTable(len(plan.header), plan.keys, plan.sizes, os.urandom(DIGEST_BYTES * len(plan.rows))))
        for slot, row in enumerate(plan.rows):
            chunks[row] = PartChunk(".".join(paths[row]), offset, shape, number, slot)
        if directory is not None:
            _make_sparse(f"{directory}/{name}", plan.header, plan.size_bytes)
    return encode_part(Part(entries, tables, chunks, {"values": {}, "tensors": [], "structure": None}))


def _make_sparse(path: str, header: bytes, size_bytes: int) -> None:
    with open(path, "xb") as file:
        file.write(header)
        file.truncate(size_bytes)


def _manifest_of(path: str) -> Any:
    from ckptfmt.checkpoint.directory import open_checkpoint_directory, read_manifest
    from ckptfmt.disk.local import LocalDisk

    directory = open_checkpoint_directory(LocalDisk(), path)
    try:
        manifest = read_manifest(directory)
    finally:
        directory.close()
    return manifest, manifest.metadata


def _is_complete(path: str, name: str) -> None:
    import ckptfmt

    if not ckptfmt.is_complete(path):
        raise RuntimeError(f"{path} is not complete")


def _open(path: str, name: str) -> None:
    import ckptfmt

    ckptfmt.open_checkpoint(path).close()


def _one_entry(path: str, name: str) -> None:
    import ckptfmt

    with ckptfmt.open_checkpoint(path) as checkpoint:
        checkpoint.tensor_info(name)


def _list(path: str, name: str) -> None:
    import ckptfmt

    with ckptfmt.open_checkpoint(path) as checkpoint:
        if name not in checkpoint.keys():
            raise RuntimeError(f"{path} has no {name}")


def _describe(path: str, name: str) -> None:
    from ckptfmt.adapters.torch_distributed import StorageReader

    reader = StorageReader(path)
    reader.read_metadata()
    reader.close()


READINGS: dict[str, Callable[[str, str], None]] = {
    "is complete": _is_complete,
    "open": _open,
    "one entry": _one_entry,
    "list": _list,
    "describe": _describe,
}


def _measure_reading(path: str, ranks: int, tensors: int, part: str) -> Outcome:
    import torch.distributed.checkpoint  # noqa: F401 - imported before anything is timed

    found = Outcome(ranks, tensors)
    with found.part(part):
        READINGS[part](path, ".".join(paths_of(tensors)[-1]))
    return found


if __name__ == "__main__":
    raise SystemExit(main())
