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
from contextlib import suppress
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy

PAGE_BYTES = 4096
PREHEAT_SLACK_BYTES = 64 * 2**20
LIBRARIES = ("ckptfmt", "torch", "safetensors", "numpy", "blake3", "zstandard", "msgpack", "orbax-checkpoint", "tensorizer", "h5py", "zarr")

_trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)
_mincore: Any = getattr(ctypes.CDLL(None), "mincore", None)
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
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
    """Touch and free so much memory in small pages and as much in huge ones, so that the timed part finds both warm.

    Warming only one kind would favour the libraries that use it: a kernel keeps the two apart for a while.
    """
    give_back()
    if size_bytes == 0:
        return
    size_bytes = min(size_bytes + PREHEAT_SLACK_BYTES, free_memory_bytes() // 4)
    small, huge = mmap.mmap(-1, size_bytes, flags=_PRIVATE), mmap.mmap(-1, size_bytes, flags=_PRIVATE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):
            huge.madvise(mmap.MADV_HUGEPAGE)
    for memory in (small, huge):
        # The array goes before the map is closed: a map that is still looked at cannot be.
        numpy.frombuffer(memory, numpy.uint8)[::PAGE_BYTES] = 1
    small.close()
    huge.close()


def give_back() -> None:
    """Give all memory that is not in use back to the system, so that a peak counts from there."""
    gc.collect()
    if _trim is not None:
        _trim(0)


def make_cold(path: Path) -> None:
    """Take a checkpoint's files out of the page cache.

    Only theirs, because dropping everything would make the next process read its libraries again. Where the system does not
    follow that advice, everything is dropped if that is allowed; what is still cached then is an error, not a cold load.
    """
    os.sync()
    for file in files_below(path):
        number = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(number)
    if cached_bytes(path) and os.access(_DROP, os.W_OK):
        _DROP.write_text("3")
    if left_bytes := cached_bytes(path):
        raise OSError(f"{path.name}: {left_bytes:,} bytes stay in the page cache; a cold load cannot be measured here")


def cached_bytes(path: Path) -> int:
    """Return how much of a checkpoint's files lies in the page cache; 0 where the system does not say."""
    return sum(_cached_bytes(file) for file in files_below(path))


def _cached_bytes(file: Path) -> int:
    size_bytes = file.stat().st_size
    if not size_bytes or _mincore is None:
        return 0
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), size_bytes, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED) as memory:
        pages = numpy.zeros(-(-size_bytes // PAGE_BYTES), numpy.uint8)
        # The array goes before the map is closed.
        address = numpy.frombuffer(memory, numpy.uint8).ctypes.data
        if _mincore(ctypes.c_void_p(address), ctypes.c_size_t(size_bytes), pages.ctypes.data_as(ctypes.c_void_p)) != 0:
            return 0
    return int((pages & 1).sum()) * PAGE_BYTES


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
