"""ckpt-inspect as a program of its own: its speed, what it imports, its pipes and signals; and every conformance vector."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ckpt_inspect.main import main
from ckptfmt.format.digest import digest_of, format_digest, shard_digest
from ckptfmt.format.manifest import Manifest, MetadataEntry, ShardEntry, encode_manifest
from ckptfmt.format.metadata import Chunk, Metadata, ShardTable, TensorRow, encode_metadata
from ckptfmt.format.zstd_frame import compress

VECTORS = Path(__file__).resolve().parents[2] / "spec" / "vectors" / "1.0"
PROGRAM = (sys.executable, "-m", "ckpt_inspect")


def write_description(path, tensor_count):
    """Write a checkpoint of many tensors without its shard: what is read of it must not need that."""
    names = [f"layers.{index}.weight" for index in range(tensor_count)]
    rows = [TensorRow(f"model.{name}", "float32", (16,), 64, (Chunk(0, slot, (0,), (16,)),)) for slot, name in enumerate(names)]
    tree = {"model": {name: {"$tensor": [index, "torch", {}]} for index, name in enumerate(names)}, "epoch": 1}
    digests = bytes(32 * tensor_count)
    raw = encode_metadata(Metadata(tree, rows, [ShardTable(64, names, [64] * tensor_count, digests)]))
    data = compress(raw)
    shard = ShardEntry(
        "model-00001-00000000.safetensors", 64 + 64 * tensor_count, format_digest(shard_digest(b"", digests)), "model", tensor_count
    )
    manifest = Manifest(
        created_at_utc="2025-11-21T03:05:12.000000Z",
        writer="test",
        step=1,
        metrics={},
        fingerprint=None,
        metadata=MetadataEntry("metadata-00000000.msgpack.zst", len(data), format_digest(digest_of(data)), len(raw)),
        shards=[shard],
        tensor_count=tensor_count,
        tensor_bytes=64 * tensor_count,
    )
    path.mkdir()
    (path / manifest.metadata.name).write_bytes(data)
    (path / "manifest.json").write_bytes(encode_manifest(manifest))


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    path = tmp_path_factory.mktemp("inspect") / "large"
    write_description(path, 50_000)
    return str(path)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("inspect") / "small"
    write_description(path, 3)
    return str(path)


def run(*arguments, **options):
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=60, check=False, **options)


def seconds_of(*arguments):
    """The best of three runs: the machine may be busy, the program is not to blame for that."""

    def once():
        started = time.perf_counter()
        assert run(*arguments).returncode == 0
        return time.perf_counter() - started

    return min(once() for _ in range(3))


def test_fifty_thousand_tensors_are_described_without_their_shard(large):
    output = run(large).stdout

    assert "tensors  50,000 with 800,000 elements, 3.2 MB" in output
    assert "missing" in output


def test_fifty_thousand_tensors_are_described_at_once(large):
    assert seconds_of(large) < 3


def test_help_comes_at_once():
    assert seconds_of("--help") < 0.6
    assert seconds_of("verify", "--help") < 0.8


def run_without(modules, *arguments):
    """Run the tool where these modules are not installed."""
    script = f"import sys; sys.modules.update(dict.fromkeys({modules})); from ckpt_inspect.main import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("arguments", [[], ["--tree"], ["--tensors"], ["--json", "--tree", "--tensors"]])
def test_inspecting_needs_neither_torch_nor_numpy(small, arguments):
    finished = run_without(["torch", "numpy", "jax", "safetensors", "rich"], small, *arguments)

    assert (finished.returncode, finished.stderr) == (0, "")


def test_inspecting_does_not_import_what_is_installed(small):
    script = (
        "import sys; from ckpt_inspect.main import main; status = main(sys.argv[1:]);"
        "heavy = {'torch', 'numpy', 'rich', 'jax', 'safetensors'} & set(sys.modules); sys.exit(f'imported {heavy}' if heavy else status)"
    )
    finished = subprocess.run([sys.executable, "-c", script, small], capture_output=True, text=True, timeout=60, check=False)

    assert (finished.returncode, finished.stderr) == (0, "")


def test_statistics_need_no_torch():
    finished = run_without(["torch", "jax", "ml_dtypes"], str(VECTORS / "good" / "dtypes-native" / "checkpoint"), "--stats")

    assert (finished.returncode, finished.stderr) == (0, "")


def test_help_imports_nothing_of_the_library():
    script = "import sys; from ckpt_inspect.main import main; main(['--help']); sys.exit('ckptfmt' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False).returncode == 0


def test_a_reader_that_has_seen_enough_is_no_error(large):
    with subprocess.Popen([*PROGRAM, large, "--tensors"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()

    assert errors == b""
    assert process.returncode == 141


def test_an_interrupt_is_status_130_and_silent(tmp_path):
    script = (
        "import os, signal, sys; import ckpt_inspect.inspection as inspection; from ckpt_inspect.main import main;"
        "inspection.kind_of = lambda path: os.kill(os.getpid(), signal.SIGINT); sys.exit(main(['inspect', 'x']))"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)

    assert (finished.returncode, finished.stdout, finished.stderr) == (130, "", "")
    assert signal.SIGINT + 128 == 130


def test_a_name_that_the_terminal_cannot_write_is_escaped(tmp_path):
    write_description(tmp_path / "größe", 1)
    finished = run(str(tmp_path / "größe"), env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})

    assert finished.returncode == 0
    assert "gr\\xf6\\xdfe" in finished.stdout


def test_names_are_cut_at_the_width_that_columns_names(small):
    output = run(small, "--tensors", env={**os.environ, "COLUMNS": "52"}).stdout

    assert max(map(len, output.splitlines())) <= 52
    assert "..." in output


def test_output_that_no_terminal_shows_has_no_colour(small):
    assert "\x1b" not in run(small, env={**os.environ, "TERM": "xterm"}).stdout


def vectors():
    return [
        pytest.param(directory, id=f"{case.parent.name}-{case.name}")
        for case in sorted(VECTORS.glob("*/*"))
        for directory in sorted(case.iterdir())
        if directory.is_dir()
    ]


@pytest.mark.parametrize("directory", vectors())
def test_every_vector_is_shown_or_refused_and_never_a_defect(directory, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    is_bad = directory.parent.parent.name == "bad"
    for arguments in ([], ["--tree"], ["--tree", "-v"], ["--tensors", "--sort", "name"], ["--stats"], ["--tree", "--stats", "--json"]):
        status = main(["inspect", str(directory), *arguments])
        captured = capsys.readouterr()
        assert status in ((0, 1, 2) if is_bad else (0,)), captured.err
        assert "defect" not in captured.err
        assert all(character.isprintable() or character == "\n" for character in captured.out + captured.err)
        if "--json" in arguments and status != 2 and captured.out:
            json.loads(captured.out)
