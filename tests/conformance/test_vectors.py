"""The naive reader and ckptfmt agree with every conformance vector, and the vectors are what their makers make."""

import errno
import json
import os

import pytest

from tests.conformance import naive_reader
from tests.conformance.breaking import MANIFEST, MODEL, sound, sound_parts
from tests.conformance.describing import Point, described, expected
from tests.conformance.make_vectors import KINDS, VECTORS, all_vectors
from tests.conformance.vector_kit import expected_tree, readable, seal

# Codes that the naive reader must never overlook; others it need not check to read a sound checkpoint.
RELIED_ON = set(
    "E001 E002 E004 E005 E006 E007 E009 E012 E013 E014 E020 E021 E022 E023 E031 E033 E034 E040 E041 E042 E045 E046 E047".split()
)


# A verifier needs no library, and leaves the payloads of a library's values to the reader that builds them.
OF_LIBRARIES = {"E027-bit-generator-named", "E027-device-named", "E027-dtype-named"}


def vectors(kind):
    cases = sorted((VECTORS / kind).iterdir())
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in cases])


def case_of(case):
    return json.loads((case / "case.json").read_text("utf-8"))


def load_described(path):
    import ckptfmt

    for library in ("jax",) if "jax" in path.parent.name else ("ml_dtypes",) if "dtypes-ml" in path.parent.name else ():
        pytest.importorskip(library)
    ckptfmt.register_codec(Point, name="vector.point", encode=vars, decode=lambda state: Point(**state))
    return ckptfmt.load(str(path))


def assert_refused(path, code):
    """Check that ckptfmt.load refuses a checkpoint by this code, and that ckptfmt.verify reports it without raising."""
    import ckptfmt

    with pytest.raises(ckptfmt.CheckpointError) as caught:
        ckptfmt.load(str(path))
    if code == "E001":
        assert isinstance(caught.value, ckptfmt.IncompleteError)
    else:
        assert caught.value.rule == code
    report = ckptfmt.verify(str(path))
    found = [(finding.rule, finding.level) for finding in report.findings]
    assert found == [] if path.parent.name in OF_LIBRARIES else (code, "error") in found
    assert report.ok == (path.parent.name in OF_LIBRARIES)


def test_vectors_are_what_their_makers_make():
    files = [path for kind in KINDS for path in (VECTORS / kind).rglob("*") if path.is_file()]
    on_disk = {path.relative_to(VECTORS).as_posix(): path.read_bytes() for path in files}
    made = all_vectors()
    assert sorted(on_disk) == sorted(made)
    assert [path for path in made if made[path] != on_disk[path]] == []


def test_vectors_stay_small():
    assert sum(path.stat().st_size for path in VECTORS.rglob("*") if path.is_file()) < 1_000_000


def test_every_bad_vector_is_named_by_its_code():
    for kind in ("warn", "bad"):
        assert all(case_of(case)["expected"] == case.name[:4] for case in (VECTORS / kind).iterdir())


@vectors("good")
def test_naive_reader_reads_every_good_vector(case):
    assert readable(naive_reader.read(case / "checkpoint")) == case_of(case)["tree"]


@vectors("warn")
def test_naive_reader_reads_what_a_verifier_only_reports(case):
    assert readable(naive_reader.read(case / "checkpoint")) == case_of(case)["tree"]


@vectors("bad")
def test_naive_reader_refuses_bad_vectors_by_the_rules_on_which_it_relies(case):
    code = case_of(case)["expected"]
    try:
        naive_reader.read(case / "checkpoint")
        outcome = None
    except naive_reader.Refused as refused:
        outcome = refused.args[0]
    except (ValueError, TypeError, KeyError, IndexError, naive_reader.zstandard.ZstdError):
        outcome = code
    assert outcome == code or code not in RELIED_ON


@vectors("good")
def test_ckptfmt_loads_every_good_vector(case):
    import ckptfmt

    document = case_of(case)
    assert described(load_described(case / "checkpoint")) == expected(document["tree"])
    report = ckptfmt.verify(str(case / "checkpoint"))
    assert report.ok
    assert report.findings == ()


@vectors("warn")
def test_ckptfmt_loads_and_reports_every_warn_vector(case):
    import ckptfmt

    document = case_of(case)
    assert described(ckptfmt.load(str(case / "checkpoint"))) == expected(document["tree"])
    report = ckptfmt.verify(str(case / "checkpoint"))
    assert report.ok
    assert [(finding.rule, finding.level) for finding in report.findings] == [(document["expected"], "warning")]


@vectors("bad")
def test_ckptfmt_refuses_every_bad_vector_by_its_code(case):
    assert_refused(case / "checkpoint", case_of(case)["expected"])


def written(path, files):
    path.mkdir()
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def shard_of(path):
    return next(file for file in path.iterdir() if file.name.startswith(MODEL))


def assert_refused_by_both(path, code):
    with pytest.raises(naive_reader.Refused, match=code):
        naive_reader.read(path)
    assert_refused(path, code)


def test_a_manifest_over_the_limit_is_refused(tmp_path):
    files = sound()
    files[MANIFEST] = seal(files[MANIFEST].ljust(2**24 + 1))
    assert_refused_by_both(written(tmp_path / "c", files), "E002")


def test_a_manifest_at_the_limit_is_read(tmp_path):
    import ckptfmt

    files = sound()
    files[MANIFEST] = seal(files[MANIFEST].ljust(2**24))
    path = written(tmp_path / "c", files)
    tree, tensors, _ = sound_parts()
    assert readable(naive_reader.read(path)) == expected_tree(tree, tensors)
    assert ckptfmt.verify(str(path)).ok


@pytest.mark.parametrize("target", [MODEL, "metadata-", MANIFEST])
def test_a_link_in_the_place_of_a_file_is_refused(tmp_path, target):
    path = written(tmp_path / "c", sound())
    file = next(file for file in path.iterdir() if file.name.startswith(target))
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert_refused_by_both(path, "E013")


def test_a_fifo_in_the_place_of_a_shard_is_refused_without_waiting(tmp_path):
    path = written(tmp_path / "c", sound())
    shard = shard_of(path)
    shard.unlink()
    try:
        os.mkfifo(shard)
    except OSError as error:
        pytest.skip(f"no FIFOs here: {errno.errorcode[error.errno or 0]}")
    assert_refused_by_both(path, "E013")


def test_the_naive_reader_notices_flipped_bits_wherever_they_are(tmp_path):
    files = sound()
    path = written(tmp_path / "c", files)
    for name, data in files.items():
        for position in range(0, len(data), 7):
            (path / name).write_bytes(data[:position] + bytes([data[position] ^ 1 << position % 8]) + data[position + 1 :])
            with pytest.raises((naive_reader.Refused, ValueError, TypeError, KeyError, naive_reader.zstandard.ZstdError)):
                naive_reader.read(path)
        (path / name).write_bytes(data)
