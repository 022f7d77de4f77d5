"""The machine under the benchmarks: what it is, and bringing it into a known condition before each timed part. Linux first.

A virtual machine gives freed memory back to its host, and memory that is touched for the first time is slow. So memory is
touched and freed just before a timed part. Elsewhere than on Linux, peaks of memory are not known (None).
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy

PAGE_BYTES = 4096
PREHEAT_SLACK_BYTES = 128 * 2**20
LIBRARIES = ("ckptfmt", "torch", "safetensors", "numpy", "blake3", "zstandard", "msgpack", "orbax-checkpoint", "tensorizer", "h5py", "zarr")

_trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_DROP = Path("/proc/sys/vm/drop_caches")


def facts(directory: Path) -> dict[str, Any]:
    """Return what a reader of the figures must know about the machine."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(_kilobytes("/proc/meminfo", "MemTotal") * 1024 / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "file_system": _file_system(directory),
        "python": platform.python_version(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
        "drops_caches": os.access(_DROP, os.W_OK),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "source" if name == "ckptfmt" else None


def is_importable(module: str) -> bool:
    """Tell whether a library is installed, without importing it."""
    try:
        return util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _field(file: str, name: str) -> str:
    try:
        lines = Path(file).read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _kilobytes(file: str, name: str) -> int:
    return int((_field(file, name) or "0").split()[0])


def _file_system(directory: Path) -> str:
    """Return the type of the file system that holds a directory."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines()]
    except OSError:
        return "unknown"
    resolved = directory.resolve()
    holding = [(len(mount[1]), mount[2]) for mount in mounts if resolved.is_relative_to(mount[1])]
    return max(holding)[1] if holding else "unknown"


def free_memory_bytes() -> int:
    """Return how much memory programs may still take; a large number where that is not known."""
    return _kilobytes("/proc/meminfo", "MemAvailable") * 1024 or sys.maxsize


def preheat(size_bytes: int) -> None:
    """Touch and free so much memory, so that the timed part finds it warm."""
    give_back()
    size_bytes = min(size_bytes + PREHEAT_SLACK_BYTES, free_memory_bytes() // 2)
    memory = mmap.mmap(-1, size_bytes)
    # The array goes before the map is closed: a map that is still looked at cannot be.
    numpy.frombuffer(memory, numpy.uint8)[::PAGE_BYTES] = 1
    memory.close()


def give_back() -> None:
    """Give all memory that is not in use back to the system, so that a peak counts from there."""
    gc.collect()
    if _trim is not None:
        _trim(0)


def make_cold(path: Path) -> None:
    """Take files out of the page cache: all of it where that is allowed, else theirs."""
    os.sync()
    try:
        _DROP.write_text("3")
    except OSError:
        for file in files_below(path):
            number = os.open(file, os.O_RDONLY)
            try:
                os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(number)


def make_warm(path: Path) -> None:
    """Bring files into the page cache; a direct write leaves nothing there."""
    block = bytearray(2**23)
    for file in files_below(path):
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(block):
                pass


def files_below(path: Path) -> Iterator[Path]:
    """Yield every file of a checkpoint, which is a file or a directory."""
    if path.is_dir():
        yield from (file for file in sorted(path.rglob("*")) if file.is_file())
    else:
        yield path


def sync_files(path: Path) -> None:
    """Do what a library that does not sync leaves to its user: fsync every file, then every directory."""
    folders = {file.parent for file in files_below(path)} | {path.parent}
    for name in (*files_below(path), *sorted(folders)):
        number = os.open(name, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def size_on_disk(path: Path) -> int:
    """Return the bytes of a checkpoint's files."""
    return sum(file.stat().st_size for file in files_below(path))


def resident_bytes() -> int:
    """Return how much memory of this process is in use now."""
    return _kilobytes(str(_STATUS), "VmRSS") * 1024


def reset_peak() -> None:
    """Start measuring the peak anew."""
    if _CLEAR.exists():
        _CLEAR.write_text("5")


def peak_bytes() -> int | None:
    """Return the highest memory use since `reset_peak`, None where the system does not say."""
    return _kilobytes(str(_STATUS), "VmHWM") * 1024 or None


def page_addresses(tensors: Sequence[Any]) -> Any:
    """Return an address in every page of some tensors or arrays, for `read_pages`."""
    spans = [(_address(tensor), int(tensor.nbytes)) for tensor in tensors]
    starts = numpy.array([start for start, size in spans if size], numpy.int64)
    large = [numpy.arange(start + PAGE_BYTES, start + size, PAGE_BYTES) for start, size in spans if size > PAGE_BYTES]
    return numpy.concatenate([starts, *large])


def _address(tensor: Any) -> int:
    address: int = tensor.data_ptr() if hasattr(tensor, "data_ptr") else numpy.asarray(tensor).ctypes.data
    return address


def read_pages(addresses: Any) -> int:
    """Read the byte at each address, so that what is only mapped is read; return their sum."""
    everything: Any = (ctypes.c_ubyte * (2**47 - PAGE_BYTES)).from_address(PAGE_BYTES)
    memory = numpy.frombuffer(everything, numpy.uint8)
    return int(memory[addresses - PAGE_BYTES].sum(dtype=numpy.int64))
