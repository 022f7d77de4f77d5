"""Live objects of a sharded training to states and back: modules and optimizers by the names of their parameters.

torch's own functions do the work (`get_model_state_dict` and its kind), so that FSDP2, tensor parallel, DDP and plain modules give the
same names, and a state may be restored into another sharding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ckptfmt.errors import UnsupportedTypeError


def is_sharded(value: Any) -> bool:
    """Tell whether this is a module or an optimizer, whose state may be spread over processes."""
    import torch

    return isinstance(value, (torch.nn.Module, torch.optim.Optimizer))


def state_of(objects: Mapping[str, Any], names: Iterable[str] | None = None) -> dict[str, Any]:
    """Return a state in which the objects at its top, or those of some names, have been asked for theirs."""
    return {name: _state_of(name, objects[name], objects) for name in (objects if names is None else names)}


def _state_of(name: str, value: Any, objects: Mapping[str, Any]) -> Any:
    import torch
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict

    if isinstance(value, torch.nn.Module):
        return get_model_state_dict(value)
    if isinstance(value, torch.optim.Optimizer):
        return get_optimizer_state_dict(_model_of(name, value, objects), value)
    if callable(getattr(value, "state_dict", None)):
        return value.state_dict()
    return value


def put_state(objects: Mapping[str, Any], states: Mapping[str, Any]) -> None:
    """Give modules and optimizers their states back, which were loaded into what `state_of` gave."""
    import torch
    from torch.distributed.checkpoint.state_dict import set_model_state_dict, set_optimizer_state_dict

    for name, state in states.items():
        value = objects[name]
        if isinstance(value, torch.nn.Module):
            set_model_state_dict(value, state)
        else:
            set_optimizer_state_dict(_model_of(name, value, objects), value, state)


def _model_of(name: str, optimizer: Any, objects: Mapping[str, Any]) -> Any:
    """Return the module whose parameters an optimizer has."""
    import torch

    wanted = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for value in objects.values():
        if isinstance(value, torch.nn.Module) and wanted <= {id(parameter) for parameter in value.parameters()}:
            return value
    raise UnsupportedTypeError(
        f"{name}: its parameters are those of no module that was given\nGive the module too: an optimizer's state is kept by their names.",
        path=name,
    )
