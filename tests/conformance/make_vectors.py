"""Write the conformance vectors of spec/vectors anew: `python -m tests.conformance.make_vectors`.

The vectors are what tests of other readers use; a test compares them with what is made here, byte for byte.
"""

import json
import shutil
from pathlib import Path

from tests.conformance import cases_bad_encoded, cases_bad_manifest, cases_bad_metadata, cases_bad_shards, cases_encoded, cases_good
from tests.conformance.breaking import sound_parts
from tests.conformance.vector_kit import expected_tree

VECTORS = Path(__file__).resolve().parents[2] / "spec" / "vectors" / "1.0"
KINDS = ("good", "warn", "bad")
BAD_GROUPS = (
    *(cases_bad_manifest.manifest_cases, cases_bad_manifest.member_cases, cases_bad_manifest.file_cases),
    *(cases_bad_metadata.frame_cases, cases_bad_metadata.packed_cases, cases_bad_metadata.tree_cases),
    *(cases_bad_shards.header_cases, cases_bad_shards.agreement_cases, cases_bad_shards.row_cases, cases_bad_shards.encoding_cases),
    *(cases_bad_encoded.planes_cases, cases_bad_encoded.source_cases, cases_bad_encoded.delta_cases),
)


def all_vectors():
    """Return the bytes of every file of every vector by its path below the folder of vectors."""
    vectors = {}

    def add(case, files, description, **members):
        document = {"description": description, **members}
        vectors[f"{case}/case.json"] = (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
        vectors.update({f"{case}/checkpoint/{name}": data for name, data in files.items()})

    for name, description, tree, tensors, files in (*cases_good.cases(), *cases_good.cases(cases_encoded.CASES)):
        add(f"good/{name}", files, description, expected=None, tree=expected_tree(tree, tensors))
    for name, description, files in cases_bad_manifest.warn_cases():
        add(f"warn/{name}", files, description, expected=name[:4], tree=expected_tree(*sound_parts()[:2]))
    for group in BAD_GROUPS:
        for name, description, files in group():
            add(f"bad/{name}", files, description, expected=name[:4])
    return vectors


def write_vectors():
    """Replace the vectors on disk."""
    for kind in KINDS:
        shutil.rmtree(VECTORS / kind, ignore_errors=True)
    for path, data in all_vectors().items():
        file = VECTORS / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


if __name__ == "__main__":
    write_vectors()
