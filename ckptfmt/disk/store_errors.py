"""What the libraries of stores raise, as errors of a disk: which of them pass by themselves, and what of their text may be shown.

Those libraries raise what they like, so errors are told apart by the answer's status and by names. Texts are cut to one line without
credentials: a server may repeat what it was sent.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

from ckptfmt.disk.object_store import ChangedMeanwhileError
from ckptfmt.disk.urls import without_secrets

# Mistakes of a program or of an installation; no error of a store.
PASSED_ON = (ImportError, TypeError, AttributeError, NameError, AssertionError, MemoryError, RecursionError)

_PASSING_CODES = frozenset(
    {
        "BadDigest",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "XAmzContentSHA256Mismatch",
    }
)
_PASSING_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_PASSING_ERRNO = frozenset(
    getattr(errno, name)
    for name in "EAGAIN EBUSY ECONNABORTED ECONNREFUSED ECONNRESET EHOSTUNREACH EIO ENETUNREACH EPIPE EREMOTEIO ETIMEDOUT".split()
    if hasattr(errno, name)
)
# aiohttp's connections and bodies; botocore's connections, timeouts and checksums; http.client's truncated bodies.
_PASSING_NAMES = frozenset(
    (
        "ClientConnectionError ClientPayloadError ConnectionError FlexibleChecksumError HTTPClientError IncompleteRead "
        "IncompleteReadError ResponseParserError"
    ).split()
)
_FINAL = (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, IsADirectoryError, ChangedMeanwhileError)
_NO_CREDENTIALS = ("NoCredentials", "PartialCredentials", "CredentialRetrieval", "ProfileNotFound", "TokenRetrieval", "DefaultCredentials")
_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|ACCESS_KEY|API_KEY|ACCOUNT_KEY", re.IGNORECASE)
_SECRET_OPTION = re.compile(
    r"((?:signature|credential|token|secret|password|authorization|sig|access_?key_?(?:id)?)\s*[=:]\s*)[^\s&;,<>\"']+", re.IGNORECASE
)
_MAX_CHARACTERS = 300
_MIN_SECRET_CHARACTERS = 6


def code_of(error: BaseException) -> str:
    """Return the store's own word for an error, such as "SlowDown"; empty where there is none."""
    for one in _causes(error):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def status_of(error: BaseException) -> int:
    """Return the HTTP status of an error; 0 where there is none."""
    for one in _causes(error):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        for name in ("status", "code"):
            value = getattr(one, name, None)
            if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()):
                return int(value)
    return 0


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def is_passing(error: BaseException) -> bool:
    """Tell whether the same call may succeed a moment later."""
    if isinstance(error, _FINAL):
        return False
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, ConnectionError | TimeoutError | EOFError) or names & _PASSING_NAMES:
        return True
    if code_of(error) in _PASSING_CODES or status_of(error) in _PASSING_STATUS:
        return True
    if code_of(error) or status_of(error):
        return False
    return isinstance(error, OSError) and error.errno in _PASSING_ERRNO


def as_os_error(error: BaseException, url: str, *, tries: int) -> OSError:
    """Return an error of a store as one of a disk, which names the URL."""
    reason = _reason(error)
    if any(name in kind.__name__ for kind in type(error).__mro__ for name in _NO_CREDENTIALS):
        return PermissionError(errno.EACCES, f"no credentials for this store were found: {reason}", url)
    for kind in _FINAL:
        if isinstance(error, kind):
            return kind(error.errno or _ERRNO[kind], reason, url)
    number = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
    if tries > 1:
        reason = f"tried {tries} times, the last time: {reason}"
    return OSError(number, reason, url)


_ERRNO: dict[type[OSError], int] = {
    FileNotFoundError: errno.ENOENT,
    FileExistsError: errno.EEXIST,
    PermissionError: errno.EACCES,
    NotADirectoryError: errno.ENOTDIR,
    IsADirectoryError: errno.EISDIR,
    ChangedMeanwhileError: errno.ESTALE,
}


def _reason(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    line = shown_safely(text.partition("\n")[0])
    return line if isinstance(error, OSError) and line else f"{type(error).__name__}: {line}"


def shown_safely(text: str) -> str:
    """Return text without what the environment holds as credentials, and without what looks like some."""
    for name, value in os.environ.items():
        if len(value) >= _MIN_SECRET_CHARACTERS and _SECRET_NAME.search(name):
            text = text.replace(value, "***")
    return without_secrets(_SECRET_OPTION.sub(r"\1***", text))[:_MAX_CHARACTERS]
