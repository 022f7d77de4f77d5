"""The naive reader, ckptfmt and the journal vectors agree, and the vectors are what their maker makes."""

import json
import os

import pytest

from ckptfmt.disk.local import LocalDisk
from ckptfmt.errors import FormatError
from ckptfmt.format.rules import TITLES
from ckptfmt.run.journal import Journal
from ckptfmt.run.journal_reader import read_journal, verify_journal
from tests.conformance import naive_journal_reader
from tests.conformance.make_journal_vectors import VECTORS, all_vectors
from tests.conformance.vector_kit import readable

# A writer's rule: a record of more than 16 MiB is not sound for a reader.
WITHOUT_VECTOR = {"E053"}


def vectors(kind):
    cases = sorted((VECTORS / kind).iterdir())
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in cases])


def case_of(case):
    return json.loads((case / "case.json").read_text("utf-8"))


def records_of(path):
    return readable([list(record) for record in read_journal(LocalDisk(), str(path)).iter_records()])


def test_vectors_are_what_their_maker_makes():
    on_disk = {path.relative_to(VECTORS).as_posix(): path.read_bytes() for path in VECTORS.rglob("*") if path.is_file()}
    made = all_vectors()
    assert sorted(on_disk) == sorted(made)
    assert [path for path in made if made[path] != on_disk[path]] == []


def test_every_code_of_journals_has_a_vector():
    with_vector = {case.name[:4] for kind in ("warn", "bad") for case in (VECTORS / kind).iterdir()}
    # Those of records, E057 to E059, have theirs in progress-1.0 and studies-1.0.
    assert {code for code in TITLES if "E050" <= code <= "E056" or code[:3] == "W01"} - with_vector == WITHOUT_VECTOR


@vectors("good")
def test_naive_reader_reads_every_good_vector(case):
    assert readable(naive_journal_reader.read(case / "journal")) == case_of(case)["records"]


@vectors("warn")
def test_naive_reader_reads_what_a_verifier_only_reports(case):
    assert readable(naive_journal_reader.read(case / "journal")) == case_of(case)["records"]


@vectors("bad")
def test_naive_reader_refuses_bad_vectors(case):
    try:
        naive_journal_reader.read(case / "journal")
        outcome = None
    except naive_journal_reader.Refused as refused:
        outcome = refused.args[0]
    except (ValueError, TypeError, KeyError):
        outcome = "E050"
    # It checks no more members of a header than it uses.
    assert outcome == case.name[:4] or case.name in ("E050-durable-is-wrong", "E050-writer-is-wrong", "E050-seen-is-wrong")


@vectors("good")
def test_ckptfmt_reads_every_good_vector_and_has_nothing_to_say(case):
    assert records_of(case / "journal") == case_of(case)["records"]
    assert verify_journal(LocalDisk(), str(case / "journal")) == ()


@vectors("warn")
def test_ckptfmt_reads_and_reports_every_warn_vector(case):
    document = case_of(case)
    assert records_of(case / "journal") == document["records"]
    findings = verify_journal(LocalDisk(), str(case / "journal"))
    assert [(finding.rule, finding.level) for finding in findings] == [(document["expected"], "warning")]


@vectors("bad")
def test_ckptfmt_refuses_every_bad_vector_by_its_code(case):
    code = case_of(case)["expected"]
    with pytest.raises(FormatError) as caught:
        records_of(case / "journal")
    assert caught.value.rule == code
    assert str(case) in str(caught.value.path)
    findings = verify_journal(LocalDisk(), str(case / "journal"))
    assert (code, "error") in [(finding.rule, finding.level) for finding in findings]


@pytest.mark.parametrize("kind", ["good", "warn"])
def test_a_writer_goes_on_with_every_vector_that_is_read(kind, tmp_path):
    for case in sorted((VECTORS / kind).iterdir()):
        path = tmp_path / case.name
        path.mkdir()
        for file in (case / "journal").iterdir():
            (path / file.name).write_bytes(file.read_bytes())
        with Journal.open_for_append(LocalDisk(), str(path), durable=False) as journal:
            journal.append("next")
        records = [*case_of(case)["records"]]
        assert [value for _, value in records_of(path)] == [*(value for _, value in records), "next"]
        assert readable(naive_journal_reader.read(path)) == records_of(path)


def test_a_link_in_the_place_of_a_segment_is_refused(tmp_path):
    journal = VECTORS / "good" / "one-session" / "journal"
    name = os.listdir(journal)[0]
    (tmp_path / name).symlink_to(journal / name)
    with pytest.raises(naive_journal_reader.Refused, match="E013"):
        naive_journal_reader.read(tmp_path)
    with pytest.raises(FormatError, match="E013"):
        records_of(tmp_path)
