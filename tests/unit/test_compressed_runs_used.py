"""What people do with a compressed run: everything is as it was before, and what is damaged is told for each step that needs it."""

import shutil
import subprocess
import warnings

import numpy as np
import pytest

import ckptfmt
from ckpt_inspect.main import main

STEPS = (10, 20, 30, 40)


def state_of(step):
    noise = np.random.default_rng(0).standard_normal((60, 50)).astype("f4")
    drift = np.random.default_rng(step).standard_normal((60, 50)).astype("f4")
    weights = noise * (1 + np.float32(1e-4) * drift)
    return {"model": {"w": weights, "b": np.arange(50, dtype="f4") + step}, "optimizer": {"m": weights * np.float32(0.1)}, "step": step}


def is_state(state, step):
    expected = state_of(step)
    return state["step"] == step and all(
        np.array_equal(state[section][name], array) for section in ("model", "optimizer") for name, array in expected[section].items()
    )


def path_of(run, step):
    return run / f"step-{step:08d}"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "run"
    with ckptfmt.Run(path, durable=False, monitor="loss", mode="min") as run:
        for step in STEPS:
            run.save(step, state_of(step), metrics={"loss": abs(step - 20) / 10})
    return path


@pytest.fixture(scope="module")
def compressed(plain, tmp_path_factory):
    path = tmp_path_factory.mktemp("compressed") / "run"
    shutil.copytree(plain, path)
    ckptfmt.compress_run(path, keep_last=0)
    return path


@pytest.fixture
def run(compressed, tmp_path):
    # Files that have several names have as many in the copy.
    subprocess.run(["cp", "-a", str(compressed), str(tmp_path / "run")], check=True)
    return tmp_path / "run"


@pytest.fixture
def show(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    def show(*arguments, status=0):
        assert main([str(argument) for argument in arguments]) == status
        captured = capsys.readouterr()
        return captured.out + captured.err

    return show


def damage(path, back=-200):
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(back, 2)
        file.write(bytes(byte ^ 1 for byte in file.read(1)) or b"\0")
        file.seek(back, 2)
        file.write(b"\xff" * 50)


def shard_of(path, section):
    return next(shard for shard in path.glob(f"{section}-*.safetensors") if "-00000-" not in shard.name)


def own_bytes(run):
    return sum({file.stat().st_ino: file.stat().st_size for file in run.glob("step-*/*")}.values())


def test_the_tool_tells_the_same_of_both(plain, run, show, monkeypatch):
    calls = [("diff", "step-00000010", "step-00000030"), ("diff", "step-00000020", "step-00000020")]
    calls += [("inspect", "step-00000030", option) for option in ("--stats", "--tree")]
    for call in calls:
        told = []
        for of in (plain, run):
            monkeypatch.chdir(of)
            told.append(show(*call, status=int(call[1:] == ("step-00000010", "step-00000030"))))
        assert told[0] == told[1]
    assert show("diff", path_of(plain, 30), path_of(run, 30), "-q") == ""
    assert show("verify", run).count("sound") >= len(STEPS)
    assert [line.split()[0] for line in show("inspect", run).splitlines() if line.strip()[:2] in ("10", "20", "30", "40")] == [
        *map(str, STEPS)
    ]
    assert "20" in show("best", run, "--metric", "loss", "--mode", "min")


@pytest.mark.parametrize("target", ["w.safetensors", "w.npz", "hf"])
def test_weights_are_converted_to_the_same_bytes(plain, run, tmp_path, show, target):
    written = []
    for of in (plain, run):
        made = tmp_path / of.parent.name / target
        made.parent.mkdir(exist_ok=True)
        options = ["--to", "huggingface"] if target == "hf" else []
        show("convert", path_of(of, 30), made, *options)
        files = sorted(made.rglob("*")) if made.is_dir() else [made]
        written.append({file.name: file.read_bytes() for file in files if file.is_file()})
    if target.endswith("npz"):
        a, b = (np.load(tmp_path / of.parent.name / target) for of in (plain, run))
        assert a.files == b.files
        assert all(np.array_equal(a[name], b[name]) for name in a.files)
    else:
        assert written[0] == written[1]


def test_an_export_is_the_same(plain, run, tmp_path):
    for of in (plain, run):
        with ckptfmt.Run(of, monitor="loss", mode="min") as opened:
            opened.export(tmp_path / of.parent.name / "out", steps=("best", 40))
    before, after = (
        {
            file.relative_to(tmp_path / of.parent.name): file.read_bytes()
            for file in (tmp_path / of.parent.name / "out").rglob("*")
            if file.is_file()
        }
        for of in (plain, run)
    )
    assert before == after


def test_best_and_any_step_are_restored_and_training_goes_on(run):
    with ckptfmt.Run(run, durable=False, monitor="loss", mode="min", resume="must") as opened:
        assert opened.best_step() == 20
        assert is_state(opened.restore(step="best").state, 20)
        assert is_state(opened.restore(step=30).state, 30)
        assert is_state(opened.restore().state, 40)
        opened.save(50, state_of(50))
        assert opened.all_steps() == [10, 20, 30, 40, 50]
    assert is_state(ckptfmt.load(path_of(run, 50)), 50)


def test_a_damaged_newest_step_is_passed_over_and_said(run):
    damage(shard_of(path_of(run, 40), "model"))
    with ckptfmt.Run(run, durable=False) as opened:
        with pytest.warns(RuntimeWarning, match="step 40 is damaged and was passed over; restored step 30: .*digest differs"):
            restored = opened.restore()
        assert restored.step == 30
        assert is_state(restored.state, 30)
        assert list(restored.report.damaged) == [40]


def test_a_damaged_base_is_told_for_every_step_that_needs_it(run, show):
    damage(shard_of(path_of(run, 20), "optimizer"))
    text = show("verify", run, status=1)
    words = {line.split()[1][-8:]: line.split()[0] for line in text.splitlines() if "step-000000" in line and line[:1] != " "}
    assert words == {"00000010": "sound", "00000020": "damaged", "00000030": "damaged", "00000040": "damaged"}, text
    assert text.count("'m'") >= 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with ckptfmt.Run(run, durable=False) as opened:
            assert opened.restore().step == 10
    # What does not need it is not concerned.
    assert np.array_equal(ckptfmt.load(path_of(run, 40), only="model.*")["model"]["w"], state_of(40)["model"]["w"])


@pytest.mark.parametrize("keep_last", [1, 2, 3])
def test_a_clean_up_frees_what_its_dry_run_says_and_harms_nobody(run, keep_last):
    with ckptfmt.Run(run, durable=False) as opened:
        planned = opened.cleanup(keep_last=keep_last, dry_run=True)
        before = own_bytes(run)
        done = opened.cleanup(keep_last=keep_last)
        assert planned.removed == done.removed
        assert planned.freed_bytes == done.freed_bytes == before - own_bytes(run)
        left = opened.all_steps()
    assert left == list(STEPS[-keep_last:])
    assert all(is_state(ckptfmt.load(path_of(run, step)), step) for step in left)
    ckptfmt.decompress_run(run)
    assert all(is_state(ckptfmt.load(path_of(run, step)), step) for step in left)


def test_steps_that_share_a_file_are_freed_together(run):
    with ckptfmt.Run(run, durable=False) as opened:
        report = opened.cleanup(keep_every=10, keep_last=1, dry_run=True)
        assert report.freed_bytes == 0
        together = opened.cleanup(keep_last=1, dry_run=True).freed_bytes
    with ckptfmt.Run(run, durable=False) as opened:
        alone = sum(opened.checkpoint(step).unique_bytes for step in STEPS[:-1])
    assert together >= alone


def test_a_mirror_of_a_compressed_run_fills_an_empty_one(run, tmp_path):
    with ckptfmt.Run(run, durable=False, mirror=tmp_path / "m", resume="must") as opened:
        opened.log(40, {"n": 1})
        opened.wait_until_finished()
        status = opened.mirror_status()
        assert (status.verified, status.pending, status.last_error) == (STEPS, (), None)
    assert all(ckptfmt.verify(path_of(tmp_path / "m", step)).ok for step in STEPS)
    with pytest.warns(RuntimeWarning, match="brought from the mirror: steps 30, 40"):
        filled = ckptfmt.Run(tmp_path / "new", durable=False, mirror=tmp_path / "m")
    with filled:
        assert is_state(filled.restore().state, 40)
    assert is_state(ckptfmt.load(path_of(tmp_path / "new", 30)), 30)
    # What links nothing there can be compressed by itself, and decompressed.
    ckptfmt.decompress_run(tmp_path / "new")
    assert is_state(ckptfmt.load(path_of(tmp_path / "new", 40)), 40)


def test_salvage_leaves_compressed_steps_as_they_are(run, show):
    journal = next(file for file in (run / "history").iterdir())
    damage(journal, back=-60)
    before = {file: file.read_bytes() for file in run.glob("step-*/*")}
    show("salvage", run, "-y", status=0)
    assert {file: file.read_bytes() for file in run.glob("step-*/*")} == before
    assert all(is_state(ckptfmt.load(path_of(run, step)), step) for step in STEPS)


def test_the_report_names_the_command(run, tmp_path, show):
    show("report", run, "-o", tmp_path / "x.html")
    assert f"ckpt-inspect compress {run} --keep-last 3 -n" in (tmp_path / "x.html").read_text()


def test_what_deleted_steps_leave_is_freed_by_compressing_again(run):
    with ckptfmt.Run(run, durable=False) as opened:
        opened.cleanup(keep_last=2)
    held = own_bytes(run)
    report = ckptfmt.compress_run(run, keep_last=0)
    assert [step.is_changed for step in report.steps] == [True, True]
    assert own_bytes(run) < 0.7 * held
    assert report.after_bytes <= report.before_bytes
    assert all(is_state(ckptfmt.load(path_of(run, step)), step) and ckptfmt.verify(path_of(run, step)).ok for step in (30, 40))
    # Once: there is nothing left of them.
    assert [step.is_changed for step in ckptfmt.compress_run(run, keep_last=0).steps] == [False, False]
    with ckptfmt.open_checkpoint(path_of(run, 40)) as checkpoint:
        assert "codec:delta" in checkpoint.manifest.requires


def test_a_few_bytes_of_a_deleted_step_are_not_worth_compressing_all_others_again(plain, tmp_path):
    for step in range(12):
        ckptfmt.save(path_of(tmp_path / "run", step), state_of(step), step=step, durable=False)
    ckptfmt.compress_run(tmp_path / "run", keep_last=0)
    shutil.rmtree(path_of(tmp_path / "run", 5))
    assert not any(step.is_changed for step in ckptfmt.compress_run(tmp_path / "run", keep_last=0).steps)
