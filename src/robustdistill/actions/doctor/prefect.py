"""Prefect's server, if one is configured."""

from __future__ import annotations

import os
from collections.abc import Iterator
from urllib.parse import urlsplit

from robustdistill.actions.doctor.finding import Case, Finding, check, clock
from robustdistill.actions.doctor.mlflow import fits
from robustdistill.actions.doctor.versions import installed
from robustdistill.errors import BadInput
from robustdistill.services.dvc_remote import shown
from robustdistill.services.http_probe import ask, basic

VARIABLE, AUTH, KEY = "PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_API_KEY"


@check("Prefect")
def examine(case: Case) -> Iterator[Finding]:
    named = os.environ.get(VARIABLE, "")
    if not named:
        yield Finding("Prefect", "ok", "none configured: flows run locally, with a server of their own for that time")
        return
    parts, place = urlsplit(named), shown(named)
    base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    if parts.scheme not in ("http", "https"):
        raise BadInput("not an address", where=f"{VARIABLE}={place}", fix="http://HOST:4200/api")
    health, told = ask(f"{base}/health"), ask(f"{base}/admin/version", headers=_headers())
    if health.status == 0:
        fix = f"start it, or unset {VARIABLE} to run without one"
        yield Finding("Prefect", "FAIL", f"{place} does not answer: {health.text}", fix, service=True)
        return
    yield from _let_in(place, told.status)
    if told.good:
        yield fits("Prefect, version", told.text.strip().strip('"'), installed("prefect"))
    yield from clock("Prefect", health.skew)


def _headers() -> dict[str, str]:
    user, _, password = os.environ.get(AUTH, "").partition(":")
    if user:
        return basic(user, password)
    key = os.environ.get(KEY)
    return {"Authorization": f"Bearer {key}"} if key else {}


def _let_in(place: str, status: int) -> Iterator[Finding]:
    if 200 <= status < 300:
        how = "lets us in" if _headers() else "answers, and asks for no password"
        yield Finding("Prefect", "ok", f"{place} {how}")
    elif status in (401, 403):
        cause = "refuses these credentials" if _headers() else "asks for credentials, and there are none"
        yield Finding("Prefect", "FAIL", f"{place} {cause}", f"export {AUTH}=USER:PASSWORD")
    else:
        fix = f"{VARIABLE} ends with /api: http://HOST:4200/api; else look at the server's log"
        yield Finding("Prefect", "FAIL", f"{place} answers {status}", fix, service=status >= 500)
