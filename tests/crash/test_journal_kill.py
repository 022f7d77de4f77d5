"""A writer on a real disk is killed at any moment, again and again."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

from ckptfmt.disk.local import LocalDisk
from ckptfmt.run.journal_reader import read_journal, verify_journal

WRITER = """
import sys
from ckptfmt.disk.local import LocalDisk
from ckptfmt.run.journal import Journal
with Journal.open_for_append(LocalDisk(), sys.argv[1]) as journal:
    while True:
        number = journal.append({"number": journal.last_number + 1}, flush=journal.last_number % 3 == 2)
        if number % 3 == 0:
            print(number, flush=True)
"""


def test_a_writer_that_is_killed_has_kept_every_record_that_it_reported(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    reported = 0
    for session in range(4):
        arguments = [sys.executable, "-c", WRITER, path]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as writer:
            assert writer.stdout is not None
            for line in itertools.islice(writer.stdout, 5 + session):
                reported = int(line)
            writer.kill()
            reported = max([reported, *(int(line) for line in writer.stdout if line.endswith("\n"))])
        found = [value for _, value in read_journal(LocalDisk(), path).iter_records()]
        assert found == [{"number": number} for number in range(1, len(found) + 1)]
        assert len(found) >= reported > 0
    assert not [finding for finding in verify_journal(LocalDisk(), path) if finding.level == "error"]
