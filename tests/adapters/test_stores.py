"""Object stores on a real S3 server: resets, 5xx, cut off and slow answers, kills, two writers, damage."""

from __future__ import annotations

import os
import subprocess
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt
from ckptfmt.checkpoint import store_staging
from ckptfmt.disk import remote, remote_files
from ckptfmt.disk.object_store import ObjectStore
from tests.adapters.programs.store_program import state
from tests.adapters.store_kit import direct_store, names, program
from tests.adapters.store_server import (
    BUCKET,
    RESET_AFTER,
    RESET_BEFORE,
    SECRET,
    SLOW,
    TRUNCATE,
    Request,
    StoreServer,
    each,
)
from tests.contract.object_store_contract import ObjectStoreContract

PARTS = ("CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload")
URL = f"s3://{BUCKET}/run/step"


class TestS3Store(ObjectStoreContract):
    """S3, through s3fs, by the contract of object stores."""

    @pytest.fixture
    def store(self, server: StoreServer) -> ObjectStore:
        """An empty bucket."""
        return direct_store()


@pytest.mark.parametrize(("tensors", "shard_size"), [(3, "2GB"), (300, "2GB"), (300, "100KB")])
def test_one_tensor_takes_at_most_four_requests_however_large_the_checkpoint_is(server: StoreServer, tensors: int, shard_size: str) -> None:
    ckptfmt.save(URL, {"model": {f"w{number}": np.full(1000, number) for number in range(tensors)}}, max_shard_size=shard_size)
    server.counted()
    with ckptfmt.open_checkpoint(URL) as checkpoint:
        assert checkpoint.get_tensor("model.w2").tolist() == [2] * 1000
    assert server.counted() == {"GetObject": 3, "ListObjects": 1}


def test_saves_and_loads_take_the_requests_that_they_need(server: StoreServer) -> None:
    ckptfmt.save(URL, state(1))
    # The model's 20 MB go in three parts; the last three are for what the save replaces or finds left.
    parts = {"CreateMultipartUpload": 1, "UploadPart": 3, "CompleteMultipartUpload": 1}
    assert server.counted() == {"GetObject": 1, **parts, "PutObject": 3, "ListObjects": 1, "ListMultipartUploads": 1}
    np.testing.assert_equal(ckptfmt.load(URL), state(1))
    # Manifest and metadata; of each shard its start, with all of the small one; the large one's data in ranges of 16 MiB.
    found = server.counted()
    assert found["ListObjects"] == 1
    assert found["GetObject"] <= 7
    assert set(found) == {"GetObject", "ListObjects"}


@pytest.mark.parametrize("action", [RESET_BEFORE, RESET_AFTER, TRUNCATE, SLOW, 500, 503, 429])
@pytest.mark.parametrize("kind", ["Any", "GetObject", "PutObject", "ListObjects", *PARTS])
def test_what_breaks_for_the_moment_is_not_noticed(server: StoreServer, action: int | str, kind: str) -> None:
    kinds = () if kind == "Any" else (kind,)
    ckptfmt.save(URL, {"w": np.zeros(10)})
    server.breaking = each(action, 3, *kinds)
    small = {"model": {"w": np.full(1_200_000, 3, dtype=np.int64)}, "number": 2}
    ckptfmt.save(URL, small, overwrite=True)
    np.testing.assert_equal(ckptfmt.load(URL), small)
    server.breaking = each(action, 3, *kinds)
    np.testing.assert_equal(ckptfmt.load(URL), small)
    server.breaking = lambda _: None
    assert ckptfmt.verify(URL).findings == ()


@pytest.mark.parametrize("kind", ["PutObject", *PARTS])
@pytest.mark.parametrize("action", [RESET_BEFORE, 500, 403])
def test_a_failure_that_lasts_leaves_what_was_there_and_no_parts(server: StoreServer, kind: str, action: int | str) -> None:
    ckptfmt.save(URL, state(1))
    before = names()
    server.breaking = each(action, 1000, kind)
    with pytest.raises(OSError, match=r"s3://bucket/run/step"):
        ckptfmt.save(URL, state(2), overwrite=True)
    server.breaking = lambda _: None
    assert names() == before
    assert not direct_store()._fs.call_s3("list_multipart_uploads", Bucket=BUCKET).get("Uploads")  # type: ignore[attr-defined]
    np.testing.assert_equal(ckptfmt.load(URL), state(1))


def test_of_two_saves_at_once_one_is_told_that_it_lost(server: StoreServer) -> None:
    def save_another_before_the_manifest(request: Request) -> None:
        if request.kind == "PutObject" and request.key.endswith("manifest.json"):
            server.breaking = lambda _: None
            ckptfmt.save(URL, {"number": 1}, overwrite=True)

    for overwrite, error in ((False, ckptfmt.CheckpointExistsError), (True, ckptfmt.RunLockedError)):
        server.breaking = save_another_before_the_manifest  # type: ignore[assignment]
        with pytest.raises(error, match="another save was committed here"):
            ckptfmt.save(URL, {"number": 2, "w": np.ones(3)}, overwrite=overwrite)
        assert ckptfmt.load(URL) == {"number": 1}
        assert ckptfmt.verify(URL).findings == ()


def test_processes_that_overwrite_at_the_same_time_leave_one_whole_checkpoint(server: StoreServer) -> None:
    for _ in range(2):
        writers = [program(server, "save", URL, str(number)) for number in (1, 2, 3)]
        outcomes = [writer.communicate(timeout=120)[0].strip() for writer in writers]
        assert set(outcomes) <= {"won", "lost"}
        assert "won" in outcomes
        number = ckptfmt.load(URL, only="number")["number"]
        assert outcomes[number - 1] == "won"
        np.testing.assert_equal(ckptfmt.load(URL), state(number))
        assert not [finding for finding in ckptfmt.verify(URL).findings if finding.level == "error"]


@pytest.mark.parametrize(("kind", "key_end"), [("PutObject", "manifest.json"), ("UploadPart", ".safetensors"), ("PutObject", ".zst")])
def test_a_kill_before_the_manifest_leaves_what_was_there_and_the_litter_goes_later(
    server: StoreServer, monkeypatch: pytest.MonkeyPatch, kind: str, key_end: str
) -> None:
    ckptfmt.save(URL, state(1))
    before = names()
    writer: list[subprocess.Popen[str]] = []

    def kill(request: Request) -> str | None:
        if request.kind == kind and request.key.endswith(key_end):
            writer[0].kill()
            return RESET_BEFORE
        return None

    server.breaking = kill
    writer.append(program(server, "save", URL, "2"))
    writer[0].communicate(timeout=120)
    assert writer[0].returncode == -9
    server.breaking = lambda _: None
    np.testing.assert_equal(ckptfmt.load(URL), state(1))
    assert before <= names()
    assert {finding.rule for finding in ckptfmt.verify(URL).findings} <= {"W001"}
    # As if a day had passed.
    monkeypatch.setattr(store_staging, "LITTER_SECONDS", -60.0)
    monkeypatch.setattr(store_staging.time, "monotonic", lambda: 0.0)
    ckptfmt.save(URL, {"number": 3}, overwrite=True)
    assert ckptfmt.load(URL) == {"number": 3}
    assert ckptfmt.verify(URL).findings == ()
    assert not direct_store()._fs.call_s3("list_multipart_uploads", Bucket=BUCKET).get("Uploads")  # type: ignore[attr-defined]


def test_a_fresh_machine_goes_on_from_the_mirror_of_one_that_was_killed(server: StoreServer, tmp_path: Path) -> None:
    mirror = f"s3://{BUCKET}/exp"
    writer: list[subprocess.Popen[str]] = []

    def kill(request: Request) -> str | None:
        if "step-00000004" in request.key and request.key.endswith("manifest.json") and request.kind == "PutObject":
            writer[0].kill()
            return RESET_BEFORE
        return None

    server.breaking = kill
    writer.append(program(server, "mirror", str(tmp_path / "first"), mirror, "9"))
    writer[0].communicate(timeout=120)
    assert writer[0].returncode == -9
    server.breaking = each(500, 4)
    second = program(server, "mirror", str(tmp_path / "second"), mirror, "6")
    assert second.communicate(timeout=120)[0].strip() == "6"
    server.breaking = lambda _: None
    with ckptfmt.Run(tmp_path / "second") as run:
        assert [row["step"] for row in run.history()] == [1, 2, 3, 4, 5, 6]
    for step in (5, 6):
        assert ckptfmt.verify(f"{mirror}/step-{step:08d}").findings == ()
        assert ckptfmt.load(f"{mirror}/step-{step:08d}")["w"].tolist() == [step] * 1000


def test_damage_in_the_store_is_named(server: StoreServer) -> None:
    store = direct_store()
    for damage, rule in ((lambda data: data[:-1] + b"\x55", "E040"), (lambda data: data[:-1], "E014"), (None, "E012")):
        ckptfmt.save(URL, {"model": {"w": np.zeros(1000)}}, overwrite=True)
        shard = next(f"{BUCKET}/{name}" for name in names() if "model" in name)
        content = store.read(shard, 0, 10**6).data
        store.remove(shard)
        if damage is not None:
            store.write(shard, damage(content), remote.Condition.NOTHING)
        finding = next(finding for finding in ckptfmt.verify(URL).findings if finding.level == "error")
        assert (finding.rule, finding.path) == (rule, f"s3://{shard}")
        with pytest.raises(ckptfmt.CorruptError) as caught:
            ckptfmt.load(URL)
        assert caught.value.rule == rule


def test_no_file_and_no_error_holds_a_credential(server: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = (SECRET, os.environ["AWS_ACCESS_KEY_ID"])
    with ckptfmt.Run(tmp_path / "run", mirror=f"s3://{BUCKET}/exp", fingerprint=ckptfmt.Fingerprint(seed=1, config={})) as run:
        run.save(1, {"w": np.zeros(3)})
    stored = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    stored += [direct_store().read(f"{BUCKET}/{name}", 0, 10**6).data for name in names()]
    assert not [content for content in stored for secret in secrets if secret.encode() in content]
    texts = []
    for action in (403, 500, RESET_BEFORE):
        server.breaking = each(action, 1000)
        for use in (lambda: ckptfmt.load(URL), lambda: ckptfmt.save(URL, {}), lambda: ckptfmt.verify(URL)):
            with pytest.raises(OSError, match="s3://bucket") as caught:
                use()
            texts.append("".join(traceback.format_exception(caught.value)))
    assert not [text for text in texts for secret in secrets if secret in text]


def test_a_save_holds_a_few_parts_in_memory_and_not_the_shard(server: StoreServer) -> None:
    under_way: list[int] = []
    largest = [0]
    write_part = remote_files.RemoteWritableFile._send_part

    def watch(file: Any) -> None:
        write_part(file)
        under_way.append(sum(not part.done() for part in file._sent))
        largest[0] = max(largest[0], len(file._part))

    remote_files.RemoteWritableFile._send_part = watch  # type: ignore[method-assign]
    try:
        ckptfmt.save(URL, {"w": np.zeros(10_000_000)})
    finally:
        remote_files.RemoteWritableFile._send_part = write_part  # type: ignore[method-assign]
    assert len(under_way) == 10
    assert max(under_way) <= 4
    assert largest[0] <= remote_files.PART_BYTES
