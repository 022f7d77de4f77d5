"""ckptfmt: checkpoints that can be trusted.

A versioned, pickle-free on-disk format for models, studies and batch progress, with atomic, durable commits and a digest of
every byte. Start with `save` and `load`; the names below are the whole public interface.
"""

from ckptfmt._version import __version__
from ckptfmt.checkpoint.async_queue import SaveHandle
from ckptfmt.checkpoint.info import CheckpointInfo
from ckptfmt.checkpoint.loading import is_complete, load, load_into, open_checkpoint, verify
from ckptfmt.checkpoint.objects import LoadReport
from ckptfmt.checkpoint.reader import OpenCheckpoint, TensorInfo
from ckptfmt.checkpoint.saving import async_save, save
from ckptfmt.checkpoint.verify import Finding, VerifyReport
from ckptfmt.errors import (
    CheckpointError,
    CheckpointExistsError,
    CheckpointNotFoundError,
    CorruptError,
    DurabilityUnknownError,
    FingerprintMismatchError,
    FormatError,
    IncompleteError,
    LimitError,
    NameNotFoundError,
    NotEnoughSpaceError,
    RunLockedError,
    UnsupportedTypeError,
    UnsupportedVersionError,
)
from ckptfmt.state.codecs import register_codec
from ckptfmt.state.rng import rng_state, set_rng_state

__all__ = [
    "CheckpointError",
    "CheckpointExistsError",
    "CheckpointInfo",
    "CheckpointNotFoundError",
    "CorruptError",
    "DurabilityUnknownError",
    "Finding",
    "FingerprintMismatchError",
    "FormatError",
    "IncompleteError",
    "LimitError",
    "LoadReport",
    "NameNotFoundError",
    "NotEnoughSpaceError",
    "OpenCheckpoint",
    "RunLockedError",
    "SaveHandle",
    "TensorInfo",
    "UnsupportedTypeError",
    "UnsupportedVersionError",
    "VerifyReport",
    "__version__",
    "async_save",
    "is_complete",
    "load",
    "load_into",
    "open_checkpoint",
    "register_codec",
    "rng_state",
    "save",
    "set_rng_state",
    "verify",
]
