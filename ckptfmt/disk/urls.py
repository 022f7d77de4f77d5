"""Places that are no paths of this machine: what a URL is, how it is written in messages, and which are refused.

A URL is `protocol://bucket/prefix`, where the protocol is one that fsspec knows. It never holds a password, and no query, because
what stands in a path is printed, logged and stored; credentials come from the environment or the files of their tools.
"""

from __future__ import annotations

import os
import re

LOCAL_PROTOCOLS = ("file", "local")

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_USER = re.compile(r"://[^/@\s]*@")
_QUERY = re.compile(r"[?#].*", re.DOTALL)
# What `pathlib.Path("s3://bucket/name")` becomes.
_FLATTENED = re.compile(r"(s3a?|gs|gcs|az|abfss?|adl|memory|hf|https?|oss|webdav|sftp):/[^/]")


def is_url(path: str) -> bool:
    """Tell whether a path is a URL and no path of this machine."""
    return "://" in path


def location(path: str | os.PathLike[str]) -> str:
    """Return a path as text; a URL without its final slash, one of this machine's files as a plain path.

    Raises:
        ValueError: a URL that cannot be used, or that holds a password or a query.
    """
    text = os.fspath(path)
    if _FLATTENED.match(text):
        raise ValueError(f"{text}: this was a URL before pathlib took one of its slashes away\nPass URLs as str.")
    if not is_url(text):
        return text
    protocol, place = split_url(text)
    return f"/{place.lstrip('/')}" if protocol in LOCAL_PROTOCOLS else f"{protocol}://{place}"


def split_url(url: str) -> tuple[str, str]:
    """Return the protocol of a URL, in lower case, and the bucket with its prefix.

    Raises:
        ValueError: as `location`.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError(f"{without_secrets(url)}: expected a URL such as s3://bucket/prefix")
    protocol, place = match[1].lower(), match[2]
    user, at, _ = place.partition("/")[0].rpartition("@")
    if at and ":" in user:
        raise ValueError(
            f"{without_secrets(url)}: a password does not belong in a URL, which is printed and stored\n"
            "Set it in the environment, or in the configuration of fsspec or of the store's own tools."
        )
    if "?" in place:
        raise ValueError(f"{without_secrets(url)}: expected a URL without a query\nSet options in the configuration of fsspec.")
    components = [component for component in place.split("/") if component]
    if not components or any(component in (".", "..") or "\0" in component for component in components):
        raise ValueError(f"{without_secrets(url)}: expected a bucket and a prefix, such as {protocol}://bucket/prefix")
    return protocol, "/".join(components)


def without_secrets(text: str) -> str:
    """Return a URL without user, password and query, for messages."""
    return _QUERY.sub("?...", _USER.sub("://***@", text)) if is_url(text) else text
