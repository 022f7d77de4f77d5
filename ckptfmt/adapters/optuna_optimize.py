"""`optimize`: as many trials as a study is to have in all, over every restart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckptfmt.adapters.optuna_image import StudyImage
from ckptfmt.adapters.optuna_values import check_study
from ckptfmt.run.notices import warn
from ckptfmt.run.study_records import LOST_KEY

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

_RETRY_KEY = "ckptfmt:retry_of"
_warned: set[str] = set()


@dataclass(frozen=True, slots=True)
class StudyProgress:
    """How far a study is: trials that were there at the beginning, that are done now, and that there are to be; the best values."""

    restored_count: int
    done_count: int
    total: int
    best_values: tuple[float, ...] | None

    @property
    def left_count(self) -> int:
        """How many trials are left."""
        return max(0, self.total - self.done_count)

    def __str__(self) -> str:
        best = "" if self.best_values is None else f", best {', '.join(f'{value:.6g}' for value in self.best_values)}"
        return f"{self.done_count} of {self.total} done{best}, {self.left_count} left"


class _EnoughTrialsError(Exception):
    """The study has as many trials as it is to have, those that run elsewhere included."""


def optimize(
    study: Study,
    objective: Callable[[Trial], float | Sequence[float]],
    *,
    n_trials: int,
    retry_lost: bool = False,
    **options: Any,
) -> StudyProgress:
    """Optimize until the study has `n_trials` finished trials in all; `options` are those of `Study.optimize`.

    Trials that were lost with their process do not count; with `retry_lost` their parameters are tried once more. Where many processes
    work on one study (`optuna_storage`), they share the total. With n_jobs > 1 Optuna seeds its samplers anew, so that the trials of a
    study that was resumed differ from those of one that was not.
    """
    import optuna

    check_study(study)
    if type(n_trials) is not int or n_trials < 0:
        raise ValueError(f"n_trials={n_trials!r}: expected an integer of at least 0, the number of trials over all restarts")
    logger = optuna.logging.get_logger("optuna.ckptfmt")
    if options.get("n_jobs", 1) != 1 and "n_jobs" not in _warned:
        _warned.add("n_jobs")
        warn("n_jobs > 1: Optuna seeds the sampler anew for each trial, so a resumed study cannot repeat the trials of one that was not.")
    if retry_lost:
        _retry_lost(study)
    finished = done_trials(study)
    restored_count = len(finished)
    if restored_count:
        what = f"restored {restored_count} trial{'s' if restored_count > 1 else ''}, "
        more = f"continuing with trial {restored_count + 1}" if restored_count < n_trials else "nothing is left to do"
        logger.info(f"{what}{more}")

    def tell_progress(study: Study, _: FrozenTrial) -> None:
        if logger.isEnabledFor(logging.INFO):
            logger.info(str(study_progress(study, n_trials)))

    storage: Any = study._storage
    has_limit = hasattr(storage, "find_refusal")
    if restored_count < n_trials:
        if has_limit:
            storage.find_refusal = lambda study_id: _refusal_of(storage.log.image, study_id, n_trials)
        try:
            options["callbacks"] = [*(options.get("callbacks") or ()), tell_progress]
            study.optimize(_marking_interrupted(objective), n_trials=n_trials - restored_count, **options)
        except _EnoughTrialsError:
            pass
        finally:
            if has_limit:
                storage.find_refusal = None
    return study_progress(study, n_trials, restored_count=restored_count)


def study_progress(study: Study, n_trials: int, *, restored_count: int = 0) -> StudyProgress:
    """Return how far a study is on the way to `n_trials`."""
    best = None
    if len(study.directions) == 1:
        try:
            best = study.best_trial.values
        except ValueError:
            best = None
    storage: Any = study._storage
    done_count = storage.log.image.study(study._study_id).done_count if hasattr(storage, "log") else len(done_trials(study))
    return StudyProgress(restored_count, done_count, n_trials, None if best is None else tuple(best))


def done_trials(study: Study) -> list[FrozenTrial]:
    """Return the trials that count: finished in any way, but not lost with their process."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished() and LOST_KEY not in trial.system_attrs]


def _refusal_of(image: StudyImage, study_id: int, n_trials: int) -> Exception | None:
    counted = image.study(study_id).done_count + image.running_count(study_id)
    return _EnoughTrialsError() if counted >= n_trials else None


def _marking_interrupted(objective: Callable[[Trial], Any]) -> Callable[[Trial], Any]:
    """A trial that the user interrupts fails, as Optuna has it; but it does not count."""

    def run(trial: Trial) -> Any:
        try:
            return objective(trial)
        except KeyboardInterrupt:
            trial.study._storage.set_trial_system_attr(trial._trial_id, LOST_KEY, True)
            raise

    return run


def _retry_lost(study: Study) -> None:
    """Enqueue the parameters of each lost trial that was not enqueued before."""
    import optuna

    storage: Any = study._storage
    turn = storage.log.turn if hasattr(storage, "log") else nullcontext
    with turn():
        trials = study.get_trials(deepcopy=False)
        retried = {trial.system_attrs[_RETRY_KEY] for trial in trials if _RETRY_KEY in trial.system_attrs}
        for trial in trials:
            if LOST_KEY in trial.system_attrs and trial.number not in retried and _RETRY_KEY not in trial.system_attrs:
                attributes = {"fixed_params": trial.params, _RETRY_KEY: trial.number}
                study.add_trial(
                    optuna.trial.create_trial(state=optuna.trial.TrialState.WAITING, system_attrs=attributes, user_attrs=trial.user_attrs)
                )
