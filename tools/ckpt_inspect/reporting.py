"""Writing the report of a run. What lies at its place already is replaced only if it is a report, or if that is asked for."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence

from ckpt_inspect.output.exit_status import FINE
from ckpt_inspect.output.files import replace_file
from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.units import size_text
from ckpt_inspect.output.visible import visible
from ckpt_inspect.sources.location import NotReadableHereError, run_path
from ckpt_inspect.sources.run_report import find_run_report
from ckpt_inspect.verification import verify_run
from ckpt_inspect.views.report_checks import Checks
from ckpt_inspect.views.report_page import is_report, report_page
from ckptfmt.errors import CheckpointExistsError, CheckpointNotFoundError

_STANDARD_OUTPUT = "-"
_BEGINNING_BYTES = 2048


def write_report(path: str, target: str, level: str, names: Sequence[str], screen: Screen, *, overwrite: bool) -> int:
    """Write the page, and say where it is. `names` are the commands that it may advise."""
    path = run_path(path)
    if target == _STANDARD_OUTPUT and screen.is_json:
        raise NotReadableHereError("-o -: standard output cannot take both the page and the JSON document\nGive a file.")
    if target != _STANDARD_OUTPUT:
        _check_target(target, overwrite=overwrite)
    results, failures = ([], []) if level == "none" else verify_run(path, level, has_bar=level == "full" and not screen.is_quiet)
    checks = Checks(level, results, failures)
    report = find_run_report(path, screen.now)
    if report is None:
        raise CheckpointNotFoundError(f"{path}: no such file or directory", path=path)
    data = report_page(report, checks, names).encode("utf-8", "backslashreplace")
    if target == _STANDARD_OUTPUT:
        sys.stdout.buffer.write(data)
        return FINE
    replace_file(target, [data])
    if screen.is_json:
        found = {"damaged_count": len(checks.bad) + len(failures), "ok": checks.is_fine}
        screen.write_document({"kind": "report", "run": path, "target": target, "size_bytes": len(data), "level": level, **found})
    else:
        screen.write_lines([f"{visible(target)}: {size_text(len(data))}"])
    return FINE


def _check_target(target: str, *, overwrite: bool) -> None:
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return
    except ValueError:
        raise NotReadableHereError(f"{target!r}: no path can hold this") from None
    if not stat.S_ISREG(mode):
        raise NotReadableHereError(f"{target}: expected a file to write\nGive a name that ends with .html, or - for standard output.")
    with open(target, "rb") as file:
        beginning = file.read(_BEGINNING_BYTES)
    if beginning and not is_report(beginning) and not overwrite:
        message = f"{target}: exists already, and is no report\nGive another name, or --force to replace it."
        raise CheckpointExistsError(message, path=target)
