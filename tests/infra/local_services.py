"""infra/'s PostgreSQL and S3 with users as infra/compose.yaml has them, for tests of rights."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tools

ROLES = ("mlflow", "trainer", "promoter", "reader")


def _free_port(width: int) -> int:
    """The first of `width` ports in a row that were free just now."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first = int(probe.getsockname()[1])
        try:
            for port in range(first, first + width):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            continue
        return first


def _call(script: str, *arguments: str, settings: dict[str, str]) -> str:
    done = subprocess.run(
        [str(tools.INFRA / script), *arguments], env=os.environ | settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def exported(text: str) -> dict[str, str]:
    """What lines of `export NAME=VALUE …` export."""
    return dict(part.split("=", 1) for part in shlex.split(text) if "=" in part)


@contextmanager
def _running(script: str, settings: dict[str, str], place: Path) -> Iterator[None]:
    _call(script, "install", settings=settings)
    try:
        _call(script, "start", settings=settings)
        yield
    finally:
        _call(script, "stop", settings=settings)
        shutil.rmtree(place, ignore_errors=True)


def _place() -> Path:
    """A folder through which PostgreSQL's own user may pass; pytest's are closed to it."""
    place = Path(tempfile.mkdtemp(prefix="robustdistill-rights-"))
    place.chmod(0o711)
    return place


@contextmanager
def postgres() -> Iterator[dict[str, str]]:
    """The superuser's variables of a fresh PostgreSQL."""
    place = _place()
    settings = {
        "POSTGRES_HOME": str(place / "postgres"),
        "POSTGRES_PORT": str(_free_port(1)),
        "POSTGRES_DATABASES": "x",
    }
    with _running("postgres.sh", settings, place):
        yield exported(_call("postgres.sh", "env", "admin", settings=settings))


@contextmanager
def s3() -> Iterator[dict[str, dict[str, str]]]:
    """The variables of `owner` and of each role, on a fresh S3; a user is called NAME-user there."""
    place = _place()
    names = [f"{name}-user" for name in ("owner", *ROLES)]
    ports = {"S3_PORT": str(_free_port(1)), "S3_CLUSTER_PORT": str(_free_port(41))}
    settings = {
        "S3_HOME": str(place / "s3"),
        "S3_BUCKETS": " ".join(names),
        "S3_ROLES": "",
        "S3_BYTES": "2147483648",
        **ports,
    }
    with _running("s3.sh", settings, place):
        yield {name.removesuffix("-user"): exported(_call("s3.sh", "env", name, settings=settings)) for name in names}
