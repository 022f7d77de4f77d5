"""Studies for people and for programs: trials by state, the best one with its parameters, and the newest ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.table import GAP, Table, labelled, number_column, text_column
from ckpt_inspect.output.units import count_text, duration_text, number_text
from ckpt_inspect.output.visible import visible
from ckpt_inspect.sources.work import FoundStudies
from ckpt_inspect.views.json_values import plain_value
from ckpt_inspect.views.progress_lines import journals_text
from ckptfmt.run.study_reader import StudySummary, TrialSummary

_SHOWN_BEST = 10
_SHOWN_PARAMS = 20


def study_lines(found: FoundStudies, screen: Screen) -> Iterator[str]:
    """Yield each study under a path."""
    yield screen.style.bold(visible(found.path))
    if not found.studies:
        yield ""
        facts = [] if found.damage else [("studies", "none yet")]
        yield from labelled([*facts, ("size", journals_text(found.journals))], screen)
    for index, study in enumerate(found.studies):
        yield ""
        facts = _facts(study)
        if index == 0:
            shared = ", shared by processes" if found.is_shared else ""
            facts.append(("size", journals_text(found.journals) + shared))
        yield from labelled(facts, screen)
        yield from _best_lines(study, screen)
        if study.last:
            yield ""
            yield from _trial_lines(study.last, f"last {count_text(len(study.last), 'trial')}", screen)


def study_text(study: StudySummary) -> str:
    """Return a study as one line."""
    text = count_text(study.trial_count, "trial")
    unfinished = [f"{study.states[name]:,} {name}" for name in ("running", "waiting") if name in study.states]
    text += f" ({', '.join(unfinished)})" if unfinished else ""
    if len(study.directions) > 1:
        return text + (f", {len(study.best):,} on the Pareto front" if study.best else "")
    return text + (f", best {_values_text(study.best[0])} (trial {study.best[0].number})" if study.best else "")


def _facts(study: StudySummary) -> list[tuple[str, str]]:
    counts = ", ".join(f"{count:,} {name}" for name, count in study.states.items())
    lost = f" ({study.lost:,} lost with their process)" if study.lost else ""
    facts = [
        ("study", visible(study.name)),
        ("direction" if len(study.directions) == 1 else "directions", ", ".join(study.directions)),
        ("trials", f"{study.trial_count:,}" + (f": {counts}{lost}" if counts else "")),
    ]
    if len(study.directions) > 1:
        facts.append(("best", f"{count_text(len(study.best), 'trial')} that no other dominates" if study.best else "none yet"))
    else:
        facts.append(("best", f"{_values_text(study.best[0])} at trial {study.best[0].number:,}" if study.best else "none yet"))
    if study.sampler is not None:
        facts.append(("sampler", visible(study.sampler) + (f", pruner {visible(study.pruner)}" if study.pruner else "")))
    return facts


def _best_lines(study: StudySummary, screen: Screen) -> Iterator[str]:
    """Yield the parameters of the best trial one line each; of several best ones each trial on a line."""
    if not study.best:
        return
    if len(study.directions) > 1:
        shown = study.best if screen.verbosity else study.best[:_SHOWN_BEST]
        yield ""
        yield from _trial_lines(shown, "best trials", screen)
        if len(shown) < len(study.best):
            yield screen.style.dim(f"{GAP}... and {len(study.best) - len(shown):,} more (-v shows all)")
        return
    params = list(study.best[0].params.items())
    if params:
        shown_params = params if screen.verbosity else params[:_SHOWN_PARAMS]
        yield ""
        yield screen.style.bold("best parameters")
        yield from labelled([(visible(name), visible(_value_text(value))) for name, value in shown_params], screen)
        if len(shown_params) < len(params):
            yield screen.style.dim(f"{GAP}... and {len(params) - len(shown_params):,} more (-v shows all)")


def _trial_lines(trials: Sequence[TrialSummary], title: str, screen: Screen) -> Iterator[str]:
    has_several = any(trial.values is not None and len(trial.values) > 1 for trial in trials)
    rows = [(f"{trial.number:,}", _state_text(trial), _values_text(trial), _duration_text(trial), _params_text(trial)) for trial in trials]
    heads = [number_column(f"{GAP}trial"), text_column("state"), number_column("values" if has_several else "value"), number_column("time")]
    table = Table([*heads, text_column("parameters")], rows, None if screen.verbosity else screen.layout_width)
    yield screen.style.bold(title)
    yield table.header()
    for trial, row in zip(trials, rows, strict=True):
        line = table.line(row)
        yield screen.style.yellow(line) if trial.state == "failed" else line


def _state_text(trial: TrialSummary) -> str:
    return "lost" if trial.is_lost else trial.state


def _values_text(trial: TrialSummary) -> str:
    if trial.values is None:
        last = trial.last_intermediate
        return "" if last is None else f"({number_text(last[1])} at {last[0]:,})"
    return ", ".join(map(number_text, trial.values))


def _value_text(value: Any) -> str:
    return number_text(value) if type(value) in (int, float) else value if type(value) is str else repr(value)


def _params_text(trial: TrialSummary) -> str:
    return visible(", ".join(f"{name}={_value_text(value)}" for name, value in trial.params.items()))


def _duration_text(trial: TrialSummary) -> str:
    if trial.started_at is None or trial.finished_at is None:
        return ""
    seconds = (datetime.fromisoformat(trial.finished_at) - datetime.fromisoformat(trial.started_at)).total_seconds()
    return duration_text(max(0.0, seconds))


def study_document(found: FoundStudies) -> dict[str, Any]:
    """Return the studies under a path as a JSON object."""
    return {
        "kind": "study",
        "path": found.path,
        "shared": found.is_shared,
        "journal_count": found.journals.count,
        "size_bytes": found.journals.size_bytes,
        "damage": found.damage,
        "studies": [summary_document(study) for study in found.studies],
    }


def summary_document(study: StudySummary) -> dict[str, Any]:
    """Return where a study stands as a JSON object. `best` holds one trial, or with several directions all that none dominates."""
    return {
        "name": study.name,
        "directions": list(study.directions),
        "trial_count": study.trial_count,
        "states": dict(study.states),
        "lost": study.lost,
        "sampler": study.sampler,
        "pruner": study.pruner,
        "best": [_trial_document(trial) for trial in study.best],
        "last_trials": [_trial_document(trial) for trial in study.last],
    }


def _trial_document(trial: TrialSummary) -> dict[str, Any]:
    last = trial.last_intermediate
    return {
        "number": trial.number,
        "state": trial.state,
        "values": plain_value(trial.values),
        "params": plain_value(trial.params),
        "started_at": trial.started_at,
        "finished_at": trial.finished_at,
        "last_intermediate": None if last is None else {"step": last[0], "value": plain_value(last[1])},
        "lost": trial.is_lost,
    }
