"""MLflow's server or database: does it answer, does it let us in, does its version fit?"""

from __future__ import annotations

import json
import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from robustdistill.actions.doctor.finding import Case, Finding, check, clock
from robustdistill.actions.doctor.versions import installed
from robustdistill.services.http_probe import Answer, ask, basic
from robustdistill.services.mlflow_address import VARIABLE, Address

USER, PASSWORD, TOKEN = (f"MLFLOW_TRACKING_{name}" for name in ("USERNAME", "PASSWORD", "TOKEN"))
MODELS = "api/2.0/mlflow/registered-models/search?max_results=1"
ARTIFACTS = "api/2.0/mlflow-artifacts/artifacts"


@check("MLflow")
def examine(case: Case) -> Iterator[Finding]:
    address = Address.find(None, case.work)
    if address.database is not None:
        yield _file(address.database, named=bool(os.environ.get(VARIABLE)))
    elif address.scheme not in ("http", "https"):
        address.require_reachable()
        yield Finding("MLflow", "ok", f"the database at {address.shown} can be reached; it was not asked more")
    else:
        yield from _server(case, address)


def _file(database: Path, *, named: bool) -> Finding:
    if not database.exists():
        where = f"{database} is not there yet" if named else "none configured: records are kept in the workspace"
        return Finding("MLflow", "ok", f"{where}; the first run makes it")
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True, timeout=2.0)) as connection:
            connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        return Finding("MLflow", "FAIL", f"{database}: {error}", "bring it back from a backup", service=True)
    if not os.access(database, os.W_OK) or not os.access(database.parent, os.W_OK):
        return Finding("MLflow", "FAIL", f"{database} cannot be written", "see who owns it")
    return Finding("MLflow", "ok", f"records are kept in {database}")


def _headers() -> dict[str, str]:
    """What MLflow's own client sends: a user and password, else a token."""
    user, password, token = (os.environ.get(name, "") for name in (USER, PASSWORD, TOKEN))
    if user and password:
        return basic(user, password)
    return {"Authorization": f"Bearer {token}"} if token else {}


def _server(case: Case, address: Address) -> Iterator[Finding]:
    parts = urlsplit(address.uri)
    host = parts.netloc.rpartition("@")[2]
    base = f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
    own = basic(unquote(parts.username), unquote(parts.password or "")) if parts.username else {}
    headers = own or _headers()
    told = ask(f"{base}/version", headers=headers)
    if told.status == 0:
        fix = f"start it, or unset {VARIABLE} to keep records in the workspace"
        yield Finding("MLflow", "FAIL", f"{address.shown} does not answer: {told.text}", fix, service=True)
        return
    listed = ask(f"{base}/{MODELS}", headers=headers)
    yield _let_in(address, listed, asked_as=bool(headers))
    if told.good:
        yield fits("MLflow, version", told.text.strip(), installed("mlflow"))
    yield from clock("MLflow", told.skew if told.skew is not None else listed.skew)
    if case.write and listed.good:
        yield _store(base, headers, _experiment(case, base, headers))


def _let_in(address: Address, answer: Answer, *, asked_as: bool) -> Finding:
    if answer.good:
        how = "lets us in" if asked_as else "answers, and asks for no password"
        return Finding("MLflow", "ok", f"{address.shown} {how}")
    if answer.status == 401:
        fix = f"export {USER} and {PASSWORD} of a user who may read there"
        cause = "refuses these credentials" if asked_as else "asks for a user and password, and there are none"
        return Finding("MLflow", "FAIL", f"{address.shown} {cause}", fix)
    if answer.status == 403:
        fix = "its --allowed-hosts has to name this address, or the user may not read"
        return Finding("MLflow", "FAIL", f"{address.shown} refuses (403)", fix)
    fix = f"is {VARIABLE} the address of an MLflow server? then look at its log"
    return Finding("MLflow", "FAIL", f"{address.shown} answers {answer.status}", fix, service=answer.status >= 500)


def fits(name: str, server: str, client: str) -> Finding:
    """A server's version against the client's: another minor is worth a look, another major is none of its kind."""
    theirs, ours = (version.split(".")[:2] for version in (server, client))
    found = f"server {server[:40]}, client {client}"
    if theirs == ours:
        return Finding(name, "ok", found)
    level = "FAIL" if theirs[0] != ours[0] else "warn"
    return Finding(name, level, found, f"run the server in version {client}, the one that was tested")  # type: ignore[arg-type]


def _experiment(case: Case, base: str, headers: dict[str, str]) -> str:
    """The id of the model's experiment, "" if there is none: rights on artifacts are those of an experiment."""
    if case.workspace is None:
        return ""
    name = quote(case.workspace.name, safe="")
    answer = ask(f"{base}/api/2.0/mlflow/experiments/get-by-name?experiment_name={name}", headers=headers)
    try:
        return str(json.loads(answer.text)["experiment"]["experiment_id"])
    except (ValueError, KeyError, TypeError):
        return ""


def _store(base: str, headers: dict[str, str], experiment: str) -> Finding:
    """Writes a small artifact through the server and removes it. Removing is asked first: whoever may not do that would
    leave it behind."""
    name = "MLflow, artifacts"
    if not experiment:
        return Finding(name, "ok", "not tried: the model has no experiment there yet")
    folder = f"{base}/{ARTIFACTS}/{experiment}/doctor-{uuid.uuid4().hex}"
    if ask(f"{folder}/probe", headers=headers, method="DELETE").refused:
        return Finding(name, "ok", "not tried: this user may not delete there, so the probe would stay")
    put = ask(f"{folder}/probe", headers=headers, method="PUT", body=b"probe")
    if put.refused:
        fix = "fine for a reader; a trainer needs EDIT on the experiment (infra/rights)"
        return Finding(name, "warn", "this user may not write there", fix)
    gone = ask(folder, headers=headers, method="DELETE")
    if not put.good:
        fix = "look at the server's log, and at the S3 behind it"
        return Finding(name, "FAIL", f"writing gave {put.status}", fix, service=True)
    if not gone.good:
        fix = "remove it by hand"
        return Finding(name, "warn", f"written, but removing {folder.rpartition('/')[2]} gave {gone.status}", fix)
    return Finding(name, "ok", "written and removed again, through the server")
