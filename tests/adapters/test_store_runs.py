"""Runs that live in a store, on a real S3 server: kills, two writers, a stolen lease, a store that is away, a machine that died."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt
from ckptfmt.disk.object_store import Condition
from ckptfmt.run import lease
from tests.adapters.programs.store_run_program import outcome_of
from tests.adapters.store_kit import direct_store, names, program
from tests.adapters.store_server import BUCKET, RESET_AFTER, RESET_BEFORE, SECRET, TRUNCATE, Request, StoreServer, each

PROGRAM = Path(__file__).parent / "programs" / "store_run_program.py"
URL = f"s3://{BUCKET}/exp"
LEASE_KEY = f"{BUCKET}/exp/.lease.json"


def started_training(server: StoreServer, machine: Path | str, last_step: int, *more: str, place: str = URL) -> subprocess.Popen[str]:
    return program(server, place, str(machine), str(last_step), *more, path=PROGRAM)


def told_by(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=120)[0].strip()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What comes of five steps in a directory of this machine."""
    with ckptfmt.Run(tmp_path_factory.mktemp("undisturbed") / "run", keep_last=3) as run:
        return outcome_of(run, 5)


def opened(machine: Path, **options: Any) -> ckptfmt.Run:
    return ckptfmt.Run(URL, local_directory=machine, **options)


def steps_in_store() -> list[int]:
    return sorted(int(name.split("/")[1][5:]) for name in names() if name.startswith("exp/step-") and name.endswith("manifest.json"))


def check_store(steps: list[int]) -> None:
    """Check that the store has these steps, each of them sound."""
    assert steps_in_store() == steps
    for step in steps:
        assert ckptfmt.verify(f"{URL}/step-{step:08d}").ok


def rewrite_lease(**members: Any) -> None:
    found = direct_store().read(LEASE_KEY, 0, 4096)
    direct_store().write(LEASE_KEY, json.dumps(json.loads(found.data) | members).encode(), Condition.ANYTHING)


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh machine", "same machine"])
@pytest.mark.parametrize("key_end", ["step-00000003/manifest.json", ".journal", "run.json"])
def test_a_killed_training_goes_on_bit_for_bit(server: StoreServer, tmp_path: Path, undisturbed: str, key_end: str, fresh: bool) -> None:
    writer: list[subprocess.Popen[str]] = []
    seen = [0]

    def kill(request: Request) -> str | None:
        seen[0] += request.kind == "PutObject" and key_end in request.key
        # Of journals the fifth, in the middle of the training.
        if seen[0] and (key_end != ".journal" or seen[0] == 5):
            writer[0].kill()
            return RESET_BEFORE
        return None

    server.breaking = kill
    writer.append(started_training(server, tmp_path / "first", 5, "3"))
    writer[0].communicate(timeout=120)
    assert writer[0].returncode == -9
    server.breaking = lambda _: None
    began = time.monotonic()
    second = started_training(server, tmp_path / ("second" if fresh else "first"), 5, "3")
    assert told_by(second) == undisturbed
    assert fresh or time.monotonic() - began < 30
    check_store([3, 4, 5])
    with opened(tmp_path / "third") as run:
        assert outcome_of(run, 5) == undisturbed


def test_what_breaks_for_the_moment_is_not_noticed(server: StoreServer, tmp_path: Path, undisturbed: str) -> None:
    count = [0]

    def breaking(request: Request) -> int | str | None:
        count[0] += 1
        return (RESET_BEFORE, 503, RESET_AFTER, TRUNCATE)[count[0] // 7 % 4] if count[0] % 7 == 0 else None

    server.breaking = breaking
    with opened(tmp_path / "a", keep_last=3) as run:
        assert outcome_of(run, 5) == undisturbed
    server.breaking = lambda _: None
    check_store([3, 4, 5])


def test_a_second_machine_is_refused_while_the_first_is_alive(server: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.3)
    with opened(tmp_path / "a") as run:
        run.save(1, {"w": np.zeros(10)})
        told = told_by(started_training(server, tmp_path / "b", 3))
        assert told.startswith(f"refused: {URL}: process {os.getpid()} of ")
        assert "is writing to this run since" in told
        run.save(2, {"w": np.zeros(10)})
    check_store([1, 2])


def test_of_two_machines_that_begin_at_once_one_trains(server: StoreServer, tmp_path: Path, undisturbed: str) -> None:
    # Slow enough that the first is not done before the second looks.
    server.breaking = lambda request: "slow" if request.key.endswith("manifest.json") else None
    both = [started_training(server, tmp_path / name, 5, "6") for name in ("a", "b")]
    told = sorted(map(told_by, both))
    assert told[0] == undisturbed or told[1] == undisturbed
    check_store([3, 4, 5])
    with opened(tmp_path / "c") as run:
        assert outcome_of(run, 5) == undisturbed


@pytest.mark.parametrize("moment", ["UploadPart", "metadata", "manifest.json"])
def test_a_stolen_lease_makes_the_first_fail_without_harm(server: StoreServer, tmp_path: Path, moment: str) -> None:
    other: list[ckptfmt.Run] = []
    run = opened(tmp_path / "a", keep_last=2)
    for step in (1, 2):
        run.save(step, {"w": np.full(10, step)})

    def steal(request: Request) -> None:
        if "step-00000003" in request.key and (request.kind == moment or moment in request.key) and not other:
            server.breaking = lambda _: None
            rewrite_lease(state="released")
            other.append(opened(tmp_path / "b", keep_last=2))
            restored = other[0].restore()
            assert restored is not None
            assert restored.step == 2
            other[0].save(3, {"w": np.full(10, 33)})

    server.breaking = steal  # type: ignore[assignment]
    with pytest.raises(ckptfmt.RunLockedError, match="has taken this run over"):
        run.save(3, {"w": np.full(1_200_000, 3.0)})
    check_store([2, 3])
    with pytest.raises(ckptfmt.RunLockedError):
        run.save(4, {"w": np.full(10, 4)})
    with pytest.raises(ckptfmt.RunLockedError):
        run.close()
    other[0].save(4, {"w": np.full(10, 44)})
    other[0].close()
    check_store([3, 4])
    assert ckptfmt.load(f"{URL}/step-00000003")["w"].tolist() == [33] * 10
    with opened(tmp_path / "c") as run:
        assert [row["step"] for row in run.history()] == [1, 2, 3, 4]


@pytest.mark.parametrize("action", [RESET_BEFORE, 503, 403])
def test_a_store_that_is_away_for_a_while(server: StoreServer, tmp_path: Path, action: int | str) -> None:
    with opened(tmp_path / "a") as run:
        run.save(1, {"w": np.full(10, 1)})
        server.breaking = each(action, 10**9)
        for step in (2, 3):
            with pytest.raises(ckptfmt.StoreUnavailableError, match=f"not in the store: step {step}"):
                run.save(step, {"w": np.full(10, step)}, metrics={"m": step})
        server.breaking = lambda _: None
        run.save(4, {"w": np.full(10, 4)})
        check_store([1, 2, 3, 4])
    with opened(tmp_path / "b") as run:
        restored = run.restore()
        assert restored is not None
        assert restored.state["w"].tolist() == [4] * 10
        assert [row["step"] for row in run.history()] == [1, 2, 3, 4]


def test_the_lease_of_a_machine_that_died_ends_by_the_clock_of_the_store(server: StoreServer, tmp_path: Path) -> None:
    with opened(tmp_path / "a") as run:
        run.save(1, {"w": np.full(10, 1)})
    # As a machine leaves it that lost its power, and whose clock is years ahead.
    rewrite_lease(state="held", expires_seconds=2, renewed_at_utc="2031-01-01T00:00:00Z")
    began = time.monotonic()
    with pytest.warns(RuntimeWarning, match="has ended without giving the run up"):
        run = opened(tmp_path / "b")
    assert 1 < time.monotonic() - began < 20
    with run:
        run.save(2, {"w": np.full(10, 2)})
    check_store([1, 2])


def test_an_overwritten_object_and_a_step_twice_are_refused(server: StoreServer, tmp_path: Path) -> None:
    with opened(tmp_path / "a") as run:
        for step in range(1, 6):
            run.save(step, {"w": np.full(10, step)})
        with pytest.raises(ckptfmt.CheckpointExistsError):
            run.save(1, {"w": np.zeros(10)})
        with pytest.raises(ckptfmt.CheckpointExistsError):
            run.save(5, {"w": np.zeros(10)})
        assert ckptfmt.load(run.checkpoint(1))["w"].tolist() == [1] * 10
        restored = run.restore(step=2)
        assert restored is not None
        with pytest.warns(RuntimeWarning, match="going on from step 2"):
            run.save(3, {"w": np.full(10, 33)})
        check_store([1, 2, 3])
        assert ckptfmt.load(f"{URL}/step-00000003")["w"].tolist() == [33] * 10
    aside = {name.split("/")[1].partition("-after-")[2] for name in names() if "/aside-" in name}
    assert aside == {f"step-00000002-step-0000000{step}" for step in (3, 4, 5)}


def test_a_save_takes_the_requests_that_it_needs(server: StoreServer, tmp_path: Path) -> None:
    with opened(tmp_path / "a") as run:
        for step in (1, 2, 3):
            run.save(step, {"w": np.full(10, step)})
        server.counted()
        run.save(4, {"w": np.full(10, 4)})
        counted = server.counted()
    # A shard, metadata, the manifest, and a segment of the history; each after a look at the lease, and read back.
    assert counted["PutObject"] == 4
    assert sum(counted.values()) <= 32
    assert set(counted) <= {"PutObject", "GetObject", "HeadObject", "ListObjects"}
    assert sorted(path.name for path in (tmp_path / "a").glob("step-*")) == ["step-00000003", "step-00000004"]


def test_no_file_holds_a_credential(server: StoreServer, tmp_path: Path) -> None:
    with opened(tmp_path / "a") as run:
        run.save(1, {"w": np.zeros(3)})
        stored = [path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()]
        stored += [direct_store().read(f"{BUCKET}/{name}", 0, 10**6).data for name in names()]
        server.breaking = each(403, 10**9)
        with pytest.raises(ckptfmt.StoreUnavailableError) as caught:
            run.save(2, {"w": np.zeros(3)})
        server.breaking = lambda _: None
    stored.append(str(caught.value).encode())
    assert not [content for content in stored for secret in (SECRET, os.environ["AWS_ACCESS_KEY_ID"]) if secret.encode() in content]
