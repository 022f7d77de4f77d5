"""Looking at a progress from outside: sums, last records, and every kind of damage as a finding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt
from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.run.journal import Journal
from ckptfmt.run.progress import Progress
from ckptfmt.run.progress_reader import is_progress, summarise_progress, verify_progress
from ckptfmt.run.progress_records import Content, UnitLink, encode_content

PATH = "/run/progress/work"
WRITER = f"{PATH}/writers/0123456789abcdef"
DIGEST = "blake3:" + "0" * 64


def test_a_summary_tells_how_far_it_is_and_what_came_last() -> None:
    disk = MemoryDisk()
    with Progress(disk, PATH, "work", total=8) as progress:
        for key in range(4):
            progress.done(key, {"text": "x"}, {"tokens": key})
        progress.fail(("a", 1), ValueError("no"))
        found = summarise_progress(disk, PATH, last_count=2)
    assert (found.total, found.done, found.failed) == (8, 4, 1)
    assert found.units_per_second is not None
    assert found.eta_seconds == pytest.approx(4 / found.units_per_second)
    assert [(record.key, record.metrics, record.error) for record in found.last] == [
        (3, {"tokens": 3}, None),
        (("a", 1), {}, "ValueError: no"),
    ]
    assert summarise_progress(disk, PATH, last_count=0).last == ()
    assert verify_progress(disk, PATH) == ()


def test_what_is_no_progress_is_not_found() -> None:
    disk = MemoryDisk()
    disk.make_directory("/run")
    for look in (summarise_progress, verify_progress):
        with pytest.raises(ckptfmt.CheckpointNotFoundError, match="no such progress"):
            look(disk, "/run")
    assert not is_progress(disk, "/run")


GOOD = encode_content(Content(1, (), {}))
LINK = UnitLink("gone", DIGEST, DIGEST)
WRONG_RECORDS: dict[str, tuple[Any, str]] = {
    "no array": ("done", "E057"),
    "empty": ([], "E057"),
    "no content": (["done", 1, 1.0], "E057"),
    "time is an integer": (["done", 1, 1, GOOD], "E057"),
    "key is a float": (["done", 1.5, 1.0, GOOD], "E057"),
    "content is not packed": (["done", 1, 1.0, b"\xc1"], "E024"),
    "content is a number": (["done", 1, 1.0, b"\x01"], "E057"),
    "metrics are texts": (["done", 1, 1.0, encode_content(Content(1, (), {"a": "b"}))], "E057"),  # type: ignore[dict-item]
    "unknown tag": (["done", 1, 1.0, encode_content(Content({"$nothing": 1}, (), {}))], "E027"),
    "no such tensor": (["done", 1, 1.0, encode_content(Content({"$tensor": [3, "numpy", {}]}, (), {}))], "E028"),
    "link leads out": (["done", 1, 1.0, encode_content(Content(1, (), {}, UnitLink("../..", DIGEST, DIGEST)))], "E057"),
    "link leads nowhere": (["done", 1, 1.0, encode_content(Content(1, (), {}, None, LINK))], "E012"),
    "failure without attempts": (["fail", 1, 1.0], "E057"),
    "begin without a time": (["begin", None, None], "E057"),
}


@pytest.mark.parametrize(("record", "rule"), WRONG_RECORDS.values(), ids=WRONG_RECORDS)
def test_a_wrong_record_is_a_finding_with_its_rule(record: Any, rule: str) -> None:
    disk = MemoryDisk()
    with Journal.open_for_append(disk, WRITER) as journal:
        journal.append(["done", 0, 1.0, GOOD])
        journal.append(record)
    (finding,) = verify_progress(disk, PATH)
    assert (finding.rule, finding.level) == (rule, "error")


def test_records_of_a_newer_version_are_passed_over() -> None:
    disk = MemoryDisk()
    with Journal.open_for_append(disk, WRITER) as journal:
        journal.append(["note", "anything", {"a": 1}])
        journal.append(["done", "unit", 1.0, GOOD, "more"])
    assert verify_progress(disk, PATH) == ()
    with Progress(disk, PATH, "work") as progress:
        assert progress.results() == {"unit": 1}


def test_a_damaged_checkpoint_of_a_unit_is_named(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path) as run, run.progress("work") as progress:
        progress.done("large", np.arange(300_000))
        progress.done("small", 1)
    (shard,) = (tmp_path / "progress/work/units").glob("*/*.safetensors")
    data = bytearray(shard.read_bytes())
    data[-5] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(data)
    findings = verify_progress(LocalDisk(), str(tmp_path / "progress/work"))
    assert {finding.rule for finding in findings} <= {"E031", "E040"}
    assert findings
    with ckptfmt.Run(tmp_path) as run, run.progress("work") as progress:
        with pytest.raises(ckptfmt.CorruptError, match=shard.name):
            progress.results()
        assert progress.result("small") == 1


def test_a_checkpoint_that_was_put_in_the_place_of_another_is_refused(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path) as run, run.progress("work") as progress:
        progress.done("large", np.arange(300_000))
        (unit,) = (tmp_path / "progress/work/units").iterdir()
        ckptfmt.save(unit, np.arange(300_000), overwrite=True)
        with pytest.raises(ckptfmt.CorruptError, match="manifest digest differs"):
            progress.result("large")
    findings = verify_progress(LocalDisk(), str(tmp_path / "progress/work"))
    assert [finding.rule for finding in findings if finding.level == "error"] == ["E004"]


def test_a_damaged_journal_is_an_error_and_not_a_shorter_progress(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path) as run, run.progress("work") as progress:
        for key in range(3):
            progress.done(key)
    (segment,) = (tmp_path / "progress/work/writers").glob("*/*.journal")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.chmod(0o644)
    segment.write_bytes(data)
    assert [finding.level for finding in verify_progress(LocalDisk(), str(tmp_path / "progress/work"))].count("error") == 1
    with ckptfmt.Run(tmp_path) as run, pytest.raises(ckptfmt.CorruptError, match="salvage"):
        run.progress("work")
