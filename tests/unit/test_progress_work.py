"""Units of work: what is pending, what is done, what failed, and what comes back after a restart."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ckptfmt
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.run.progress import Progress

PATH = "/run/progress/work"


def opened(disk: MemoryDisk, **options: Any) -> Progress:
    return Progress(disk, PATH, "work", **options)


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk()


def test_a_loop_that_is_run_again_goes_on_with_what_is_not_done(disk: MemoryDisk) -> None:
    with opened(disk) as progress:
        for key in progress.pending(range(10)):
            if key == 4:
                break
            progress.done(key, key * key, {"tokens": key})
    with opened(disk) as progress:
        assert (progress.completed, progress.total, progress.ratio) == (4, 10, 0.4)
        assert [key for key in progress.pending(range(10)) if progress.done(key, key * key) is None] == [4, 5, 6, 7, 8, 9]
        assert progress.results() == {key: key * key for key in range(10)}
    with opened(disk) as progress:
        assert list(progress.pending(range(10))) == []
        assert list(progress.results()) == list(range(10))


def test_nothing_is_written_before_the_first_unit_is_taken(disk: MemoryDisk) -> None:
    with opened(disk) as progress:
        assert progress.results() == {}
        assert list(progress.pending([])) == []
    assert disk.contents() == {}


KEYS = [0, -(2**63), 2**64 - 1, "text", "", "ü/..", (), (1,), ("a", (2, "b")), ((), ((),))]


def test_keys_are_ints_texts_and_tuples_of_them(disk: MemoryDisk) -> None:
    with opened(disk) as progress:
        for key in progress.pending(KEYS):
            progress.done(key, [key])
    with opened(disk) as progress:
        assert list(progress.results().items()) == [(key, [key]) for key in KEYS]
        assert all(progress.is_done(key) for key in KEYS)
        assert not progress.is_done("1")


@pytest.mark.parametrize("key", [True, 1.0, None, b"x", 2**64, "\ud800", [1], ("a", 1.5), np.int64(3), "x" * 70_000])
def test_other_keys_are_refused(disk: MemoryDisk, key: Any) -> None:
    with opened(disk) as progress, pytest.raises((ckptfmt.UnsupportedTypeError, TypeError)):
        progress.done(key)


RESULTS = [
    None,
    {1: (2, 3.5), "nested": [{"deep": {4, 5}}], "big": 2**200, "bytes": b"\0"},
    float("inf"),
    np.arange(12).reshape(3, 4),
    {"large": np.arange(300_000), "small": np.float32(1.5)},
    "x" * 2_000_000,
]


@pytest.mark.parametrize("result", RESULTS, ids=["none", "nested", "float", "array", "large array", "large text"])
def test_a_result_comes_back_with_its_types(disk: MemoryDisk, result: Any) -> None:
    with opened(disk) as progress:
        progress.done("unit", result)
    with opened(disk) as progress:
        found = progress.result("unit")
        np.testing.assert_equal(found, result)
        assert type(found) is type(result)
        np.testing.assert_equal(progress.results(), {"unit": result})
        progress.done("unit", result)
        with pytest.raises(ckptfmt.CheckpointExistsError, match="done with another result"):
            progress.done("unit", "another")
        assert len([name for name in disk.contents() if name.endswith("/manifest.json")]) <= 1


def test_tensors_stay_tied_in_a_record(disk: MemoryDisk) -> None:
    weight = torch.randn(3, 2)
    with opened(disk) as progress:
        progress.done("unit", {"a": weight, "b": weight, "half": weight.to(torch.bfloat16)})
        found = progress.result("unit")
    assert torch.equal(found["a"], weight)
    assert found["half"].dtype == torch.bfloat16
    assert found["a"].data_ptr() == found["b"].data_ptr()


def test_the_model_of_a_fold_is_a_checkpoint_that_load_reads(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    with ckptfmt.Run(tmp_path) as run, run.progress("folds") as folds:
        for fold in folds.pending(range(2)):
            folds.done(fold, {"score": 0.5}, {"score": 0.5}, state={"model": model})
        path = folds.state_path(1)
        assert path is not None
        assert Path(path).parent == tmp_path / "progress/folds/units"
        assert torch.equal(ckptfmt.load(path)["model"]["weight"], model.weight)
        folds.done("no model")
        assert folds.state_path("no model") is None


def test_two_results_differ_also_where_equality_does_not_see_it(disk: MemoryDisk) -> None:
    with opened(disk) as progress:
        progress.done("nan", float("nan"))
        progress.done("nan", float("nan"))
        progress.done("one", 1)
        with pytest.raises(ckptfmt.CheckpointExistsError):
            progress.done("one", True)
        with pytest.raises(ckptfmt.NameNotFoundError):
            progress.result("two")


def test_a_unit_that_fails_is_tried_again_and_then_listed(disk: MemoryDisk) -> None:
    tried = []
    with opened(disk, max_attempts=3) as progress:
        for key in progress.pending("abc"):
            tried.append(key)
            if key == "b":
                progress.fail(key, ValueError(f"attempt {len(tried)}"))
            elif key == "c" and tried.count("c") == 1:
                progress.fail(key, "not yet")
            else:
                progress.done(key)
        assert tried == ["a", "b", "c", "b", "c", "b"]
        assert {key: (failure.attempts, failure.error) for key, failure in progress.failed.items()} == {"b": (3, "ValueError: attempt 6")}
    with opened(disk, max_attempts=3) as progress:
        assert list(progress.pending("abc")) == []
        assert "1 failed" in progress.bar()
    with opened(disk, max_attempts=4) as progress:
        assert list(progress.pending("abc")) == ["b"]
        progress.done("b")
        assert progress.failed == {}
    with opened(disk, max_attempts=3) as progress:
        assert progress.failed == {}


def test_a_loop_that_is_left_by_an_error_gives_its_key_back(disk: MemoryDisk) -> None:
    with opened(disk) as progress:

        def work() -> None:
            for key in progress.pending(range(3)):
                progress.done(1 // (1 - key) - 1)

        with pytest.raises(ZeroDivisionError):
            work()
        assert list(progress.pending(range(3))) == [1, 2]


def test_batches_have_the_asked_size_and_are_given_back_whole(disk: MemoryDisk) -> None:
    with opened(disk) as progress:
        progress.done(2)
        for batch in progress.pending(range(10), batch_size=4):
            assert batch == [0, 1, 3, 4]
            break
        assert [*progress.pending(range(10), batch_size=4)] == [[0, 1, 3, 4], [5, 6, 7, 8], [9]]
        with pytest.raises(ValueError, match="batch_size"):
            progress.pending([], batch_size=0)


def test_a_key_that_is_named_twice_is_handed_out_once(disk: MemoryDisk) -> None:
    with opened(disk) as progress:
        assert list(progress.pending(["a", "b", "a", "b"])) == ["a", "b"]


def test_threads_get_each_key_once_from_one_loop_or_several(disk: MemoryDisk) -> None:
    seen: list[int] = []
    with opened(disk, flush_every=10) as progress:
        shared = progress.pending(range(400))

        def work(keys: Iterator[int]) -> None:
            for key in keys:
                seen.append(key)
                progress.done(key, key)

        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(work, shared), pool.submit(work, shared), *[pool.submit(work, progress.pending(range(400)))] * 2]:
                future.result()
    assert sorted(seen) == list(range(400))
    with opened(disk) as progress:
        assert progress.completed == 400


def test_keys_that_come_slowly_keep_no_thread_from_finishing(disk: MemoryDisk) -> None:
    is_finished = threading.Event()

    def keys() -> Iterator[int]:
        yield 0
        assert is_finished.wait(20)
        yield 1

    with opened(disk) as progress:
        loop = progress.pending(keys())
        first = next(loop)
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(next, loop)
            progress.done(first)
            is_finished.set()
            assert second.result() == 1


def test_metrics_are_summed_up(disk: MemoryDisk) -> None:
    with opened(disk) as progress:
        for key in range(4):
            progress.done(key, None, {"tokens": key, "latency": torch.tensor(0.5)})
        assert progress.aggregate["tokens"].mean == 1.5
        progress.done("last", None, {"tokens": -1})
        progress.done("without")
    with opened(disk) as progress:
        tokens = progress.aggregate["tokens"]
        assert (tokens.count, tokens.sum, tokens.min, tokens.max) == (5, 5, -1, 3)
        assert progress.aggregate["latency"].mean == 0.5
        assert progress.metrics("last") == {"tokens": -1}
        with pytest.raises(ckptfmt.UnsupportedTypeError, match=r"metrics\.note"):
            progress.done("wrong", None, {"note": "text"})
        assert not progress.is_done("wrong")


def test_progress_is_told_in_numbers_and_as_a_bar(disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("ckptfmt.run.progress_session.time.time", lambda: now[0])
    with opened(disk) as progress:
        assert (progress.ratio, progress.eta_seconds, progress.bar()) == (None, None, "0 done")
    with opened(disk, total=20) as progress:
        for key in progress.pending(range(20)):
            now[0] += 2
            progress.done(key)
            if key == 4:
                break
        assert progress.eta_seconds == 30
        assert progress.bar(width=8) == "[##------] 5/20 25.0%, 0:30 left"
    now[0] += 10_000
    with opened(disk) as progress:
        # The night between the sessions is no working time.
        assert (progress.eta_seconds, progress.total) == (30, 20)
        for key in progress.pending(range(20)):
            now[0] += 4
            progress.done(key)
            if key == 10:
                break
        assert progress.eta_seconds == 36
    with opened(disk, total=0) as progress:
        assert progress.ratio == 1.0


def test_a_bar_is_never_drawn_where_there_is_no_terminal(disk: MemoryDisk, capsys: pytest.CaptureFixture[str]) -> None:
    with opened(disk) as progress:
        for key in progress.track(range(3), show=True):
            progress.done(key)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_live_bar_unless_it_is_not_wanted(
    disk: MemoryDisk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with opened(disk) as progress:
        for key in progress.track(range(2), show=False):
            progress.done(key)
        assert capsys.readouterr().err == ""
        for key in progress.track(range(4)):
            progress.done(key)
    shown = capsys.readouterr()
    assert "work" in shown.err
    assert "4/4" in shown.err
    assert shown.out == ""


def fingerprint(**changes: Any) -> ckptfmt.Fingerprint:
    return ckptfmt.Fingerprint(**({"seed": 1, "config": {"lr": 0.1}, "environment": False, "code": False} | changes))


def test_another_fingerprint_is_refused_and_a_changed_seed_goes_on_by_choice(disk: MemoryDisk) -> None:
    with opened(disk, fingerprint=fingerprint()) as progress:
        progress.done(0, "of seed 1")
    with pytest.raises(ckptfmt.FingerprintMismatchError, match=r"seed 1 -> 2") as caught:
        opened(disk, fingerprint=fingerprint(seed=2))
    assert [difference.field for difference in caught.value.differences] == ["seed"]
    with opened(disk, fingerprint=fingerprint(seed=2), allow_changes=["seed"]) as progress:
        for key in progress.pending(range(2)):
            progress.done(key, "of seed 2")
        assert progress.results() == {0: "of seed 1", 1: "of seed 2"}
    with opened(disk, fingerprint=fingerprint(seed=2)) as progress:
        assert progress.completed == 2
    with pytest.raises(ckptfmt.FingerprintMismatchError):
        opened(disk, fingerprint=fingerprint())
    with opened(disk) as progress:
        assert progress.completed == 2


@pytest.mark.parametrize("options", [{"total": -1}, {"flush_every": 0}, {"flush_every": None}, {"max_attempts": 0}, {"total": 1.5}])
def test_options_are_checked(disk: MemoryDisk, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        opened(disk, **options)


def test_a_closed_progress_can_be_read_and_not_written(disk: MemoryDisk) -> None:
    progress = opened(disk)
    progress.done("a", 1)
    progress.close()
    progress.close()
    assert progress.results() == {"a": 1}
    with pytest.raises(ValueError, match="is closed"):
        progress.done("b")
    with pytest.raises(ValueError, match="is closed"):
        progress.pending([])


def test_a_run_closes_what_it_opened_and_the_newer_of_one_name_works(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path) as run:
        first = run.progress("work", flush_every=100)
        assert next(first.pending(range(3))) == 0
        second = run.progress("work", flush_every=100)
        assert next(second.pending(range(3))) == 0
        with pytest.raises(ValueError, match="is closed"):
            first.done(0)
        with pytest.raises(ValueError, match="name="):
            run.progress("../work")
    with pytest.raises(ValueError, match="is closed"):
        second.done(0)
    assert not list((tmp_path / "progress/work/claims").iterdir())
    assert (tmp_path / "run.json").exists()


def test_a_full_disk_leaves_the_unit_undone_and_a_retry_works(disk: MemoryDisk) -> None:
    with opened(disk) as progress:
        progress.done(0)
        disk.faults.fail("write", errno.ENOSPC)
        with pytest.raises(ckptfmt.NotEnoughSpaceError):
            progress.done(1, "text")
        assert not progress.is_done(1)
        progress.done(1, "text")
    with opened(disk) as progress:
        assert progress.results() == {0: None, 1: "text"}
