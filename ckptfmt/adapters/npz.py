"""Archives of numpy arrays: `.npz` files to states, and tensors of a checkpoint to pieces of one. Arrays of objects are refused.

Layout: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

from ckptfmt.checkpoint.reader import OpenCheckpoint
from ckptfmt.disk.foreign_file import map_file, open_memory
from ckptfmt.errors import CorruptError, UnsupportedTypeError
from ckptfmt.format.dtypes import NATIVE, NUMPY_PREFIX
from ckptfmt.format.rules import visible
from ckptfmt.state.npy import npy_header


def read_npz_state(path: str) -> dict[str, Any]:
    """Return the arrays of an archive by their names.

    Raises:
        CorruptError: it is damaged.
        UnsupportedTypeError: it holds arrays of objects, which are pickles.
    """
    import numpy as np

    try:
        with np.load(open_memory(map_file(path)), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, TypeError, AttributeError) as error:
        if "allow_pickle" in str(error):
            raise UnsupportedTypeError(f"{path}: holds an array of objects, which is a pickle\nNothing was run.", path=path) from None
        raise CorruptError(f"{path}: not a sound .npz archive: {visible(str(error)[:120])}", path=path) from error


def npz_entries(checkpoint: OpenCheckpoint, tensors: Sequence[tuple[str, int]]) -> Iterator[tuple[str, bytes, memoryview]]:
    """Yield (name, header, data) of each entry of an archive, each tensor verified when its turn comes.

    Raises:
        UnsupportedTypeError: an element type that numpy does not know by itself, such as bfloat16.
    """
    rows = checkpoint.metadata.tensors
    for name, row in tensors:
        if not _is_known_to_numpy(rows[row].dtype):
            what = f"numpy has no element type {rows[row].dtype}"
            raise UnsupportedTypeError(f"{checkpoint.path}: {name}: {what}\nWrite safetensors instead.", path=name)
    headers = [npy_header(rows[row].dtype, rows[row].shape) for _, row in tensors]
    for (name, row), header in zip(tensors, headers, strict=True):
        yield f"{name}.npy", header, checkpoint.store.memory(row).data


def _is_known_to_numpy(dtype: str) -> bool:
    return dtype.startswith(NUMPY_PREFIX) or dtype == "complex128" or (dtype in NATIVE and dtype != "bfloat16" and "float8" not in dtype)
