"""What it costs to begin: importing ckptfmt, and the shell tool on nothing and on a checkpoint of 50,000 tensors.

Each figure is a whole process, from its start to its end, beside one that does nothing.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Job, Measurement, timed

STATE = "start-up"
NOTHING = "python that does nothing"
IMPORT_NUMPY = "import numpy"
IMPORT = "import ckptfmt"
HELP = "ckpt-inspect --help"
INSPECT = "ckpt-inspect of the state 50k"


def measure(job: Job, directory: Path) -> Iterator[Measurement]:
    """Yield `repeats` measurements of each command, interleaved."""
    checkpoint = directory / "inspected"
    _make_checkpoint(checkpoint, job.scale)
    commands = {
        NOTHING: ["-c", "pass"],
        IMPORT_NUMPY: ["-c", "import numpy"],
        IMPORT: ["-c", "import ckptfmt"],
        HELP: ["-m", "ckpt_inspect", "--help"],
        INSPECT: ["-m", "ckpt_inspect", str(checkpoint)],
    }
    for _ in range(job.repeats):
        for case, arguments in commands.items():
            call = lambda arguments=arguments: subprocess.run([sys.executable, *arguments], capture_output=True, check=False)  # noqa: E731
            timing = timed(call)
            if timing.value.returncode != 0:
                last = (timing.value.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"])[-1]
                yield Measurement(STATE, case, "ckptfmt", None, error=last[:200])
            else:
                yield Measurement(STATE, case, "ckptfmt", timing.seconds)
    shutil.rmtree(checkpoint)


def _make_checkpoint(path: Path, scale: float) -> None:
    import ckptfmt
    from benchmarks import states

    ckptfmt.save(path, states.build("50k", scale=scale), durable=False)
