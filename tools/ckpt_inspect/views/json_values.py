"""Values that JSON has no number or type for, in the form that the documents of this tool give them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def metrics_document(metrics: Mapping[str, int | float]) -> dict[str, int | float | str]:
    """Return metrics as the manifest writes them: what is not finite as "NaN", "Infinity" and "-Infinity"."""
    return {name: _number(value) for name, value in metrics.items()}


def _number(value: int | float) -> int | float | str:
    if isinstance(value, int) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def plain_value(value: Any) -> Any:
    """Return a value as JSON has it; what it has no type for as text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list | tuple):
        return [plain_value(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain_value(item) for key, item in value.items()}
    return str(value)
