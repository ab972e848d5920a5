"""Servers that answer as MLflow, Prefect and S3 do to the few requests of the doctor, and remember what was asked."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, str] | tuple[int, str, dict[str, str]]


@dataclass
class Fake:
    """answer: (method, path, headers, body) -> (status, text). ahead: seconds by which its clock is."""

    answer: Callable[[str, str, Any, bytes], Reply]
    ahead: float = 0.0
    delay: float = 0.0
    asked: list[tuple[str, str]] = field(default_factory=list)
    address: str = ""


@contextmanager
def serving(fake: Fake) -> Iterator[Fake]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            time.sleep(fake.delay)
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            fake.asked.append((self.command, self.path))
            status, text, *more = fake.answer(self.command, self.path, self.headers, body)
            self.send_response(status)
            for name, value in (more[0] if more else {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_PUT = do_DELETE = do_HEAD = handle_one

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(time.time() + fake.ahead)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()


def mlflow(version: str, *, user: str = "", password: str = "", may: str = "EDIT") -> Fake:
    """may: READ, EDIT or MANAGE, on the artifacts of experiment 7."""
    kept: set[str] = set()

    def answer(method: str, path: str, headers: Any, body: bytes) -> Reply:
        wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        if user and headers.get("Authorization") != wanted:
            return 401, "You are not authenticated."
        if path == "/version":
            return 200, version
        if "get-by-name" in path:
            return 200, '{"experiment": {"experiment_id": "7"}}'
        if "mlflow-artifacts" in path:
            if (method == "DELETE" and may != "MANAGE") or (method == "PUT" and may == "READ"):
                return 403, "Permission denied"
            if method == "PUT":
                kept.add(path)
            else:
                kept.difference_update({each for each in kept if each.startswith(path)})
            return 200, "{}"
        return 200, "{}"

    fake = Fake(answer)
    fake.kept = kept  # type: ignore[attr-defined]
    return fake


def prefect(version: str, *, auth: str = "") -> Fake:
    def answer(method: str, path: str, headers: Any, body: bytes) -> Reply:
        if path == "/api/health":
            return 200, "true"
        if auth and headers.get("Authorization") != "Basic " + base64.b64encode(auth.encode()).decode():
            return 401, '{"exception_message":"Unauthorized"}'
        return (200, f'"{version}"') if path == "/api/admin/version" else (404, "{}")

    return Fake(answer)


KEY = "key-of-somebody"
LISTED = '<?xml version="1.0"?><ListBucketResult><Name>b</Name><KeyCount>0</KeyCount></ListBucketResult>'


def s3(*, may: str = "list put get delete", versions: bool = False, bucket: str = "bucket") -> Fake:
    """One bucket, for whoever has KEY. versions: as of a bucket that keeps them."""
    kept: dict[str, bytes] = {}
    rights = may.split()

    def refused(code: str, status: int = 403) -> Reply:
        return status, f"<Error><Code>{code}</Code><Message>m</Message></Error>", {"Content-Type": "application/xml"}

    def answer(method: str, path: str, headers: Any, body: bytes) -> Reply:
        name, _, query = path.partition("?")
        if f"Credential={KEY}/" not in headers.get("Authorization", ""):
            return refused("InvalidAccessKeyId")
        if not name.startswith(f"/{bucket}"):
            return refused("NoSuchBucket", 404)
        if "list-type" in query:
            return (200, LISTED) if "list" in rights else refused("AccessDenied")
        if {"PUT": "put", "GET": "get", "DELETE": "delete"}[method] not in rights:
            return refused("AccessDenied")
        return stored(method, name, query, headers, body)

    def stored(method: str, name: str, query: str, headers: Any, body: bytes) -> Reply:
        numbered = {"x-amz-version-id": f"v{len(fake.asked)}"} if versions else {}
        if method == "PUT":
            told = headers.get("Content-MD5")
            if told and base64.b64decode(told) != hashlib.md5(body).digest():
                return refused("BadDigest", 400)
            kept[name + numbered.get("x-amz-version-id", "")] = body
            return 200, "", numbered
        if method == "GET":
            return 200, "probe"
        if versions and "versionId" not in query:
            kept[f"{name}{numbered['x-amz-version-id']}"] = b"marker"
            return 204, "", numbered
        kept.pop(name + query.partition("versionId=")[2].partition("&")[0], None)
        return 204, ""

    fake = Fake(answer)
    fake.kept = kept  # type: ignore[attr-defined]
    return fake
