"""Errors of stores: what is repeated, what is said, and that no secret is said."""

from __future__ import annotations

import copy
import errno

import pytest

from ckptfmt.disk import patient_store
from ckptfmt.disk.object_store import ChangedMeanwhileError, Condition
from ckptfmt.disk.patient_store import Patience, PatientStore
from ckptfmt.disk.remote import RemoteDisk
from ckptfmt.disk.store_errors import as_os_error, is_passing, shown_safely
from ckptfmt.disk.urls import location, without_secrets
from tests.fake_store import FakeStore


class AnswerError(Exception):
    """An error as botocore makes it: with the answer of the server."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(f"An error occurred ({code}): {message}")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


class ClientPayloadError(Exception):
    """The name that aiohttp gives to a body that is cut off."""


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        AnswerError(500, "InternalError"),
        AnswerError(503, "SlowDown"),
        AnswerError(400, "RequestTimeout"),
        AnswerError(409, "ConditionalRequestConflict"),
        caused(OSError(errno.EINVAL, "?"), AnswerError(400, "BadDigest")),
        caused(ClientPayloadError(), AnswerError(400, "")),
        ConnectionResetError(),
        TimeoutError(),
        OSError(errno.EIO, "cut off"),
    ],
)
def test_what_passes_by_itself_is_repeated(error: Exception) -> None:
    assert is_passing(error)


@pytest.mark.parametrize(
    "error",
    [
        AnswerError(403, "AccessDenied"),
        AnswerError(501, "NotImplemented"),
        AnswerError(400, "InvalidRequest"),
        FileNotFoundError(),
        PermissionError(),
        FileExistsError(),
        ChangedMeanwhileError(),
        ValueError(),
        OSError(errno.ENOSPC, "full"),
    ],
)
def test_what_stays_as_it_is_is_not_repeated(error: Exception) -> None:
    assert not is_passing(error)


def test_an_error_names_the_url_and_how_often_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_store, "PATIENCE", Patience(attempts=3, first_seconds=0.0))
    store = FakeStore()
    store.fail(AnswerError(503, "SlowDown", "reduce your rate"), times=99)
    with pytest.raises(OSError, match=r"tried 3 times, the last time: AnswerError: .*reduce your rate") as caught:
        PatientStore(store, "fake").read("bucket/x", 0, 1)
    assert caught.value.filename == "fake://bucket/x"
    assert caught.value.__suppress_context__
    assert len(store.calls) == 3


def test_patience_ends_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_store, "PATIENCE", Patience(attempts=10**6, first_seconds=0.01, longest_seconds=0.01, total_seconds=0.1))
    store = FakeStore()
    store.fail(TimeoutError(), times=10**9)
    with pytest.raises(OSError, match="tried"):
        PatientStore(store, "fake").status("bucket/x")
    assert len(store.calls) < 50


def test_a_write_whose_answer_was_lost_is_known_as_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_store, "PATIENCE", Patience(attempts=3, first_seconds=0.0))
    store = FakeStore()
    store.fail(ConnectionResetError(), kind="write", is_after=True)
    version = PatientStore(store, "fake").write("bucket/x", b"mine", Condition.NOTHING)
    assert store.objects["bucket/x"].version == version
    store.fail(ConnectionResetError(), kind="write", is_after=True)
    assert PatientStore(store, "fake").write("bucket/x", b"newer", version) == store.objects["bucket/x"].version
    store.fail(ConnectionResetError(), kind="write")
    with pytest.raises(FileExistsError):
        PatientStore(store, "fake").write("bucket/x", b"other", Condition.NOTHING)


def test_an_answer_that_is_cut_off_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_store, "PATIENCE", Patience(attempts=3, first_seconds=0.0))
    store = FakeStore()
    store.write("bucket/x", b"0123456789", Condition.ANYTHING)
    read = store.read
    cut = [True]

    def cut_once(key: str, offset: int, size: int):  # type: ignore[no-untyped-def]
        piece = read(key, offset, size)
        return type(piece)(piece.data[:-1], piece.status) if cut and cut.pop() else piece

    store.read = cut_once  # type: ignore[method-assign]
    assert PatientStore(store, "fake").read("bucket/x", 2, 5).data == b"23456"


def test_no_text_repeats_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    monkeypatch.setenv("MY_ACCOUNT_KEY", "hunter2hunter2")
    texts = (
        "The key wJalrXUtnFEMI/K7MDENG does not exist",
        "https://host/x?X-Amz-Signature=wJalrXUtnFEMI%2FK7MDENG&X-Amz-Credential=AKID123",
        "Authorization: hunter2hunter2",
        "https://me:wJalrXUtnFEMI/K7MDENG@host/x",
        "token=other-secret-text;",
    )
    for text in texts:
        shown = shown_safely(text)
        assert not [secret for secret in ("wJalr", "hunter2", "AKID123", "other-secret") if secret in shown], shown
    error = as_os_error(AnswerError(403, "SignatureDoesNotMatch", texts[0]), "s3://bucket/x", tries=1)
    assert "wJalr" not in repr(error)
    assert type(copy.deepcopy(error)) is OSError


def test_missing_credentials_are_said_to_be_missing() -> None:
    class NoCredentialsError(Exception):
        pass

    error = as_os_error(NoCredentialsError("Unable to locate credentials"), "s3://bucket/x", tries=1)
    assert isinstance(error, PermissionError)
    assert "no credentials for this store were found" in str(error)


def test_a_store_that_cannot_be_opened_is_an_error_of_a_disk() -> None:
    class ProfileNotFound(Exception):
        pass

    def fail(protocol: str) -> FakeStore:
        raise ProfileNotFound("The config profile (work) could not be found")

    with pytest.raises(PermissionError, match=r"no credentials.*profile \(work\)"):
        RemoteDisk(fail).open_directory("fake://bucket/x")


def test_a_location_is_a_path_or_a_url_without_its_last_slash() -> None:
    assert location("S3://bucket//a/b/") == "s3://bucket/a/b"
    assert location("runs/exp1/") == "runs/exp1/"
    assert location("file:///tmp/x/") == "/tmp/x"
    assert without_secrets("s3://me:pw@bucket/x?sig=1") == "s3://***@bucket/x?..."
    assert without_secrets("what?/no url") == "what?/no url"
