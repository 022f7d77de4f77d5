"""A real S3 server on the loopback, and in front of it a proxy that counts requests and breaks those that a test tells it to."""

from __future__ import annotations

import http.client
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

SECRET = "TopSecretAccessKeyOfATest0123456789"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIDOFATEST0123456", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
BUCKET = "bucket"


@dataclass(frozen=True)
class Request:
    """One request as the proxy sees it; `kind` is S3's word for it."""

    kind: str
    key: str


# What happens to a request: passed on (None), or an answer with this status, or one of the words below.
Breaking = Callable[[Request], "int | str | None"]
RESET_BEFORE, RESET_AFTER, TRUNCATE, SLOW = "reset before", "reset after", "truncate", "slow"


@dataclass
class StoreServer:
    """The proxy's side of a test: what came, and what is to be broken."""

    url: str
    direct_url: str
    requests: list[Request] = field(default_factory=list)
    breaking: Breaking = lambda _: None

    def counted(self) -> dict[str, int]:
        """Return how many requests of each kind came since the last call, and forget them."""
        seen, self.requests = self.requests, []
        return {kind: sum(request.kind == kind for request in seen) for kind in sorted({request.kind for request in seen})}

    def environment(self) -> dict[str, str]:
        """Return what a program needs to use the store through the proxy."""
        return CREDENTIALS | {"AWS_ENDPOINT_URL": self.url, "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}


def each(action: int | str, times: int, *kinds: str) -> Breaking:
    """Break the first `times` requests of these kinds, or of all."""
    left = [times]

    def breaking(request: Request) -> int | str | None:
        if left[0] and (not kinds or request.kind in kinds):
            left[0] -= 1
            return action
        return None

    return breaking


def kind_of(method: str, target: str, headers: Any) -> Request:
    """Name a request as S3 does."""
    parts = urlsplit(target)
    query = parse_qs(parts.query, keep_blank_values=True)
    key = parts.path.removeprefix(f"/{BUCKET}").lstrip("/")
    if method == "PUT":
        kind = "UploadPart" if "partNumber" in query else "CopyObject" if "x-amz-copy-source" in headers else "PutObject"
    elif method == "POST":
        kind = "CreateMultipartUpload" if "uploads" in query else "CompleteMultipartUpload" if "uploadId" in query else "DeleteObjects"
    elif method == "DELETE":
        kind = "AbortMultipartUpload" if "uploadId" in query else "DeleteObject"
    elif method == "HEAD":
        kind = "HeadObject"
    else:
        kind = "ListMultipartUploads" if "uploads" in query else "GetObject" if key else "ListObjects"
    return Request(kind, key)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Proxy

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = kind_of(self.command, self.path, self.headers)
        plan = self.server.plan
        plan.requests.append(request)
        action = plan.breaking(request)
        if action == RESET_BEFORE:
            return self._reset()
        if isinstance(action, int):
            return self._answer(action, [], b"<Error><Code>InternalError</Code><Message>a test</Message></Error>")
        status, headers, data = self._forward(body)
        if action == RESET_AFTER:
            return self._reset()
        if action == SLOW:
            time.sleep(0.5)
        self._answer(status, headers, data, sent_bytes=len(data) // 2 if action == TRUNCATE else None)
        if action == TRUNCATE:
            self._reset()
        return None

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_any  # noqa: N815

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(*self.server.target)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("connection", "expect")}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        # The server calls every upload as old as this; they are all new.
        data = answer.read().replace(b"2010-11-10T20:48:33.000Z", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z").encode())
        connection.close()
        return answer.status, answer.getheaders(), data

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, *, sent_bytes: int | None = None) -> None:
        self.send_response_only(status)
        lengths = [value for name, value in headers if name.lower() == "content-length"]
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", lengths[0] if self.command == "HEAD" and lengths else str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data if sent_bytes is None else data[:sent_bytes])
        self.wfile.flush()

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):
            return


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True
    plan: StoreServer
    target: tuple[str, int]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: connections are broken on purpose."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_store() -> Iterator[StoreServer]:
    """Run the server with an empty bucket, and the proxy."""
    port = _free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    proxy = _Proxy(("127.0.0.1", 0), _Handler)
    # Started first: what was never started cannot be shut down.
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        _wait_for(port, server)
        _create_bucket(port)
        proxy.target = ("127.0.0.1", port)
        proxy.plan = StoreServer(f"http://127.0.0.1:{proxy.server_address[1]}", f"http://127.0.0.1:{port}")
        yield proxy.plan
    finally:
        proxy.shutdown()
        proxy.server_close()
        server.terminate()
        server.wait()


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if server.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError("the server of moto did not start")


def _create_bucket(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request(
        "PUT", f"/{BUCKET}", headers={"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"}
    )
    answer = connection.getresponse()
    if answer.status != 200:
        raise RuntimeError(f"no bucket: {answer.status} {answer.read()!r}")
    connection.close()
