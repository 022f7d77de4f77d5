"""Every byte of a small journal is changed, and every length cut: what is read is always a prefix, and never shorter without a word
while any byte says that more was acknowledged."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.paths import make_directories
from ckptfmt.errors import CorruptError, FormatError
from ckptfmt.format.journal_record import RECORD_OVERHEAD_BYTES
from ckptfmt.run import journal_scan
from ckptfmt.run.journal import Journal
from ckptfmt.run.journal_reader import read_journal, verify_journal
from ckptfmt.run.journal_salvage import salvage

PATH = "/journal"


def make_journal(*, is_closed: bool, is_compacted: bool = False) -> dict[str, bytes]:
    """The files of a journal of three sessions; the last one flushed each of its records."""
    disk = MemoryDisk()
    with Journal.open_for_append(disk, PATH) as journal:
        journal.append("one")
        journal.append({"two": 2})
    journal = Journal.open_for_append(disk, PATH)
    journal.append("three", flush=True)
    journal.append("four")
    journal = Journal.open_for_append(disk, PATH)
    if is_compacted:
        journal.compact([value for _, value in journal.iter_records()])
    for value in ("five", "six", "seven"):
        journal.append(value, flush=True)
    if is_closed:
        journal.close()
    return {path.rpartition("/")[2]: content for path, content in disk.contents().items() if content}


VALUES = ["one", {"two": 2}, "three", "four", "five", "six", "seven"]


def disk_with(files: dict[str, bytes]) -> MemoryDisk:
    disk = MemoryDisk()
    make_directories(disk, PATH)
    directory = disk.open_directory(PATH)
    for name, content in files.items():
        file = directory.create(name, size_bytes=0)
        file.write(content)
        file.close()
    return disk


def find_values(files: dict[str, bytes]) -> list[object] | None:
    """What is read, or None where that is refused."""
    try:
        return [value for _, value in read_journal(disk_with(files), PATH).iter_records()]
    except CorruptError:
        return None


def changed(files: dict[str, bytes]) -> Iterator[tuple[str, int, dict[str, bytes]]]:
    for name, content in files.items():
        for offset in range(len(content)):
            for mask in (0x01, 0xFF):
                damaged = bytearray(content)
                damaged[offset] ^= mask
                yield name, offset, files | {name: bytes(damaged)}


def cut(files: dict[str, bytes]) -> Iterator[tuple[str, int, dict[str, bytes]]]:
    for name, content in files.items():
        for size in range(len(content)):
            yield name, size, files | {name: content[:size]}


@pytest.mark.parametrize("is_compacted", [False, True], ids=["as it grew", "compacted"])
def test_a_changed_byte_of_a_closed_journal_never_costs_a_record_in_silence(is_compacted: bool) -> None:
    files = make_journal(is_closed=True, is_compacted=is_compacted)
    for name, offset, damaged in changed(files):
        assert find_values(damaged) in (None, VALUES), f"{name} at {offset}"


@pytest.mark.parametrize("is_compacted", [False, True], ids=["as it grew", "compacted"])
def test_a_changed_byte_of_an_open_journal_costs_at_most_the_group_that_was_flushed_last(is_compacted: bool) -> None:
    files = make_journal(is_closed=False, is_compacted=is_compacted)
    last = max(files)
    last_record = files[last].rindex(b"\xa5seven") - 36
    for name, offset, damaged in changed(files):
        allowed = [None, VALUES] if (name, offset) < (last, last_record) else [VALUES[:-1]]
        assert find_values(damaged) in allowed, f"{name} at {offset}"


def test_a_block_of_zeros_in_a_closed_journal_never_costs_a_record_in_silence_unless_it_takes_the_seal_too() -> None:
    files = make_journal(is_closed=True)
    for name, content in files.items():
        for offset in range(len(content) - RECORD_OVERHEAD_BYTES - 100):
            damaged = files | {name: content[:offset] + bytes(100) + content[offset + 100 :]}
            assert find_values(damaged) in (None, VALUES), f"{name} at {offset}"


def test_without_the_search_for_witnesses_records_would_be_lost_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_scan, "_check_acknowledged", lambda directory, scan: None)
    files = make_journal(is_closed=True)
    assert any(find_values(damaged) not in (None, VALUES) for _, _, damaged in changed(files))


def test_a_cut_of_the_last_segment_gives_a_prefix_and_one_of_an_earlier_segment_an_error() -> None:
    files = make_journal(is_closed=True)
    lengths = set()
    for name, size, damaged in cut(files):
        found = find_values(damaged)
        if name == max(files):
            assert found is not None
            assert found == VALUES[: len(found)]
            lengths.add(len(found))
        else:
            assert found in (None, VALUES), f"{name} cut to {size}"
    # What the last session repeated is in the segment before as well.
    assert lengths == {4, 5, 6, 7}


def test_a_cut_snapshot_is_an_error_unless_only_what_came_after_it_is_lost() -> None:
    files = make_journal(is_closed=True, is_compacted=True)
    for name, _, damaged in cut(files):
        found = find_values(damaged)
        assert found is None or found == VALUES[: max(4, len(found))]
        assert name == max(files) or found in (None, VALUES)


def test_a_missing_segment_is_an_error_unless_nothing_says_that_it_was_there() -> None:
    files = make_journal(is_closed=True)
    for name in files:
        found = find_values({other: content for other, content in files.items() if other != name})
        assert found == (VALUES[:4] if name == max(files) else None)


@pytest.mark.parametrize("tail", [b"\0" * 700, b"garbage" * 100, b"\xff"], ids=["zeros", "garbage", "one byte"])
def test_a_torn_tail_is_dropped_and_never_written_to_again(tail: bytes) -> None:
    files = make_journal(is_closed=False)
    last = max(files)
    disk = disk_with(files | {last: files[last] + tail})
    content = read_journal(disk, PATH)
    assert [value for _, value in content.iter_records()] == VALUES
    assert content.torn_bytes >= len(tail)
    assert "W010" in [finding.rule for finding in content.findings]
    with Journal.open_for_append(disk, PATH) as journal:
        assert journal.append("next") == 8
    assert disk.contents()[f"{PATH}/{last}"] == files[last] + tail
    assert [value for _, value in read_journal(disk, PATH).iter_records()] == [*VALUES, "next"]


def test_a_tail_of_zeros_after_a_seal_is_dropped_too() -> None:
    files = make_journal(is_closed=True)
    assert find_values({name: content + bytes(300) * (name == max(files)) for name, content in files.items()}) == VALUES


def test_a_record_that_holds_a_copy_of_a_journal_is_no_witness_when_it_is_torn() -> None:
    files = make_journal(is_closed=True)
    disk = disk_with({})
    journal = Journal.open_for_append(disk, PATH)
    journal.append("one", flush=True)
    journal.append(b"".join(files.values()) * 2)
    name, content = next((path.rpartition("/")[2], content) for path, content in disk.contents().items() if content)
    assert find_values({name: content[:-20]}) == ["one"]
    assert find_values({name: content[:-20] + bytes(20)}) == ["one"]


def test_salvage_of_every_damage_keeps_the_prefix_and_gives_back_what_is_sound_behind_it() -> None:
    files = make_journal(is_closed=True)
    for name, offset, damaged in changed(files):
        if offset % 7 or find_values(damaged) is not None:
            continue
        disk = disk_with(damaged)
        report = salvage(disk, PATH)
        kept = [value for _, value in read_journal(disk, PATH).iter_records()]
        assert kept == VALUES[: report.kept_count]
        others = [value for _, value in report.others]
        assert len([value for value in VALUES if value in kept or value in others]) >= len(VALUES) - 1, f"{name} at {offset}"
        assert set(damaged.values()) <= set(disk.contents().values())
        assert [finding.rule for finding in verify_journal(disk, PATH)] == ["W012"] * len(files)
        with Journal.open_for_append(disk, PATH) as journal:
            assert journal.append("next") > 7


def test_verify_reports_every_damage_that_reading_refuses_and_never_raises() -> None:
    files = make_journal(is_closed=True)
    for name, offset, damaged in changed(files):
        if offset % 5 == 0:
            errors = [finding for finding in verify_journal(disk_with(damaged), PATH) if finding.level == "error"]
            assert bool(errors) == (find_values(damaged) is None), f"{name} at {offset}"


def test_the_message_says_how_many_records_are_sound_and_how_to_go_on() -> None:
    files = make_journal(is_closed=True)
    last = max(files)
    damaged = files | {last: files[last].replace(b"\xa3six", b"\xa3sex")}
    with pytest.raises(FormatError, match=r"5 records before the damage are sound.*ckpt-inspect salvage /journal") as caught:
        read_journal(disk_with(damaged), PATH)
    error = caught.value
    assert (error.rule, error.path, error.expected) == ("E054", f"{PATH}/{last}", "records up to 7")
    end = files[last].index(b"\xa3six") - 36
    assert error.found == f"sound up to 5, byte {end:,} of the file"
