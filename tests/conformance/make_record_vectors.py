"""Write the conformance vectors of progress and studies anew: `python -m tests.conformance.make_record_vectors`.

They stand in spec/vectors/progress-1.0 and studies-1.0: each case is a folder `progress/` or `study/` and a `case.json`. What a case
holds, `case.json` says as the naive reader reads it; a test compares all of them with what is made here, byte for byte.
"""

import json
import shutil
import tempfile
from pathlib import Path

from tests.conformance import cases_progress, cases_studies
from tests.conformance.make_journal_vectors import VECTORS as JOURNAL_VECTORS
from tests.conformance.naive_records_reader import read_progress, read_studies
from tests.conformance.vector_kit import readable

PLACES = {"progress": JOURNAL_VECTORS.with_name("progress-1.0"), "study": JOURNAL_VECTORS.with_name("studies-1.0")}
CASES = {"progress": cases_progress, "study": cases_studies}


def all_vectors(kind):
    """Return the bytes of every file of every vector of "progress" or "study" by its path below their folder."""
    vectors = {}

    def add(case, files, document):
        vectors[f"{case}/case.json"] = (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
        vectors.update({f"{case}/{kind}/{path}": data for path, data in files.items()})

    for name, description, files in CASES[kind].good_cases():
        add(f"good/{name}", files, {"description": description, "expected": None, **expected_of(kind, files)})
    for name, description, files in CASES[kind].bad_cases():
        add(f"bad/{name}", files, {"description": description, "expected": name[:4]})
    return vectors


def expected_of(kind, files):
    with tempfile.TemporaryDirectory() as directory:
        write(Path(directory), files)
        return readable(read_progress(directory)) if kind == "progress" else {"studies": readable(read_studies(directory))}


def write(directory, files):
    for path, data in files.items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def write_vectors():
    """Replace the vectors on disk."""
    for kind, place in PLACES.items():
        shutil.rmtree(place, ignore_errors=True)
        write(place, all_vectors(kind))


if __name__ == "__main__":
    write_vectors()
