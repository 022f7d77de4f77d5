"""The naive reader, ckptfmt and the vectors of progress and studies agree, and the vectors are what their maker makes."""

import json
import shutil

import pytest

import ckptfmt
from ckptfmt.adapters.optuna_journal import read_studies
from ckptfmt.adapters.optuna_shared import SharedLog
from ckptfmt.disk.local import LocalDisk
from ckptfmt.format.rules import TITLES
from ckptfmt.run.progress import Progress
from ckptfmt.run.progress_ledger import Ledger
from ckptfmt.run.progress_reader import verify_progress
from ckptfmt.run.progress_records import plain_key
from ckptfmt.run.progress_writers import writer_names as progress_writer_names
from ckptfmt.run.study_ledger import StudyLedger
from ckptfmt.run.study_reader import is_shared_study, verify_studies
from ckptfmt.run.study_records import settled
from ckptfmt.run.study_writers import StudyWriters
from tests.conformance import naive_journal_reader, naive_records_reader
from tests.conformance.make_record_vectors import PLACES, all_vectors
from tests.conformance.vector_kit import readable

DISK = LocalDisk()


def vectors(kind, outcome):
    cases = sorted((PLACES[kind] / outcome).iterdir())
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in cases])


def case_of(case):
    return json.loads((case / "case.json").read_text("utf-8"))


@pytest.fixture
def copied(tmp_path):
    """Return a copy of a vector, because opening for work writes; shared studies get back the empty directory that archives lose."""

    def copied(case, kind):
        path = tmp_path / "work"
        shutil.copytree(case / kind, path)
        if kind == "study" and is_shared_study(DISK, str(path)):
            (path / ".turn").mkdir()
        return str(path)

    return copied


@pytest.mark.parametrize("kind", PLACES)
def test_vectors_are_what_their_maker_makes(kind):
    place = PLACES[kind]
    on_disk = {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    made = all_vectors(kind)
    assert sorted(on_disk) == sorted(made)
    assert [path for path in made if made[path] != on_disk[path]] == []


def test_every_code_of_records_has_a_vector_and_every_bad_one_is_named_by_its_code():
    names = [case.name for kind in PLACES for case in (PLACES[kind] / "bad").iterdir()]
    assert {"E057", "E058", "E059"} <= {name[:4] for name in names} <= TITLES.keys()
    assert all(case_of(case)["expected"] == case.name[:4] for kind in PLACES for case in (PLACES[kind] / "bad").iterdir())


def fold_progress(path):
    """What ckptfmt makes of a progress, in the form of case.json."""
    ledger = Ledger(path)
    for name in progress_writer_names(DISK, path):
        ledger.add(name, [record for _, record in naive_journal_reader.read(f"{path}/writers/{name}")])
    units = []
    for key, record in ledger.ordered_units():
        content = ledger.content(key)
        more = {"tensors": [[dtype, shape, data] for dtype, shape, data in content.tensors]} if content.tensors else {}
        for name, link in (("result", content.result_link), ("state", content.state_link)):
            if link is not None:
                more[name] = {"unit": link.name, "manifest": link.manifest, "content": link.content}
        units.append([plain_key(key), record[2], [content.tree, content.metrics, more]])
    failures = [[plain_key(key), one.attempts, one.error] for key, one in ledger.failures.items() if key not in ledger.units]
    return readable({"total": ledger.total, "fingerprint": ledger.fingerprint, "units": units, "failures": failures})


def fold_studies(path):
    """What ckptfmt makes of studies without Optuna, in the form of case.json."""
    ledger = StudyLedger()
    if is_shared_study(DISK, path):
        writers = StudyWriters(DISK, path)
        for writer, number, record in writers.read(is_alone=True).records:
            ledger.add(record, f"{writer}: {number}", is_shared=True)
        writers.close()
    else:
        for number, record in settled(naive_journal_reader.read(path), path):
            ledger.add(record, str(number))
    found = []
    for study_id, study in ledger.studies.items():
        trials = [
            {
                "id": next(one for one, (_, row) in ledger._trials.items() if row is trial),
                "study": study_id,
                **{name: getattr(trial, name) for name in ("state", "values", "started_at", "finished_at", "params")},
                **{name: getattr(trial, name) for name in ("user_attrs", "system_attrs")},
                "intermediate": {str(step): value for step, value in trial.intermediate.items()},
            }
            for trial in study.trials
        ]
        members = {name: getattr(study, name) for name in ("name", "directions", "user_attrs", "system_attrs", "sampler")}
        found.append({"id": study_id, **members, "trials": trials})
    return readable({"studies": found})


@pytest.mark.parametrize("kind", PLACES)
def test_naive_journal_reader_reads_every_journal_of_the_good_vectors(kind):
    segments = [path for case in (PLACES[kind] / "good").iterdir() for path in (case / kind).rglob("segment-*.journal")]
    assert len({path.parent for path in segments}) > len(list((PLACES[kind] / "good").iterdir()))
    for path in segments:
        assert all(record for _, record in naive_journal_reader.read(path.parent))


@vectors("progress", "good")
def test_naive_reader_and_ckptfmt_read_every_good_progress(case, copied):
    expected = {name: value for name, value in case_of(case).items() if name not in ("description", "expected")}
    path = copied(case, "progress")
    assert readable(naive_records_reader.read_progress(path)) == expected
    assert fold_progress(path) == expected
    assert verify_progress(DISK, path) == ()
    with Progress(DISK, path, "work", durable=False) as progress:
        results = progress.results()
        assert [readable(plain_key(key)) for key in results] == [key for key, _, _ in expected["units"]]
        progress.done("one more", 1)
    assert len(naive_records_reader.read_progress(path)["units"]) == len(results) + 1


def use_progress(path):
    with Progress(DISK, path, "work", durable=False, fingerprint=ckptfmt.Fingerprint(config={}), allow_changes="*") as progress:
        progress.results()


@vectors("progress", "bad")
def test_ckptfmt_refuses_every_bad_progress_by_its_code(case, copied):
    code, path = case.name[:4], copied(case, "progress")
    findings = verify_progress(DISK, path)
    assert (code, "error") in [(finding.rule, finding.level) for finding in findings]
    with pytest.raises(ckptfmt.CheckpointError) as caught:
        use_progress(path)
    assert isinstance(caught.value, FileNotFoundError) if code == "E012" else caught.value.rule == code


@vectors("study", "good")
def test_naive_reader_and_ckptfmt_read_every_good_study(case, copied):
    expected = {"studies": case_of(case)["studies"]}
    path = copied(case, "study")
    assert {"studies": readable(naive_records_reader.read_studies(path))} == expected
    assert fold_studies(path) == expected
    assert verify_studies(DISK, path) == ()


def fold_optuna(path):
    """What Optuna is given of studies: for each its trials, with their parameters as the objective saw them."""
    if is_shared_study(DISK, path):
        log = SharedLog(DISK, path, durable=False)
        log.close()
        image = log.image
    else:
        image = read_studies(DISK, path)
    return [
        (entry.name, entry.directions, [(trial._trial_id, trial.state.name, repr(trial.params), trial.values) for trial in entry.trials])
        for entry in image.studies.values()
    ]


def told_trial(trial, *, is_shared):
    params = {}
    for name, (value, text) in trial["params"].items():
        document = json.loads(text)
        choices = document["attributes"].get("choices")
        params[name] = choices[value] if choices else int(value) if document["name"].startswith("Int") else float(value)
    state = ("RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING")[trial["state"]]
    # A shared study's trial whose process is gone fails as soon as somebody opens it.
    state = "FAIL" if is_shared and state == "RUNNING" else state
    values = None if trial["values"] is None else [float("-inf") if type(value) is dict else float(value) for value in trial["values"]]
    return trial["id"], state, repr(params), values


@vectors("study", "good")
def test_optuna_is_given_what_is_in_every_good_study(case, copied):
    path = copied(case, "study")
    is_shared = is_shared_study(DISK, path)
    told = [
        (study["name"], study["directions"], [told_trial(trial, is_shared=is_shared) for trial in study["trials"]])
        for study in case_of(case)["studies"]
    ]
    assert fold_optuna(path) == told


@vectors("study", "bad")
def test_ckptfmt_refuses_every_bad_study_by_its_code(case, copied):
    code, path = case.name[:4], copied(case, "study")
    findings = verify_studies(DISK, path)
    assert (code, "error") in [(finding.rule, finding.level) for finding in findings]
    with pytest.raises(ckptfmt.CorruptError) as caught:
        SharedLog(DISK, path, durable=False) if is_shared_study(DISK, path) else read_studies(DISK, path)
    assert caught.value.rule == code
    assert f"{path}" in str(caught.value) or code == "E027"
