"""A real MLflow server with basic auth on SQLite, for tests."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "infra" / "rights" / "mlflow_rights.py"
ADMIN = "admin"
SECONDS = 300.0


@dataclass(frozen=True)
class Running:
    """Where it is, and the passwords by user."""

    address: str
    passwords: dict[str, str]

    def grant(self, *names: str) -> subprocess.CompletedProcess[str]:
        """Runs infra/rights/mlflow_rights.py as a person would."""
        told = {f"{user.upper()}_PASSWORD": word for user, word in self.passwords.items() if user != ADMIN}
        told |= {"MLFLOW_TRACKING_URI": self.address, "MLFLOW_TRACKING_USERNAME": ADMIN}
        told |= {"MLFLOW_TRACKING_PASSWORD": self.passwords[ADMIN]}
        return subprocess.run(
            [sys.executable, str(SCRIPT), *names], env=os.environ | told, capture_output=True, text=True
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _settings(home: Path) -> Path:
    """The settings of infra/, with SQLite in the place of PostgreSQL."""
    shipped = (ROOT / "infra" / "rights" / "mlflow_auth.ini").read_text(encoding="utf-8")
    lines = [line for line in shipped.splitlines() if not line.startswith("database_uri")]
    path = home / "auth.ini"
    path.write_text("\n".join([*lines, f"database_uri = sqlite:///{home / 'auth.db'}"]) + "\n", encoding="utf-8")
    return path


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(f"{address}/health", timeout=2).ok:
                return
        except requests.RequestException:
            time.sleep(0.3)
    raise AssertionError(log.read_text())


@contextmanager
def running(home: Path) -> Iterator[Running]:
    """A fresh server in the folder `home`, stopped with all its children."""
    port, log = _free_port(), home / "server.log"
    passwords = {user: secrets.token_hex(12) for user in (ADMIN, "trainer", "promoter", "reader")}
    told = {
        "MLFLOW_AUTH_CONFIG_PATH": str(_settings(home)),
        "MLFLOW_AUTH_ADMIN_PASSWORD": passwords[ADMIN],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(home / "artifacts")]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=os.environ | told, cwd=home, stdout=output, stderr=output, start_new_session=True
        )
        try:
            _wait(f"http://127.0.0.1:{port}", process, log)
            yield Running(f"http://127.0.0.1:{port}", passwords)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
