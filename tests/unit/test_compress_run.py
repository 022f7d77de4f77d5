"""Compressing the checkpoints of a run, each as differences from the one before it, whose files are linked. Spec 11.4."""

import json
import random
import shutil

import pytest
import torch

import ckptfmt
from ckptfmt.checkpoint import delta_base
from ckptfmt.checkpoint.writer import SaveOptions, write_checkpoint
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.errors import CheckpointError
from ckptfmt.run.compressing import compress_run_on, decompress_run_on
from ckptfmt.state.tree import encode_state
from tests.conformance import naive_reader

STEPS = (10, 20, 30, 40)


def make_state(step):
    torch.manual_seed(0)
    master = torch.randn(120, 100) * 0.02
    for number in range(step // 10):
        torch.manual_seed(1 + number)
        master = master * (1 + 1e-4 * torch.randn(120, 100))
    moment = torch.randn(60, 100)
    return {
        "model": {"w": master.bfloat16(), "wide": torch.randn(30, 100) + step},
        "master": {"w": master},
        "ema": {"w": master.clone()},
        "optimizer": {"m": moment * step, "step": torch.tensor(step)},
    }


def is_state(path, step):
    found, expected = ckptfmt.load(path), make_state(step)
    return all(torch.equal(found[section][name], tensor) for section, tensors in expected.items() for name, tensor in tensors.items())


def path_of(run, step):
    return run / f"step-{step:08d}"


@pytest.fixture
def run(tmp_path):
    for step in STEPS:
        ckptfmt.save(path_of(tmp_path / "run", step), make_state(step), step=step)
    return tmp_path / "run"


def codecs_of(path):
    with ckptfmt.open_checkpoint(path) as checkpoint:
        return {name for table in checkpoint.metadata.shards for each in table.encodings.values() for name, _ in each.codecs}


def contents(run):
    return {str(file.relative_to(run)): file.read_bytes() for file in sorted(run.rglob("*")) if file.is_file()}


def size_on_disk(run):
    return sum({file.stat().st_ino: file.stat().st_size for file in run.rglob("*") if file.is_file()}.values())


def test_a_run_is_smaller_loads_as_before_and_comes_back_to_the_byte(run):
    before, size = contents(run), size_on_disk(run)
    told = []
    report = ckptfmt.compress_run(run, keep_last=0, on_step=told.append)
    assert told == list(report.steps)
    assert all(step.is_changed and not step.reason for step in report.steps)
    assert 0.9 * size_on_disk(run) < report.after_bytes < size_on_disk(run) < 0.75 * size
    alone = report.steps[0].after_bytes / report.steps[0].before_bytes
    assert report.steps[1].after_bytes / report.steps[1].before_bytes < 0.9 * alone
    assert "delta" not in codecs_of(path_of(run, 10))
    for step in STEPS:
        assert is_state(path_of(run, step), step)
        assert ckptfmt.verify(path_of(run, step)).findings == ()
        naive_reader.read(path_of(run, step))
    assert "delta" in codecs_of(path_of(run, 40))
    back = ckptfmt.decompress_run(run)
    assert (back.before_bytes, back.after_bytes) == (report.after_bytes, report.before_bytes)
    after = contents(run)
    assert {name: data for name, data in after.items() if name.endswith(".safetensors")} == {
        name: data for name, data in before.items() if name.endswith(".safetensors")
    }
    assert after.keys() == before.keys()


def test_the_newest_stay_and_what_is_compressed_is_not_compressed_again(run):
    report = ckptfmt.compress_run(run, keep_last=2)
    assert [step.reason for step in report.steps] == ["", "", "last 2", "last 2"]
    assert codecs_of(path_of(run, 30)) == set()
    again = ckptfmt.compress_run(run, keep_last=1)
    assert [step.is_changed for step in again.steps] == [False, False, True, False]
    assert "delta" in codecs_of(path_of(run, 30))


def test_younger_checkpoints_stay(run):
    report = ckptfmt.compress_run(run, keep_last=0, older_than="7d")
    assert {step.reason for step in report.steps} == {"too young"}
    with pytest.raises(ValueError, match="expected a duration"):
        ckptfmt.compress_run(run, older_than="soon")


def test_an_estimate_changes_nothing_and_is_about_right(run):
    before = contents(run)
    guess = ckptfmt.compress_run(run, keep_last=0, dry_run=True)
    assert guess.dry_run
    assert contents(run) == before
    assert guess.after_bytes == pytest.approx(ckptfmt.compress_run(run, keep_last=0).after_bytes, rel=0.2)


@pytest.mark.parametrize("seed", range(6))
def test_steps_deleted_in_any_order_never_harm_others(run, seed):
    ckptfmt.compress_run(run, keep_last=0)
    left = list(STEPS)
    order = random.Random(seed).sample(STEPS, len(STEPS) - 1)
    for step in order:
        shutil.rmtree(path_of(run, step))
        left.remove(step)
        for other in left:
            assert is_state(path_of(run, other), other)
            assert ckptfmt.verify(path_of(run, other)).findings == ()
    ckptfmt.decompress_run(run)
    assert is_state(path_of(run, left[0]), left[0])


def test_a_damaged_base_is_reported_for_every_step_that_needs_it(run):
    ckptfmt.compress_run(run, keep_last=0)
    shard = next(path_of(run, 10).glob("master-*.safetensors"))
    shard.chmod(0o644)
    with shard.open("r+b") as file:
        file.seek(-2_000, 2)
        byte = file.read(1)
        file.seek(-2_000, 2)
        file.write(bytes([byte[0] ^ 1]))
    for step in STEPS:
        report = ckptfmt.verify(path_of(run, step))
        assert {finding.rule for finding in report.findings} == {"E040"}
        with pytest.raises(CheckpointError):
            ckptfmt.load(path_of(run, step))
    assert any("is made from" in finding.message for finding in ckptfmt.verify(path_of(run, 40)).findings)


def test_what_is_damaged_is_left_alone_and_nothing_is_built_on_it(run):
    shard = next(path_of(run, 20).glob("master-*.safetensors"))
    shard.chmod(0o644)
    with shard.open("r+b") as file:
        file.seek(-100, 2)
        file.write(b"\xff" * 50)
    before = contents(path_of(run, 20))
    report = ckptfmt.compress_run(run, keep_last=0)
    assert report.steps[1].reason.startswith("damaged")
    assert contents(path_of(run, 20)) == before
    with ckptfmt.open_checkpoint(path_of(run, 30)) as checkpoint:
        linked = {shard.digest for shard in checkpoint.manifest.shards if "-00000-" in shard.name}
    with ckptfmt.open_checkpoint(path_of(run, 10)) as checkpoint:
        assert linked
        assert linked <= {shard.digest for shard in checkpoint.manifest.shards}
    assert is_state(path_of(run, 30), 30)


def test_a_slice_of_a_difference_is_that_of_the_tensor(run):
    ckptfmt.compress_run(run, keep_last=0)
    with ckptfmt.open_checkpoint(path_of(run, 40)) as checkpoint:
        for name in ("master.w", "model.w"):
            section, _, key = name.partition(".")
            expected = make_state(40)[section][key]
            for index in (slice(0, 1), slice(17, 33), slice(119, 120), 5):
                assert torch.equal(checkpoint.get_slice(name)[index], expected[index])


def test_no_chain_is_longer_than_allowed(run, monkeypatch):
    monkeypatch.setattr(delta_base, "MAX_CHAIN", 2)
    ckptfmt.compress_run(run, keep_last=0)
    lengths = []
    for step in STEPS:
        with ckptfmt.open_checkpoint(path_of(run, step)) as checkpoint:
            chunk = next(row.chunks[0] for row in checkpoint.metadata.tensors if row.name == "master.w")
            lengths.append(len(checkpoint.store.decoder.chain((chunk.shard, chunk.slot))))
    assert lengths == [1, 2, 3, 1]


def test_a_save_with_a_compressed_base_is_whole(run):
    ckptfmt.compress_run(run, keep_last=0)
    ckptfmt.save(path_of(run, 50), make_state(40), step=50, base=path_of(run, 40))
    assert is_state(path_of(run, 50), 40)
    # What stands by itself is linked as it is; what is made from something else is written anew.
    assert codecs_of(path_of(run, 50)) <= {"planes"}
    assert codecs_of(path_of(run, 40)) > {"planes", "delta"}


def test_a_base_that_is_no_checkpoint_is_refused_and_nothing_changes(run, tmp_path):
    before = contents(run)
    with pytest.raises(ckptfmt.CheckpointNotFoundError):
        ckptfmt.compress(path_of(run, 20), base=tmp_path / "none")
    assert contents(run) == before


def test_the_metadata_of_a_linked_shard_says_only_what_is_needed(run):
    ckptfmt.compress_run(run, keep_last=0)
    manifest = json.loads((path_of(run, 20) / "manifest.json").read_text())
    assert {"codec:delta", "codec:planes"} <= set(manifest["requires"])
    with ckptfmt.open_checkpoint(path_of(run, 20)) as checkpoint:
        added = [number for number, shard in enumerate(checkpoint.manifest.shards) if "-00000-" in shard.name]
        assert added == list(range(added[0], len(checkpoint.manifest.shards)))
        assert all(checkpoint.metadata.shards[number].original is None for number in added)


def test_a_writer_takes_what_was_compressed_beside_it_for_sound(tmp_path):
    with ckptfmt.Run(tmp_path / "r", durable=False) as writer:
        for step in STEPS[:3]:
            writer.save(step, make_state(step))
    with ckptfmt.Run(tmp_path / "r", durable=False, keep_last=3, resume="must") as writer:
        assert len(writer.all_steps()) == 3
        ckptfmt.compress_run(tmp_path / "r", keep_last=0)
        writer.save(40, make_state(40))
        assert writer.all_steps() == [20, 30, 40]
    for step in (20, 30, 40):
        assert is_state(path_of(tmp_path / "r", step), step)


def memory_run():
    disk = MemoryDisk()
    disk.make_directory("/run")
    options = {"metrics": {}, "fingerprint": None, "overwrite": False, "base": None, "max_shard_size_bytes": 2**30, "durable": True}
    for step in STEPS[:3]:
        write_checkpoint(disk, f"/run/step-{step:08d}", encode_state(make_state(step)), SaveOptions(step=step, **options))
    return disk


def all_sound(disk):
    from ckptfmt.checkpoint.reader import OpenCheckpoint
    from ckptfmt.checkpoint.verify import verify_checkpoint

    for step in STEPS[:3]:
        assert verify_checkpoint(disk, f"/run/step-{step:08d}").ok
        with OpenCheckpoint(disk, f"/run/step-{step:08d}") as checkpoint:
            assert torch.equal(checkpoint.load()["master"]["w"], make_state(step)["master"]["w"])


def test_where_links_do_not_work_there_are_no_differences():
    disk = memory_run()
    disk.faults.fail("link", 18, times=None)
    report = compress_run_on(disk, "/run", keep_last=0)
    assert all(step.is_changed for step in report.steps)
    all_sound(disk)
    names = disk.open_directory("/run/step-00000030").names()
    assert not [name for name in names if "-00000-" in name]


def test_a_run_that_was_killed_at_any_operation_is_whole_and_can_be_gone_on_with():
    finished = memory_run()
    before = finished.faults.calls["any"]
    compress_run_on(finished, "/run", keep_last=0)
    count = finished.faults.calls["any"] - before
    assert count > 100
    prepared = memory_run().tree()
    for operation in range(1, count, 7):
        disk = MemoryDisk(prepared)
        disk.faults.fail("any", 5, nth=operation, times=None)
        with pytest.raises(OSError):  # noqa: PT011 - whatever the system says
            compress_run_on(disk, "/run", keep_last=0)
        disk.faults.clear()
        if operation % 3 == 0:
            all_sound(disk)
        assert [step.reason for step in compress_run_on(disk, "/run", keep_last=0).steps] == ["", "", ""]
        all_sound(disk)
        decompress_run_on(disk, "/run", on_step=lambda _: None)


def test_a_mirror_keeps_what_it_copied_before_it_was_compressed(tmp_path):
    with ckptfmt.Run(tmp_path / "r", durable=False, mirror=tmp_path / "m") as writer:
        for step in STEPS[:3]:
            writer.save(step, make_state(step))
    before = contents(tmp_path / "m")
    ckptfmt.compress_run(tmp_path / "r", keep_last=0)
    with ckptfmt.Run(tmp_path / "r", durable=False, mirror=tmp_path / "m", resume="must") as writer:
        writer.save(40, make_state(40))
    after = contents(tmp_path / "m")
    kept = {name for name in before if name.startswith("step-")}
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert all(is_state(path_of(tmp_path / "m", step), step) for step in STEPS)
