"""What a program runs on, as far as results may depend on it: Python, libraries, kind of machine, devices.

Versions are read from what is installed, so nothing is imported for it. Names of users and hosts, paths and environment
variables are never looked at.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from functools import cache
from typing import Any

from ckptfmt._version import __version__

LIBRARIES = (
    "accelerate",
    "datasets",
    "flax",
    "jax",
    "jaxlib",
    "keras",
    "lightgbm",
    "lightning",
    "numpy",
    "optax",
    "optuna",
    "pandas",
    "scikit-learn",
    "scipy",
    "tensorflow",
    "tokenizers",
    "torch",
    "torchvision",
    "transformers",
    "xgboost",
)


def describe_environment() -> dict[str, Any]:
    """Return names and plain values. What cannot be found out is left out."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "platform": platform.system(),
        "machine": platform.machine(),
        "ckptfmt": __version__,
    }
    for library in LIBRARIES:
        version = _imported_version(library) or _installed_version(library)
        if version is not None:
            found[library] = version
    devices = _find_devices()
    if devices:
        found["devices"] = devices
    return found


def _imported_version(library: str) -> str | None:
    version = getattr(sys.modules.get(library), "__version__", None)
    return str(version) if isinstance(version, str) else None


@cache
def _installed_version(library: str) -> str | None:
    try:
        version: str | None = importlib.metadata.version(library)
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError, KeyError):
        return None
    return version


def _find_devices() -> list[str]:
    """Return the names of the CUDA devices that torch, if it is loaded, can use."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is None:
        return []
    try:
        return [str(cuda.get_device_name(index)) for index in range(cuda.device_count())] if cuda.is_available() else []
    except (RuntimeError, AssertionError):
        # A forked child of a process that has used CUDA may not ask.
        return []
