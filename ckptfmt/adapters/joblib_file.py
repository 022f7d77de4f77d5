"""What `joblib.dump` adds to a pickle: arrays as bytes between its instructions, and compression of the whole.

Layout: https://github.com/joblib/joblib/blob/main/joblib/numpy_pickle.py
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import Any, BinaryIO

from ckptfmt.adapters.numpy_pickles import NUMPY_FINISHERS
from ckptfmt.adapters.pickle_reader import Builder, Instance
from ckptfmt.adapters.pickle_values import finish_values
from ckptfmt.errors import CorruptError, LimitError

MAX_BYTES = 2**31
_ARRAY = "joblib.numpy_pickle.NumpyArrayWrapper"
# zlib's own header, gzip's, bzip2's, and those of xz and of its predecessor.
_ZLIB, _GZIP, _BZIP2, _XZ, _LZMA = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"), b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"]\x00\x00"
_BOTH_HEADERS = 32 + zlib.MAX_WBITS

JOBLIB_NAMES: dict[str, Any] = {_ARRAY: Builder(lambda *arguments: Instance(_ARRAY, arguments))}


def decompress(data: memoryview, *, where: str) -> memoryview:
    """Return what was compressed, or the data as they are.

    Raises:
        CorruptError: it ends too early or is damaged.
        LimitError: it is longer than any study.
    """
    start = bytes(data[:6])
    machine: Any
    if start.startswith((_GZIP, *_ZLIB)):
        machine = zlib.decompressobj(_BOTH_HEADERS)
    elif start.startswith(_BZIP2):
        machine = bz2.BZ2Decompressor()
    elif start.startswith((_XZ, _LZMA)):
        machine = lzma.LZMADecompressor()
    else:
        return data
    try:
        content = machine.decompress(data, MAX_BYTES + 1)
    except (zlib.error, OSError, lzma.LZMAError) as error:
        raise CorruptError(f"{where}: cannot be decompressed: {error}\nThe file is damaged.", path=where) from error
    if len(content) > MAX_BYTES:
        raise LimitError(f"{where}: more than {MAX_BYTES:,} bytes when decompressed are not read", path=where)
    if not machine.eof:
        raise CorruptError(f"{where}: its compressed bytes end too early\nThe file is damaged.", path=where)
    return memoryview(content)


def take_array(made: Instance, file: BinaryIO) -> Any:
    """Take the bytes of an array from where the pickle was left, if it was left for one.

    Raises:
        ValueError: there are fewer bytes than it needs, or it holds objects.
    """
    if made.name != _ARRAY:
        return made
    state: dict[str, Any] = made.state
    dtype = finish_values(state["dtype"], finishers=NUMPY_FINISHERS, where=_ARRAY)
    if state.get("numpy_array_alignment_bytes") is not None:
        file.read(file.read(1)[0])
    shape = [int(length) for length in state["shape"]]
    needed = dtype.itemsize
    for length in shape:
        needed *= length
    if not 0 <= needed <= MAX_BYTES:
        raise ValueError(f"an array of {needed:,} bytes")
    data = file.read(needed)
    if len(data) != needed:
        raise ValueError(f"an array of {needed:,} bytes ends after {len(data):,}")
    return Instance("numpy.frombuffer", (data, dtype, tuple(shape), state["order"]))
