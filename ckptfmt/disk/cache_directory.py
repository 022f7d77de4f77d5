"""Where this machine keeps what can be fetched or made again, for one user."""

from __future__ import annotations

import os


def cache_directory() -> str:
    """Return the directory: `CKPTFMT_CACHE_DIR`, or `ckptfmt` in `XDG_CACHE_HOME`, by default in ~/.cache."""
    own = os.environ.get("CKPTFMT_CACHE_DIR")
    if own:
        return os.path.abspath(own)
    shared = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(os.path.abspath(shared), "ckptfmt")
