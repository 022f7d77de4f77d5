"""ckptfmt.verify and is_complete: what is wrong, as records, without ever raising because of damage."""

import shutil

import pytest
import torch

import ckptfmt


@pytest.fixture
def path(tmp_path):
    state = {"model": {"w": torch.arange(100.0), "b": torch.ones(3)}, "optimizer": {"m": torch.zeros(50)}}
    ckptfmt.save(tmp_path / "c", state, step=3)
    return tmp_path / "c"


def edit(path, start, change):
    file = next(path.glob(f"{start}*"))
    data = change(file.read_bytes())
    file.chmod(0o644)
    file.write_bytes(data)
    return file


def flip_last(data):
    return data[:-1] + bytes([data[-1] ^ 1])


def rules(report):
    return [finding.rule for finding in report.findings]


def test_a_sound_checkpoint_has_no_findings(path):
    report = ckptfmt.verify(path)
    assert (report.ok, report.findings, report.path, report.level) == (True, (), str(path), "full")
    assert report.verified_bytes == 100 * 4 + 3 * 4 + 50 * 4


def test_quick_reads_no_data_of_tensors(path):
    edit(path, "optimizer", flip_last)
    quick, full = ckptfmt.verify(path, level="quick"), ckptfmt.verify(path)
    assert (quick.ok, quick.level, quick.verified_bytes) == (True, "quick", 0)
    assert not full.ok
    assert rules(full) == ["E040"]


def test_a_finding_says_rule_level_file_tensor_and_facts(path):
    file = edit(path, "optimizer", flip_last)
    (finding,) = ckptfmt.verify(path).findings
    assert (finding.rule, finding.level, finding.path, finding.tensor) == ("E040", "error", str(file), "m")
    assert finding.expected.startswith("blake3:")
    assert finding.found.startswith("blake3:")
    assert finding.message == (
        f"{file}: tensor 'm' of section 'optimizer': digest differs: expected {finding.expected}, found {finding.found} [E040]"
    )


def test_everything_that_is_damaged_is_found_at_once(path):
    edit(path, "optimizer", flip_last)
    edit(path, "model", flip_last)
    (path / "notes.txt").write_text("x")
    report = ckptfmt.verify(path)
    assert sorted(rules(report)) == ["E040", "E040", "W001"]
    assert len({finding.path for finding in report.findings}) == 3


def test_a_damaged_header_does_not_hide_damaged_data(path):
    edit(path, "model", lambda data: flip_last(data.replace(b'"b"', b'"c"')))
    assert sorted(rules(ckptfmt.verify(path))) == ["E031", "E040"]
    assert rules(ckptfmt.verify(path, level="quick")) == ["E031"]


def test_warnings_leave_a_checkpoint_sound(path):
    (path / "notes.txt").write_text("x")
    (path / (".model-00001." + "0" * 32 + ".tmp")).write_text("x")
    (path / "model-00009-0123abcd.safetensors").write_text("x")
    report = ckptfmt.verify(path)
    assert report.ok
    assert sorted((finding.rule, finding.level) for finding in report.findings) == [("W001", "warning")] * 2 + [("W002", "warning")]


@pytest.mark.parametrize("name", ["\x1b[2J", "\u202etxt", "new\nline"])
def test_findings_about_files_with_strange_names_are_safe_to_print(path, name):
    (path / name).write_text("x")
    (finding,) = ckptfmt.verify(path).findings
    assert finding.path == f"{path}/{name}"
    assert finding.message.isprintable()


DAMAGE = {
    "no manifest": (lambda path: (path / "manifest.json").unlink(), ["E001"]),
    "empty manifest": (lambda path: edit(path, "manifest", lambda _: b""), ["E003"]),
    "manifest of another format": (lambda path: edit(path, "manifest", lambda _: b"{}"), ["E005"]),
    "no metadata": (lambda path: next(path.glob("metadata*")).unlink(), ["E012"]),
    "damaged metadata": (lambda path: edit(path, "metadata", flip_last), ["E020"]),
    "no shards": (lambda path: [file.unlink() for file in path.glob("*.safetensors")], ["E012", "E012"]),
    "short shard": (lambda path: edit(path, "model", lambda data: data[:-1]), ["E014"]),
    "empty shard": (lambda path: edit(path, "model", lambda _: b""), ["E014"]),
    "metadata and shard": (
        lambda path: (edit(path, "metadata", flip_last), edit(path, "model", lambda data: data[:-1])),
        ["E020", "E014"],
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("level", ["full", "quick"])
def test_damage_is_reported_and_never_raised(path, kind, level):
    break_it, expected = DAMAGE[kind]
    break_it(path)
    report = ckptfmt.verify(path, level=level)
    assert not report.ok
    assert rules(report) == expected
    assert all(finding.message.endswith(f"[{finding.rule}]") for finding in report.findings)
    with pytest.raises(ckptfmt.CheckpointError):
        ckptfmt.load(path)


def test_the_first_finding_is_what_load_raises(path):
    edit(path, "model", flip_last)
    with pytest.raises(ckptfmt.CorruptError) as caught:
        ckptfmt.load(path)
    (finding,) = ckptfmt.verify(path).findings
    error = caught.value
    assert (finding.rule, finding.path, finding.tensor) == (error.rule, error.path, error.tensor)
    assert finding.message == str(error).partition("\n")[0]


def test_a_path_without_anything_raises(tmp_path):
    with pytest.raises(ckptfmt.CheckpointNotFoundError):
        ckptfmt.verify(tmp_path / "nothing")


@pytest.mark.parametrize("level", ["", "Full", None, 1, "deep"])
def test_an_unknown_level_is_refused(path, level):
    with pytest.raises(ValueError, match=r"level=.*expected one of full, quick"):
        ckptfmt.verify(path, level=level)


def test_stale_data_in_a_shared_shard_is_verified_too(path, tmp_path):
    state = ckptfmt.load(path)
    state["model"]["b"] = torch.zeros(3)
    ckptfmt.save(tmp_path / "d", state, base=path)
    shared = next(file for file in (tmp_path / "d").glob("model*") if file.stat().st_nlink == 2)
    data = bytearray(shared.read_bytes())
    data[-1] ^= 1
    shared.chmod(0o644)
    shared.write_bytes(data)
    report = ckptfmt.verify(tmp_path / "d")
    assert [(finding.rule, finding.tensor) for finding in report.findings] == [("E040", "b")]
    assert ckptfmt.load(tmp_path / "d")["model"]["b"].tolist() == [0, 0, 0]


def test_is_complete_is_true_for_a_committed_checkpoint(path):
    assert ckptfmt.is_complete(path) is True


def test_is_complete_is_false_for_everything_else(path, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    assert not ckptfmt.is_complete(tmp_path / "nothing")
    assert not ckptfmt.is_complete(tmp_path / "empty")
    assert not ckptfmt.is_complete(tmp_path / "file")
    for name in [file.name for file in path.iterdir()]:
        shutil.copytree(path, tmp_path / "part")
        (tmp_path / "part" / name).unlink()
        assert not ckptfmt.is_complete(tmp_path / "part")
        shutil.rmtree(tmp_path / "part")
    edit(path, "manifest", flip_last)
    assert not ckptfmt.is_complete(path)


def test_is_complete_reads_no_tensors_and_only_compares_sizes(path):
    edit(path, "model", flip_last)
    assert ckptfmt.is_complete(path)
    edit(path, "model", lambda data: data[:-1])
    assert not ckptfmt.is_complete(path)
