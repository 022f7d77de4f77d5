"""ckptfmt: checkpoints that can be trusted.

A versioned, pickle-free on-disk format for models, studies and batch progress, with atomic, durable commits and a digest of
every byte. Start with `save` and `load`, or with `Run`; the names below are the whole public interface.

A name is imported when it is first used, so that `import ckptfmt` costs nothing and a program pays for what it uses.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from ckptfmt._version import __version__ as __version__

_HOMES = {
    "adapters.optuna_optimize": ("StudyProgress", "optimize"),
    "adapters.optuna_shared": ("optuna_storage",),
    "adapters.optuna_study": ("load_study", "save_study"),
    "checkpoint.async_queue": ("SaveHandle",),
    "checkpoint.diff": ("DiffReport", "diff"),
    "checkpoint.encoding": ("EncodingReport", "compress", "decompress"),
    "run.compressing": ("RunEncodingReport", "StepEncoding", "compress_run", "decompress_run"),
    "checkpoint.info": ("CheckpointInfo",),
    "checkpoint.loading": ("is_complete", "load", "load_into", "open_checkpoint", "verify"),
    "checkpoint.objects": ("LoadReport",),
    "checkpoint.reader": ("OpenCheckpoint", "TensorInfo"),
    "checkpoint.saving": ("async_save", "save"),
    "checkpoint.verify": ("Finding", "VerifyReport"),
    "errors": (
        "CheckpointError",
        "CheckpointExistsError",
        "CheckpointNotFoundError",
        "CorruptError",
        "DurabilityUnknownError",
        "FingerprintMismatchError",
        "FormatError",
        "IncompleteError",
        "LimitError",
        "NameNotFoundError",
        "NotEnoughSpaceError",
        "RunLockedError",
        "StoreUnavailableError",
        "UnsupportedTypeError",
        "UnsupportedVersionError",
    ),
    "run.arguments": ("add_resume_arguments", "run_from_arguments"),
    "run.cleaning": ("CleanupReport",),
    "run.data_digests": ("SampledFile",),
    "format.fingerprint": ("Difference",),
    "run.fingerprint": ("Fingerprint",),
    "run.compressor": ("CompressionStatus",),
    "run.mirror": ("MirrorStatus",),
    "run.progress": ("Progress",),
    "run.progress_ledger": ("Failure", "MetricSummary"),
    "run.restoring": ("RestoreReport", "Restored"),
    "run.run": ("Run",),
    "state.codecs": ("register_codec",),
    "state.rng": ("Rng", "rng_state", "set_rng_state"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [*sorted(_HOME_OF), "__version__"]  # noqa: PLE0604 - strings from the table above

if _TYPE_CHECKING:
    from ckptfmt.adapters.optuna_optimize import StudyProgress as StudyProgress
    from ckptfmt.adapters.optuna_optimize import optimize as optimize
    from ckptfmt.adapters.optuna_shared import optuna_storage as optuna_storage
    from ckptfmt.adapters.optuna_study import load_study as load_study
    from ckptfmt.adapters.optuna_study import save_study as save_study
    from ckptfmt.checkpoint.async_queue import SaveHandle as SaveHandle
    from ckptfmt.checkpoint.diff import DiffReport as DiffReport
    from ckptfmt.checkpoint.diff import diff as diff
    from ckptfmt.checkpoint.encoding import EncodingReport as EncodingReport
    from ckptfmt.checkpoint.encoding import compress as compress
    from ckptfmt.checkpoint.encoding import decompress as decompress
    from ckptfmt.checkpoint.info import CheckpointInfo as CheckpointInfo
    from ckptfmt.checkpoint.loading import is_complete as is_complete
    from ckptfmt.checkpoint.loading import load as load
    from ckptfmt.checkpoint.loading import load_into as load_into
    from ckptfmt.checkpoint.loading import open_checkpoint as open_checkpoint
    from ckptfmt.checkpoint.loading import verify as verify
    from ckptfmt.checkpoint.objects import LoadReport as LoadReport
    from ckptfmt.checkpoint.reader import OpenCheckpoint as OpenCheckpoint
    from ckptfmt.checkpoint.reader import TensorInfo as TensorInfo
    from ckptfmt.checkpoint.saving import async_save as async_save
    from ckptfmt.checkpoint.saving import save as save
    from ckptfmt.checkpoint.verify import Finding as Finding
    from ckptfmt.checkpoint.verify import VerifyReport as VerifyReport
    from ckptfmt.errors import CheckpointError as CheckpointError
    from ckptfmt.errors import CheckpointExistsError as CheckpointExistsError
    from ckptfmt.errors import CheckpointNotFoundError as CheckpointNotFoundError
    from ckptfmt.errors import CorruptError as CorruptError
    from ckptfmt.errors import DurabilityUnknownError as DurabilityUnknownError
    from ckptfmt.errors import FingerprintMismatchError as FingerprintMismatchError
    from ckptfmt.errors import FormatError as FormatError
    from ckptfmt.errors import IncompleteError as IncompleteError
    from ckptfmt.errors import LimitError as LimitError
    from ckptfmt.errors import NameNotFoundError as NameNotFoundError
    from ckptfmt.errors import NotEnoughSpaceError as NotEnoughSpaceError
    from ckptfmt.errors import RunLockedError as RunLockedError
    from ckptfmt.errors import StoreUnavailableError as StoreUnavailableError
    from ckptfmt.errors import UnsupportedTypeError as UnsupportedTypeError
    from ckptfmt.errors import UnsupportedVersionError as UnsupportedVersionError
    from ckptfmt.format.fingerprint import Difference as Difference
    from ckptfmt.run.arguments import add_resume_arguments as add_resume_arguments
    from ckptfmt.run.arguments import run_from_arguments as run_from_arguments
    from ckptfmt.run.cleaning import CleanupReport as CleanupReport
    from ckptfmt.run.compressing import RunEncodingReport as RunEncodingReport
    from ckptfmt.run.compressing import StepEncoding as StepEncoding
    from ckptfmt.run.compressing import compress_run as compress_run
    from ckptfmt.run.compressing import decompress_run as decompress_run
    from ckptfmt.run.compressor import CompressionStatus as CompressionStatus
    from ckptfmt.run.data_digests import SampledFile as SampledFile
    from ckptfmt.run.fingerprint import Fingerprint as Fingerprint
    from ckptfmt.run.mirror import MirrorStatus as MirrorStatus
    from ckptfmt.run.progress import Progress as Progress
    from ckptfmt.run.progress_ledger import Failure as Failure
    from ckptfmt.run.progress_ledger import MetricSummary as MetricSummary
    from ckptfmt.run.restoring import Restored as Restored
    from ckptfmt.run.restoring import RestoreReport as RestoreReport
    from ckptfmt.run.run import Run as Run
    from ckptfmt.state.codecs import register_codec as register_codec
    from ckptfmt.state.rng import Rng as Rng
    from ckptfmt.state.rng import rng_state as rng_state
    from ckptfmt.state.rng import set_rng_state as set_rng_state


def __getattr__(name: str) -> _Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'ckptfmt' has no attribute {name!r}")
    value = globals()[name] = getattr(_import_module(f"ckptfmt.{home}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
