"""Amazon S3 and what speaks its language, through s3fs: conditional writes, uploads in parts, ranges with their status.

Calls go to the client of s3fs one by one, because fsspec has no words for conditions and parts. Retries of both libraries below are
turned off: `patient_store` repeats, and knows what it may.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from ckptfmt.disk.fsspec_store import FsspecStore
from ckptfmt.disk.object_store import ChangedMeanwhileError, Condition, Entry, Expected, Listing, ObjectStatus, Piece
from ckptfmt.disk.store_errors import code_of, status_of

# Of both libraries below, unless the user's configuration of fsspec says otherwise.
CLIENT_OPTIONS = {"connect_timeout": 10, "read_timeout": 60, "max_pool_connections": 32, "retries": {"total_max_attempts": 1}}

_TOTAL = re.compile(r"bytes [0-9]+-[0-9]+/([0-9]+)")


class S3Store(FsspecStore):
    """A store that speaks S3."""

    def __init__(self, file_system: Any) -> None:
        super().__init__(file_system)
        file_system.retries = 1
        # Here and not by the first calls, of which several may come at a time.
        file_system.connect()

    def _call(self, method: str, key: str, **arguments: Any) -> Any:
        bucket, name = _split(key)
        return self._fs.call_s3(method, Bucket=bucket, Key=name, **arguments)

    def status(self, key: str) -> ObjectStatus:
        """Ask for an object's status."""
        answer = self._call("head_object", key)
        return ObjectStatus(int(answer["ContentLength"]), answer["ETag"], answer.get("LastModified"))

    def read(self, key: str, offset_bytes: int, size_bytes: int) -> Piece:
        """Read a range."""
        from fsspec.asyn import sync

        try:
            data, answer = sync(self._fs.loop, self._get, key, f"bytes={offset_bytes}-{offset_bytes + size_bytes - 1}")
        except OSError as error:
            if code_of(error) != "InvalidRange" and status_of(error) != 416:
                raise
            return Piece(b"", self.status(key))
        total = _TOTAL.fullmatch(answer.get("ContentRange") or "")
        # A server that knows no ranges sends everything.
        total_bytes = int(total[1]) if total else len(data)
        if not total:
            data = data[offset_bytes : offset_bytes + size_bytes]
        return Piece(data, ObjectStatus(total_bytes, answer["ETag"], answer.get("LastModified")))

    async def _get(self, key: str, wanted: str) -> tuple[bytes, Any]:
        bucket, name = _split(key)
        answer = await self._fs._call_s3("get_object", Bucket=bucket, Key=name, Range=wanted)
        async with answer["Body"] as body:
            return await body.read(), answer

    def write(self, key: str, data: bytes | bytearray, expected: Expected) -> str:
        """Write an object whole, in one conditional request."""
        try:
            answer = self._call("put_object", key, Body=bytes(data), **_condition(expected))
        except OSError as error:
            _raise_if_refused(error, key, expected)
            raise
        return str(answer["ETag"])

    def begin_upload(self, key: str) -> _S3Upload:
        """Begin to write an object in parts."""
        return _S3Upload(self, key, self._call("create_multipart_upload", key)["UploadId"])

    def list(self, prefix: str, *, is_deep: bool = False) -> Listing:
        """List what lies below a prefix."""
        bucket, name = _split(prefix)
        below = f"{name}/" if name else ""
        arguments = {"Bucket": bucket, "Prefix": below} | ({} if is_deep else {"Delimiter": "/"})
        entries: list[Entry] = []
        while True:
            answer = self._fs.call_s3("list_objects_v2", **arguments)
            for item in answer.get("Contents", ()):
                if item["Key"] != below:
                    entries.append(Entry(item["Key"][len(below) :], int(item["Size"]), item.get("LastModified"), is_prefix=False))
            for item in answer.get("CommonPrefixes", ()):
                entries.append(Entry(item["Prefix"][len(below) :].rstrip("/"), 0, None, is_prefix=True))
            if not answer.get("IsTruncated"):
                return Listing(entries, _now_of(answer))
            arguments["ContinuationToken"] = answer["NextContinuationToken"]

    def has_any(self, prefix: str) -> bool:
        """Tell whether there is any object below a prefix."""
        bucket, name = _split(prefix)
        answer = self._fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=f"{name}/" if name else "", MaxKeys=1)
        return bool(answer.get("Contents"))

    def remove(self, key: str) -> None:
        """Remove an object."""
        self._call("delete_object", key)

    def abort_uploads(self, prefix: str, *, before: datetime) -> None:
        """Give up what was begun below a prefix before a time and is not complete."""
        bucket, name = _split(prefix)
        answer = self._fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{name}/" if name else "")
        for item in answer.get("Uploads", ()):
            if item["Initiated"] < before:
                _S3Upload(self, f"{bucket}/{item['Key']}", item["UploadId"]).abort()


class _S3Upload:
    """An upload in parts."""

    def __init__(self, store: S3Store, key: str, upload_id: str) -> None:
        self._store = store
        self._key = key
        self._id = upload_id

    def write_part(self, number: int, data: bytes | bytearray) -> str:
        """Write a part."""
        return str(self._store._call("upload_part", self._key, UploadId=self._id, PartNumber=number, Body=bytes(data))["ETag"])

    def complete(self, tokens: Sequence[str], expected: Expected) -> None:
        """Make the object appear."""
        parts = [{"PartNumber": number, "ETag": token} for number, token in enumerate(tokens, 1)]
        try:
            self._store._call(
                "complete_multipart_upload", self._key, UploadId=self._id, MultipartUpload={"Parts": parts}, **_condition(expected)
            )
        except OSError as error:
            _raise_if_refused(error, self._key, expected)
            raise

    def abort(self) -> None:
        """Give the parts up."""
        try:
            self._store._call("abort_multipart_upload", self._key, UploadId=self._id)
        except FileNotFoundError:
            return


def _split(key: str) -> tuple[str, str]:
    bucket, _, name = key.partition("/")
    return bucket, name


def _condition(expected: Expected) -> dict[str, str]:
    if isinstance(expected, str):
        return {"IfMatch": expected}
    return {"IfNoneMatch": "*"} if expected is Condition.NOTHING else {}


def _raise_if_refused(error: OSError, key: str, expected: Expected) -> None:
    """Raise what an error means if it says that the condition of a write was not met."""
    if status_of(error) == 412 or code_of(error) == "PreconditionFailed":
        raise (FileExistsError if expected is Condition.NOTHING else ChangedMeanwhileError)(key) from None
    if isinstance(expected, str) and code_of(error) in ("NoSuchKey", "404"):
        raise ChangedMeanwhileError(key) from None


def _now_of(answer: Any) -> datetime:
    """Return the time by the server's clock."""
    try:
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    except (KeyError, TypeError, ValueError):
        return datetime.now(UTC)
