"""Hostile checkpoints: every way of reading ends with an error of ckptfmt or a finding, soon, in little memory, and runs nothing. P5.

Each test reads its attacks in one process of its own under limits and an audit hook; see attack.py.
"""

import pytest

from tests.security import hostile_manifests
from tests.security.attacks import complaints, run_attacks

CORPORA = {
    "manifest-names": hostile_manifests.name_attacks,
    "manifest-members": hostile_manifests.member_attacks,
    "manifest-json": hostile_manifests.json_attacks,
    "files": hostile_manifests.file_attacks,
}


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_way_of_reading_survives(corpus, tmp_path):
    attacks = list(CORPORA[corpus]())
    reports = run_attacks(attacks, tmp_path)
    assert reports["good vectors"]["events"] == []
    found = [complaint for attack in attacks for complaint in complaints(attack, reports[attack.name])]
    assert found == [], f"{len(found)} complaints:\n" + "\n".join(found)
