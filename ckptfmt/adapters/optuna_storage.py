"""The storage that Optuna sees: it checks as Optuna's own storages do, and hands each change to a log as a record. Spec 18.3.

Where the records go, and who else writes them, is the log's affair: `optuna_journal` has one writer, `optuna_shared` has many. The
class is made in a function, because importing this library must not import Optuna.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Container, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol
from weakref import ref

from ckptfmt.adapters.optuna_image import StudyImage
from ckptfmt.adapters.optuna_values import encode_attribute, encode_distribution, encode_time, encode_trial
from ckptfmt.run.study_records import FINISHED, Record

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.study import Study, StudyDirection
    from optuna.study._frozen import FrozenStudy
    from optuna.trial import FrozenTrial, TrialState


class StudyLog(Protocol):
    """Where the changes of a storage go. `image` is what they make."""

    image: StudyImage

    def turn(self, trial_id: int | None = None) -> AbstractContextManager[None]:
        """Let nobody else change anything in the block, or, with `trial_id`, this running trial; the image is up to date in it."""

    def look(self, trial_id: int | None = None) -> AbstractContextManager[None]:
        """Let no other thread change the image in the block, which holds what everybody wrote until now, or all of an own trial."""

    def write(self, record: Record, *, flush: bool) -> None:
        """Append a record and apply it; with `flush` it is durable when this returns. If this raises, nothing has changed."""


# What a study's sampler has become since the state that is given: the `sampler` of a record.
TakeSampler = Callable[["Study", dict[str, Any]], dict[str, Any]]


@cache
def storage_class() -> Any:
    """Return the class, made once."""
    from optuna.distributions import check_distribution_compatibility
    from optuna.exceptions import DuplicatedStudyError
    from optuna.storages import BaseStorage
    from optuna.study import StudyDirection
    from optuna.study._frozen import FrozenStudy
    from optuna.trial import TrialState

    class StudyStorage(BaseStorage):
        """Keeps studies in memory and every change in a log."""

        def __init__(self, log: StudyLog, reopen: tuple[Any, ...] | None = None) -> None:
            self.log = log
            self._image = log.image
            self._reopen = reopen
            self._studies: dict[int, ref[Study]] = {}
            self._take_sampler: TakeSampler | None = None
            self.find_refusal: Callable[[int], Exception | None] | None = None

        def __reduce__(self) -> tuple[Any, ...]:
            if self._reopen is None:
                raise TypeError("this study has one writer, and cannot be sent to another process; use ckptfmt.optuna_storage")
            return self._reopen

        def watch_sampler(self, study: Study, take: TakeSampler) -> None:
            """Record the state of this study's sampler and pruner with each of its trials that finishes."""
            self._studies[study._study_id] = ref(study)
            self._take_sampler = take

        def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
            name = study_name if study_name is not None else f"no-name-{uuid.uuid4()}"
            with self.log.turn():
                if any(entry.name == name for entry in self._image.studies.values()):
                    raise DuplicatedStudyError(f"Another study with name {name!r} already exists.")
                study_id = self._image.next_study_id
                numbers = [int(direction) for direction in directions]
                self.log.write({"op": "create_study", "study": study_id, "name": name, "directions": numbers}, flush=True)
                return study_id

        def delete_study(self, study_id: int) -> None:
            with self.log.turn():
                self._image.study(study_id)
                self.log.write({"op": "delete_study", "study": study_id}, flush=True)

        def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
            tree = encode_attribute(value, f"user attribute {key!r} of the study")
            with self.log.turn():
                self._image.study(study_id)
                self.log.write({"op": "study_user_attr", "study": study_id, "key": key, "value": tree}, flush=True)

        def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
            tree = encode_attribute(value, f"system attribute {key!r} of the study")
            with self.log.turn():
                self._image.study(study_id)
                self.log.write({"op": "study_system_attr", "study": study_id, "key": key, "value": tree}, flush=True)

        def get_study_id_from_name(self, study_name: str) -> int:
            with self.log.look():
                for study_id, entry in self._image.studies.items():
                    if entry.name == study_name:
                        return study_id
            raise KeyError(f"No such study {study_name}.")

        def get_study_name_from_id(self, study_id: int) -> str:
            with self.log.look():
                return self._image.study(study_id).name

        def get_study_directions(self, study_id: int) -> list[StudyDirection]:
            with self.log.look():
                return [StudyDirection(number) for number in self._image.study(study_id).directions]

        def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
            with self.log.look():
                return self._image.study(study_id).user_attrs

        def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
            with self.log.look():
                return self._image.study(study_id).system_attrs

        def get_all_studies(self) -> list[FrozenStudy]:
            with self.log.look():
                return [
                    FrozenStudy(
                        study_name=entry.name,
                        direction=None,
                        directions=[StudyDirection(number) for number in entry.directions],
                        user_attrs=copy.deepcopy(entry.user_attrs),
                        system_attrs=copy.deepcopy(entry.system_attrs),
                        study_id=study_id,
                    )
                    for study_id, entry in self._image.studies.items()
                ]

        def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
            whole = None if template_trial is None else encode_trial(template_trial)
            with self.log.turn():
                self._image.study(study_id)
                trial_id = self._image.next_trial_id
                if whole is None:
                    self._check_room(study_id)
                    self.log.write({"op": "begin_trial", "study": study_id, "trial": trial_id, "at": _now()}, flush=False)
                else:
                    self.log.write({"op": "create_trial", "study": study_id, "trial": trial_id, **whole}, flush=True)
                return trial_id

        def set_trial_param(self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution) -> None:
            text = encode_distribution(distribution, param_name)
            with self.log.turn(trial_id):
                self._updatable(trial_id)
                known = self._image.study(self._image.homes[trial_id][0]).distributions.get(param_name)
                if known is not None:
                    check_distribution_compatibility(known, distribution)
                value = int(param_value_internal) if hasattr(distribution, "choices") else float(param_value_internal)
                self.log.write({"op": "param", "trial": trial_id, "name": param_name, "value": value, "distribution": text}, flush=False)

        def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
            with self.log.look():
                trials = self._image.study(study_id).trials
                if trial_number >= len(trials):
                    raise KeyError(f"No trial with trial number {trial_number} exists in study with study_id {study_id}.")
                return int(trials[trial_number]._trial_id)

        def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
            with self.log.turn():
                trial = self._updatable(trial_id)
                if state == TrialState.RUNNING:
                    if trial.state != TrialState.WAITING:
                        return False
                    self._check_room(self._image.homes[trial_id][0])
                plain = None if values is None else [float(value) for value in values]
                record = {"op": "state", "trial": trial_id, "state": int(state), "values": plain, "at": _now()}
                is_finished = int(state) in FINISHED
                if is_finished:
                    record |= self._sampler_part(self._image.homes[trial_id][0])
                self.log.write(record, flush=is_finished)
                return True

        def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
            with self.log.turn(trial_id):
                self._updatable(trial_id)
                record = {"op": "intermediate", "trial": trial_id, "step": int(step), "value": float(intermediate_value)}
                self.log.write(record, flush=False)

        def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
            tree = encode_attribute(value, f"user attribute {key!r} of a trial")
            with self.log.turn(trial_id):
                self._updatable(trial_id)
                self.log.write({"op": "user_attr", "trial": trial_id, "key": key, "value": tree}, flush=False)

        def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
            tree = encode_attribute(value, f"system attribute {key!r} of a trial")
            with self.log.turn(trial_id):
                self._updatable(trial_id)
                self.log.write({"op": "system_attr", "trial": trial_id, "key": key, "value": tree}, flush=False)

        def get_trial(self, trial_id: int) -> FrozenTrial:
            with self.log.look(trial_id):
                return self._image.trial(trial_id)

        def get_all_trials(
            self,
            study_id: int,
            deepcopy: bool = True,  # noqa: FBT001, FBT002 - Optuna's signature
            states: Container[TrialState] | None = None,
        ) -> list[FrozenTrial]:
            with self.log.look():
                entry = self._image.study(study_id)
                if states == (TrialState.WAITING,):
                    trials = [entry.trials[number] for number in sorted(entry.waiting)]
                else:
                    trials = [trial for trial in entry.trials if states is None or trial.state in states]
            return copy.deepcopy(trials) if deepcopy else trials

        def get_n_trials(self, study_id: int, state: Any = None) -> int:
            if state is None:
                with self.log.look():
                    return len(self._image.study(study_id).trials)
            return int(super().get_n_trials(study_id, state))

        def get_best_trial(self, study_id: int) -> FrozenTrial:
            with self.log.look():
                entry = self._image.study(study_id)
                if entry.best_number is None:
                    raise ValueError("No trials are completed yet.")
                if len(entry.directions) > 1:
                    raise RuntimeError("Best trial can be obtained only for single-objective optimization.")
                return entry.trials[entry.best_number]

        def _updatable(self, trial_id: int) -> FrozenTrial:
            trial = self._image.trial(trial_id)
            self.check_trial_is_updatable(trial_id, trial.state)
            return trial

        def _check_room(self, study_id: int) -> None:
            refusal = self.find_refusal(study_id) if self.find_refusal is not None else None
            if refusal is not None:
                raise refusal

        def _sampler_part(self, study_id: int) -> dict[str, Any]:
            study = self._studies[study_id]() if study_id in self._studies else None
            if study is None or self._take_sampler is None:
                return {}
            return {"sampler": self._take_sampler(study, self._image.study(study_id).sampler)}

    return StudyStorage


def _now() -> str | None:
    return encode_time(datetime.now())  # noqa: DTZ005 - Optuna's times are local, without a zone


def new_storage(log: StudyLog, reopen: tuple[Any, ...] | None = None) -> BaseStorage:
    """Make a storage over a log; `reopen` is how it is made again in another process."""
    storage: BaseStorage = storage_class()(log, reopen)
    return storage
