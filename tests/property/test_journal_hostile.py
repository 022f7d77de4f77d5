"""Journals by somebody who wants to do harm: bytes that are put together anew end in an error that names a rule, or in records."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.paths import make_directories
from ckptfmt.errors import FormatError, UnsupportedVersionError
from ckptfmt.format.journal_record import ORIGIN, encode_record, parse_segment_name
from ckptfmt.run.journal import Journal
from ckptfmt.run.journal_follower import JournalFollower
from ckptfmt.run.journal_reader import read_journal, verify_journal
from ckptfmt.run.journal_salvage import salvage
from tests.conformance.make_journal_vectors import all_vectors

PATH = "/journal"

FILES = {name: data for name, data in all_vectors().items() if "/journal/" in name}
NAMES = sorted({Path(name).name for name in FILES})
CONTENTS = sorted(set(FILES.values()), key=len)[:60]

PIECES = st.tuples(st.sampled_from(CONTENTS), st.integers(0, 400), st.integers(0, 400)).map(lambda cut: cut[0][cut[1] : cut[1] + cut[2]])
CONTENT = st.sampled_from(CONTENTS) | st.lists(PIECES | st.binary(max_size=20), max_size=4).map(b"".join)


def disk_with(files: dict[str, bytes]) -> MemoryDisk:
    disk = MemoryDisk()
    make_directories(disk, PATH)
    directory = disk.open_directory(PATH)
    for name, content in files.items():
        file = directory.create(name, size_bytes=0)
        file.write(content)
        file.close()
    return disk


@given(st.dictionaries(st.sampled_from(NAMES), CONTENT, min_size=1, max_size=4))
def test_any_mixture_of_bytes_is_read_refused_or_salvaged(files: dict[str, bytes]) -> None:
    disk = disk_with(files)
    findings = verify_journal(disk, PATH)
    try:
        records = list(read_journal(disk, PATH).iter_records())
    except UnsupportedVersionError:
        return
    except FormatError as error:
        rule = error.rule
    else:
        rule = None
    assert {rule} <= {finding.rule for finding in findings if finding.level == "error"} | {None}
    if rule == "E024":
        return
    if rule is None:
        assert not [finding for finding in findings if finding.level == "error"]
    else:
        report = salvage(disk, PATH)
        records = list(read_journal(disk, PATH).iter_records())
        assert len(records) == report.kept_count
    assert JournalFollower(disk, PATH).poll().records == records
    with Journal.open_for_append(disk, PATH) as journal:
        journal.append("next")
    assert [value for _, value in read_journal(disk, PATH).iter_records()] == [*(value for _, value in records), "next"]


def test_marks_without_end_do_not_keep_a_reader_busy() -> None:
    name = next(name for name in NAMES if parse_segment_name(name))
    _, mark = parse_segment_name(name) or (0, b"")
    fixed, _ = encode_record(b"", mark=mark, after=ORIGIN, acknowledged=0)
    greedy = fixed[:32] + (2**24).to_bytes(4, "little")
    with pytest.raises(FormatError, match="E055"):
        read_journal(disk_with({name: greedy * 2000}), PATH)
