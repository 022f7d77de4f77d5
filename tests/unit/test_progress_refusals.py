"""What is given to a progress by mistake is refused by name, with what to do, and leaves the unit to be done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt


@pytest.mark.parametrize(
    ("key", "advice"), [(np.int64(3), "int(key)"), ([1, 2], "tuple(key)"), (1.5, "str(key)"), (None, "str(key)"), (True, "int(key)")]
)
def test_a_key_of_another_type_is_refused_with_a_conversion_that_works(tmp_path: Path, key: Any, advice: str) -> None:
    with ckptfmt.Run(tmp_path) as run, run.progress("units") as progress:
        with pytest.raises(ckptfmt.UnsupportedTypeError, match="expected an int, a str or a tuple of them") as refused:
            progress.done(key)
        assert advice in str(refused.value)
        progress.done({"int(key)": int, "str(key)": str, "tuple(key)": tuple}[advice](key))


def test_a_result_that_cannot_be_stored_names_the_unit_which_stays_open(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path) as run, run.progress("calls") as progress:
        with pytest.raises(ckptfmt.UnsupportedTypeError, match=r"answer\[0\]: values of type builtins.object are not stored") as refused:
            progress.done("why", {"answer": [object()]})
        (note,) = refused.value.__notes__
        assert note.startswith("while recording unit 'why' of ")
        assert list(progress.pending(["why"])) == ["why"]


@pytest.mark.parametrize("opened", [lambda path, wrong: ckptfmt.Run(path, fingerprint=wrong), lambda path, wrong: _progress(path, wrong)])
def test_a_config_is_not_taken_for_a_fingerprint(tmp_path: Path, opened: Callable[[Path, Any], Any]) -> None:
    with pytest.raises(TypeError, match=r"fingerprint={'seed': 1}: expected a ckptfmt.Fingerprint, found dict\nMake one: "):
        opened(tmp_path, {"seed": 1})


def _progress(path: Path, wrong: Any) -> ckptfmt.Progress:
    with ckptfmt.Run(path) as run:
        return run.progress("units", fingerprint=wrong)
