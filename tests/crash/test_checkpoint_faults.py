"""P8: the system fails any operation of a save or a deletion, in any way; the disk is full at any byte."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from itertools import cycle, islice

import pytest

from ckptfmt.disk.faults import OperationKind
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.errors import NotEnoughSpaceError
from tests.crash.checkpoint_faults import Fault, FaultCheck
from tests.crash.checkpoint_killers import THREADED, UNWARNED
from tests.crash.checkpoint_product import load_product
from tests.crash.checkpoint_states import encoded, is_same, make_state
from tests.crash.checkpoint_workloads import NEW, OLD, TARGET, workloads

PRODUCT = load_product()
ERRNOS = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EINTR)
NAMES = list(workloads(1))


def sweep(operation_count: int, *, errors_each: int = len(ERRNOS)) -> Iterator[Fault]:
    """Yield faults of every operation, each with every error, or with so many of them in turn."""
    errors = cycle(ERRNOS)
    for nth in range(1, operation_count + 1):
        for number in islice(errors, errors_each):
            for is_for_ever in (False, True):
                yield Fault("any", number, nth, is_for_ever=is_for_ever)


# Encoding has many operations: with all errors at each they take a minute.
ENCODING = [name for name in NAMES if "compress" in name]


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] if name in ENCODING else [], id=name) for name in NAMES])
def test_every_operation_may_fail_with_every_error_once_and_for_ever(name: str) -> None:
    check = FaultCheck(PRODUCT, workloads(1)[name])
    for fault in sweep(check.counts["any"]):
        check.check(fault)


@pytest.mark.parametrize("name", ENCODING)
def test_every_operation_of_encoding_may_fail_once_and_for_ever(name: str) -> None:
    check = FaultCheck(PRODUCT, workloads(1)[name])
    for fault in sweep(check.counts["any"], errors_each=1):
        check.check(fault)


@pytest.mark.parametrize("name", NAMES)
def test_every_operation_may_take_effect_and_report_failure(name: str) -> None:
    check = FaultCheck(PRODUCT, workloads(1)[name])
    for nth in range(1, check.counts["any"] + 1):
        for is_for_ever in (False, True):
            check.check(Fault("any", errno.EIO, nth, is_for_ever=is_for_ever, happens="after"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("number", sorted(errno.errorcode.keys() - {errno.EEXIST, errno.ENOENT}))
def test_every_error_number_is_passed_on(name: str, number: int) -> None:
    check = FaultCheck(PRODUCT, workloads(3)[name])
    for nth in range(1, check.counts["any"] + 1):
        check.check(Fault("any", number, nth))


def test_every_operation_of_the_second_thread_may_fail() -> None:
    check = FaultCheck(load_product(THREADED), workloads(3)["overwrite"])
    assert "ckptfmt-write" in check.threads
    kinds: tuple[OperationKind, ...] = ("create", "write", "sync", "close", "rename")
    for kind in kinds:
        for nth in range(1, check.counts[kind] + 1):
            for number in (errno.EIO, errno.ENOSPC):
                for is_for_ever in (False, True):
                    check.check(Fault(kind, number, nth, is_for_ever=is_for_ever))


@pytest.mark.parametrize("size_bytes", [1, 7, 100])
def test_short_writes_are_continued(size_bytes: int) -> None:
    for nth in range(1, FaultCheck(PRODUCT, workloads(1)["overwrite"]).counts["write"] + 1):
        disk = MemoryDisk()
        disk.make_directory("/runs")
        disk.make_directory("/runs/exp")
        disk.faults.shorten_write(size_bytes, nth=nth)
        PRODUCT.save(disk, TARGET, encoded(NEW))
        assert is_same(PRODUCT.load(disk, TARGET), make_state(NEW))


@pytest.mark.parametrize("name", [name for name in NAMES if "delete" not in name])
def test_a_disk_that_becomes_full_at_any_byte_keeps_the_old_checkpoint(name: str) -> None:
    check = FaultCheck(load_product(UNWARNED), workloads(3)[name])
    free_bytes = 0
    while check.check_full(free_bytes):
        free_bytes += 64
    assert free_bytes > 1_000


@pytest.mark.parametrize("free_bytes", range(0, 2**20, 2**15))
def test_a_save_that_cannot_fit_is_refused_before_its_first_byte(free_bytes: int) -> None:
    workload = workloads(3)["overwrite"]
    tree = workload.initial(PRODUCT)
    disk = MemoryDisk(tree, capacity_bytes=sum(map(len, tree.files.values())) + free_bytes)
    with pytest.raises(NotEnoughSpaceError, match="Nothing was changed") as caught:
        workload.job(PRODUCT, disk)
    assert caught.value.free_bytes == free_bytes
    assert caught.value.needed_bytes > 2**20
    assert disk.faults.calls["create"] == 0
    assert is_same(PRODUCT.load(disk, TARGET), make_state(OLD))
