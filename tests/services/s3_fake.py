"""As much of S3 as an inbox asks of it, over HTTP: ListObjectsV2 by pages, and GetObject with If-Match."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

PAGE = 2  # keys in an answer


class Bucket:
    """One bucket. refuses: an error code for every question. before_get: called with a key before it is handed out."""

    def __init__(self, name: str) -> None:
        self.name, self.objects = name, dict[str, bytes]()
        self.refuses, self.asked = "", list[str]()
        self.before_get: Callable[[str], None] = lambda key: None
        self.endpoint = ""


def etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


@contextmanager
def served(bucket: Bucket) -> Iterator[Bucket]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            name, _, key = unquote(parts.path).removeprefix("/").partition("/")
            bucket.asked.append(key or "list")
            if name != bucket.name:
                self._error(404, "NoSuchBucket")
            elif bucket.refuses:
                self._error(403, bucket.refuses)
            elif not key:
                self._list({name: values[0] for name, values in parse_qs(parts.query).items()})
            else:
                bucket.before_get(key)
                self._object(key)

        def _list(self, query: dict[str, str]) -> None:
            keys = sorted(key for key in bucket.objects if key.startswith(query.get("prefix", "")))
            start = int(query.get("continuation-token", "0"))
            rows = "".join(
                f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>"
                f"<ETag>{escape(etag(bucket.objects[key]))}</ETag><Size>{len(bucket.objects[key])}</Size></Contents>"
                for key in keys[start : start + PAGE]
            )
            more = start + PAGE < len(keys)
            token = f"<NextContinuationToken>{start + PAGE}</NextContinuationToken>" if more else ""
            head = f"<Name>{bucket.name}</Name><IsTruncated>{str(more).lower()}</IsTruncated>{token}"
            self._answer(200, f"<ListBucketResult>{head}{rows}</ListBucketResult>".encode())

        def _object(self, key: str) -> None:
            content = bucket.objects.get(key)
            if content is None:
                self._error(404, "NoSuchKey")
            elif self.headers.get("If-Match") != etag(content):
                self._error(412, "PreconditionFailed")
            else:
                self._answer(200, content)

        def _error(self, status: int, code: str) -> None:
            self._answer(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    bucket.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield bucket
    finally:
        server.shutdown()
        server.server_close()
