"""The global random generators of Python, numpy and torch, taken and restored together.

Only libraries that the process has imported are asked. A state is plain data that `save` stores as it is. Restoring first
checks every part, and changes nothing if one of them cannot be restored.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ckptfmt.errors import CheckpointError
from ckptfmt.state import numpy_random, plain_values, torch_values
from ckptfmt.state.places import Place, root_place

Setter = Callable[[], object]


class _CannotRestoreError(Exception):
    """Why one part cannot be restored here."""


def rng_state() -> dict[str, Any]:
    """Return the states of the global generators: `python`, and `numpy` and `torch` if they are imported.

    `torch` holds `cpu`, and `cuda` (one state for each device) and `mps` where those are in use.
    """
    state: dict[str, Any] = {"python": random.getstate()}
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        state["numpy"] = numpy.random.get_state(legacy=False)
    torch = sys.modules.get("torch")
    if torch is not None:
        state["torch"] = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            state["torch"]["cuda"] = torch.cuda.get_rng_state_all()
        if torch.backends.mps.is_available():
            state["torch"]["mps"] = torch.mps.get_rng_state()
    return state


def set_rng_state(state: Mapping[str, Any], *, strict: bool = True) -> list[str]:
    """Restore what `rng_state` returned; return the names of the parts that were not restored (`numpy`, `torch.cuda`).

    Raises:
        CheckpointError: a part cannot be restored here, because its library or its devices are missing or its state is
            damaged; nothing was changed. With `strict=False` such parts are left as they are.
    """
    if not isinstance(state, Mapping):
        raise CheckpointError(f"random state: expected what rng_state() returns, found {type(state).__name__}")
    setters: list[Setter] = []
    left: list[str] = []
    for name, part in _parts(state):
        try:
            setters.append(_setter_for(name, part))
        except (_CannotRestoreError, CheckpointError) as error:
            if strict:
                message = f"random state of {name} cannot be restored: {error}\nPass strict=False to restore the others."
                raise CheckpointError(message) from error
            left.append(name)
    for restore in setters:
        restore()
    return left


def _parts(state: Mapping[str, Any]) -> list[tuple[str, Any]]:
    parts = []
    for name, part in state.items():
        if name == "torch" and isinstance(part, Mapping):
            parts += [(f"torch.{device}", inner) for device, inner in part.items()]
        else:
            parts.append((str(name), part))
    return parts


def _setter_for(name: str, part: Any) -> Setter:
    setter = _SETTERS.get(name)
    if setter is None:
        raise _CannotRestoreError("this version knows " + ", ".join(_SETTERS))
    return setter(part, Place(root_place(), name, 1, False))


def _python(part: Any, place: Place) -> Setter:
    if type(part) is not tuple:
        raise _CannotRestoreError(f"expected a tuple, found {type(part).__name__}")
    plain_values.check_random_state(part, place)
    return lambda: random.setstate(part)


def _numpy(part: Any, place: Place) -> Setter:
    numpy = _library("numpy")
    numpy_random.check_state(part, place, is_legacy=True)
    current = numpy.random.get_state(legacy=False)["bit_generator"]
    if part["bit_generator"] != current:
        raise _CannotRestoreError(f"it is of {part['bit_generator']}, and numpy's global generator is {current}")
    return lambda: numpy.random.set_state(part)


def _torch_cpu(part: Any, place: Place) -> Setter:
    torch = _library("torch")
    _check_torch_state(part)
    state = part.cpu()
    torch_values.check_cpu_state(state, place)
    return lambda: torch.set_rng_state(state)


def _torch_cuda(part: Any, place: Place) -> Setter:
    torch = _library("torch")
    if type(part) not in (list, tuple):
        raise _CannotRestoreError(f"expected a list, found {type(part).__name__}")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if len(part) != count:
        raise _CannotRestoreError(f"it is of {len(part)} CUDA devices, and this machine has {count}")
    for state in part:
        _check_torch_state(state)
    states = [state.cpu() for state in part]
    return lambda: torch.cuda.set_rng_state_all(states)


def _torch_mps(part: Any, place: Place) -> Setter:
    torch = _library("torch")
    if not torch.backends.mps.is_available():
        raise _CannotRestoreError("this machine has no MPS device")
    _check_torch_state(part)
    state = part.cpu()
    return lambda: torch.mps.set_rng_state(state)


def _check_torch_state(state: Any) -> None:
    if not torch_values.is_state(state):
        raise _CannotRestoreError("expected a tensor of uint8")


def _library(name: str) -> Any:
    try:
        if name == "numpy":
            import numpy

            return numpy
        import torch
    except ImportError:
        raise _CannotRestoreError(f"{name} is not installed") from None
    return torch


_SETTERS: dict[str, Callable[[Any, Place], Setter]] = {
    "python": _python,
    "numpy": _numpy,
    "torch.cpu": _torch_cpu,
    "torch.cuda": _torch_cuda,
    "torch.mps": _torch_mps,
}


class Rng:
    """The global generators as a part of a state: what `rng_state` gives is saved, `set_rng_state` takes it back."""

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the global generators."""
        return rng_state()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the global generators; an error if one of them cannot be restored here."""
        set_rng_state(state_dict)
