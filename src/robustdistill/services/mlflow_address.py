"""Where MLflow is, how to speak to it without telling others, and how to speak of it without telling secrets."""

from __future__ import annotations

import functools
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar
from urllib.parse import urlsplit

from robustdistill.errors import BadInput, ServiceFailed, ServiceRefused

P = ParamSpec("P")
T = TypeVar("T")

VARIABLE = "MLFLOW_TRACKING_URI"
CONNECT_SECONDS = 5.0
RIGHTS = "export MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD of a user who may do this"
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
REFUSALS = ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")  # MLflow's names of 403 and 401
SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")

FORCED = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",  # MLflow heeds no other spelling
    "MLFLOW_MODEL_CATALOG_URI": "",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",  # else a model takes over the requirements of the project around it
    "MLFLOW_LOG_UV_FILES": "false",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for answers
}
# The mirror tries again by itself, so one call gives up soon; MLflow's own defaults wait for minutes.
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


def configure_environment() -> None:
    """Telemetry, catalogue look-ups and pickles off, short time limits. Comes before the first `import mlflow`."""
    os.environ.update(FORCED)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


@dataclass(frozen=True)
class Address:
    """A tracking URI. It may hold a password, so only `shown` and `redact` may reach a person, a log or a file."""

    uri: str

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"

    @classmethod
    def find(cls, uri: str | None, work: Path) -> Address:
        """`uri`, else MLFLOW_TRACKING_URI, else a database of the workspace's own. Raises BadInput for file stores."""
        address = cls(uri or os.environ.get(VARIABLE) or f"sqlite:///{work.resolve() / 'mlflow.db'}")
        try:
            _ = urlsplit(address.uri).port
        except ValueError as error:  # its text holds what stands before the port: perhaps a password
            fix = "write / @ : ? # in a user's name or password as %2F %40 %3A %3F %23"
            raise BadInput("not an address", where=f"{VARIABLE}={address.shown}", fix=fix) from error
        if address.scheme not in (*PORTS, "sqlite"):
            raise BadInput(
                "MLflow's registry needs a database or a server",
                where=f"{VARIABLE}={address.shown}",
                fix="use http(s)://…, postgresql://… or sqlite:///…, or unset it to keep records in the workspace",
            )
        return address

    @property
    def scheme(self) -> str:
        """Without the driver: `postgresql` of postgresql+psycopg2."""
        return self.uri.partition(":")[0].partition("+")[0].lower() if ":" in self.uri else ""

    @property
    def database(self) -> Path | None:
        """The file of an SQLite store, else None."""
        return Path(self.uri.partition(":///")[2]) if self.scheme == "sqlite" else None

    @property
    def shown(self) -> str:
        return re.sub(r"//.*@", "//***@", self.uri).partition("?")[0]

    def redact(self, text: str) -> str:
        """`text` without the URI's user and password, nor those of the environment."""
        parts = urlsplit(self.uri)
        user = parts.netloc.rpartition("@")[0]
        query = [value for item in parts.query.split("&") if (value := item.partition("=")[2])]
        secrets = [self.uri, user, parts.password, *query, *(os.environ.get(name) for name in SECRET_VARIABLES)]
        for secret in sorted({item for item in secrets if item}, key=len, reverse=True):
            text = text.replace(secret, self.shown if secret == self.uri else "***")
        return text

    def require_reachable(self) -> None:
        """Raises ServiceFailed within seconds if nobody listens there."""
        parts = urlsplit(self.uri)
        if self.scheme == "sqlite" or not parts.hostname:
            return
        try:
            with socket.create_connection((parts.hostname, parts.port or PORTS[self.scheme]), timeout=CONNECT_SECONDS):
                return
        except OSError as error:
            raise ServiceFailed(
                f"MLflow does not answer: {error.strerror or error}",
                where=self.shown,
                fix=f"start it, or unset {VARIABLE} to keep records in the workspace",
            ) from None


class Reaches(Protocol):
    @property
    def address(self) -> Address: ...


S = TypeVar("S", bound=Reaches)


@contextmanager
def failures(address: Address) -> Iterator[None]:
    """What MLflow, its database, the network or the disk raise becomes ServiceFailed, with secrets cut out; what this
    user may not do, ServiceRefused."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, OSError) as error:
        text = address.redact(" ".join(str(error).split()))[:600]
        if code(error) in REFUSALS:  # without `from`, as below: its own traceback tells the secrets
            raise ServiceRefused(f"MLflow: {text}", where=address.shown, fix=RIGHTS) from None
        raise ServiceFailed(f"MLflow: {text}", where=address.shown) from None


def guarded(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """A method of something with an address, run under `failures`."""

    @functools.wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with failures(self.address):
            return method(self, *args, **kwargs)

    return call


def code(error: Exception) -> str:
    """MLflow's own name of an error, such as RESOURCE_DOES_NOT_EXIST."""
    return str(getattr(error, "error_code", ""))
