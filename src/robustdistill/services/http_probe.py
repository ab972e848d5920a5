"""One short HTTP request to a server that the user named: nothing is followed elsewhere, and it never takes long."""

from __future__ import annotations

import base64
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any, NamedTuple

SECONDS = 5.0
MOST_BYTES = 64 * 1024


class Answer(NamedTuple):
    """status: of HTTP, 0 where nobody answered (then `text` says why). skew: seconds by which this clock is ahead of
    the server's, None where it did not tell."""

    status: int
    text: str
    skew: float | None = None

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        """The server wants other credentials."""
        return self.status in (401, 403)


class _Stays(urllib.request.HTTPRedirectHandler):
    """A redirection may lead to a host that nobody configured: it is an answer, not a way."""

    def redirect_request(self, *_: Any) -> None:
        return None


def basic(user: str, password: str) -> dict[str, str]:
    """The header of basic auth."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")}


def ask(
    url: str, *, headers: Mapping[str, str] | None = None, method: str = "GET", body: bytes | None = None
) -> Answer:
    """Raises nothing for what a server or a network does."""
    request = urllib.request.Request(url, data=body, method=method, headers=dict(headers or {}))
    before = time.time()
    try:
        with urllib.request.build_opener(_Stays).open(request, timeout=SECONDS) as answer:
            return _answer(answer, answer.status, before)
    except urllib.error.HTTPError as error:
        with error:
            return _answer(error, error.code, before)
    except HTTPException as error:  # its words may repeat the address, with what stands before its @
        return Answer(0, type(error).__name__)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Answer(0, str(getattr(reason, "strerror", None) or reason or type(error).__name__))


def _answer(answer: Any, status: int, before: float) -> Answer:
    date = answer.headers.get("Date")
    try:
        text = answer.read(MOST_BYTES).decode("utf-8", "replace")
    except (OSError, HTTPException):
        text = ""
    return Answer(status, text, skew(date, before))


def skew(date: str | None, before: float) -> float | None:
    """date: the header, in whole seconds. before: when the request was sent. Zero if the answer lies between then and
    now, so that a slow server is no wrong clock."""
    try:
        told = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    there = told.replace(tzinfo=told.tzinfo or UTC).timestamp()
    now = datetime.now(UTC).timestamp()
    return min(0.0, now - there) if there > before - 1 else before - there
