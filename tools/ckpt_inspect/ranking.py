"""Finding the best checkpoint of a run, under the same rules as `Run.best_step` and `restore(step="best")`."""

from __future__ import annotations

from dataclasses import replace

from ckpt_inspect.output.exit_status import FINE
from ckpt_inspect.output.messages import report_error
from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.table import labelled
from ckpt_inspect.output.units import number_text, parse_utc, utc_text
from ckpt_inspect.output.visible import visible
from ckpt_inspect.sources.location import run_path
from ckpt_inspect.sources.run_history import check_metric
from ckpt_inspect.views.json_values import metrics_document
from ckptfmt.disk.anywhere import AnyDisk
from ckptfmt.errors import CheckpointNotFoundError
from ckptfmt.run.retention import rank_by_metric
from ckptfmt.run.steps import StepDirectory


def show_best(path: str, metric: str, mode: str, screen: Screen) -> int:
    """Show step, path and value of the best sound checkpoint."""
    path = run_path(path)
    steps = StepDirectory(AnyDisk(), path)
    entries = {entry.step: entry for entry in steps.committed()}
    if not entries:
        raise CheckpointNotFoundError(f"{path}: this run has no checkpoints yet", path=path)
    names = dict.fromkeys(name for entry in entries.values() if entry.manifest for name in entry.manifest.metrics)
    check_metric(path, metric, list(names))
    for ranked in rank_by_metric([entry.stored() for entry in entries.values()], metric, mode):
        entry = entries[ranked.step]
        damage = steps.find_damage(entry)
        if damage is None:
            break
        report_error(f"passed over, it is damaged: {str(damage).partition(chr(10))[0]}")
    else:
        raise CheckpointNotFoundError(f"{path}: no sound checkpoint has a value of {metric!r} that is a number", path=path)
    value = ranked.metrics[metric]
    created = entry.manifest.created_at_utc if entry.manifest else ""
    if screen.is_json:
        value_document = metrics_document({metric: value})[metric]
        document = {"kind": "best", "run": path, "metric": metric, "mode": mode}
        screen.write_document({**document, "step": entry.step, "path": entry.path, "value": value_document, "created_at_utc": created})
    else:
        facts = [("step", f"{entry.step:,}"), ("path", visible(entry.path)), (visible(metric), number_text(value))]
        facts.append(("created", f"{utc_text(parse_utc(created))} UTC"))
        # The path is what was asked for, so it is whole on any screen.
        screen.write_lines(labelled(facts, replace(screen, verbosity=1)))
    return FINE
