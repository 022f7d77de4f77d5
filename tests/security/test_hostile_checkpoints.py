"""Hostile checkpoints: every way of reading ends with an error of ckptfmt or a finding, soon, in little memory, and runs nothing. P5.

Each test reads its attacks in one process of its own under limits and an audit hook; see attack.py.
"""

from itertools import chain

import pytest

from tests.security import hostile_index, hostile_manifests, hostile_metadata, hostile_values
from tests.security.attacks import complaints, run_attacks

CORPORA = {
    "manifests": (hostile_manifests.name_attacks, hostile_manifests.member_attacks, hostile_manifests.json_attacks),
    "files": (hostile_manifests.file_attacks, hostile_metadata.frame_attacks, hostile_metadata.packed_attacks),
    "index": (hostile_index.index_attacks, hostile_index.chunk_attacks, hostile_index.header_attacks, hostile_index.encoded_attacks),
    "values": (
        *(hostile_values.value_attacks, hostile_values.tensor_attacks, hostile_values.costly_attacks),
        *(hostile_values.some_tag_attacks, hostile_values.old_holes),
    ),
}


def check_all(attacks, directory):
    attacks = list(attacks)
    reports = run_attacks(attacks, directory)
    assert reports["good vectors"]["events"] == []
    found = [complaint for attack in attacks for complaint in complaints(attack, reports[attack.name])]
    assert found == [], f"{len(found)} complaints:\n" + "\n".join(found)


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_way_of_reading_survives(corpus, tmp_path):
    check_all(chain.from_iterable(make() for make in CORPORA[corpus]), tmp_path)


@pytest.mark.slow
def test_every_tag_survives_every_payload(tmp_path):
    check_all(hostile_values.all_tag_attacks(), tmp_path)


def test_the_corpus_is_large():
    assert sum(1 for corpus in CORPORA.values() for make in corpus for _ in make()) > 1500
