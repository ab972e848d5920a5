"""prefect.yaml on a server of its own, with a real worker."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import scenario

pytestmark = pytest.mark.slow


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a client of a fresh Prefect server."""
    port = _free_port()
    environment = scenario.environment() | {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "true",
    }
    command = [str(scenario.SCRIPTS / "prefect"), "server", "start", "--port", str(port)]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _wait_until_up(f"{environment['PREFECT_API_URL']}/health")
            yield environment
        finally:
            _stop(process)


def _wait_until_up(address: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"no answer from {address}")


def _prefect(environment: dict[str, str], *arguments: str) -> str:
    command = [str(scenario.SCRIPTS / "prefect"), "--no-prompt", *arguments]
    done = subprocess.run(command, cwd=scenario.ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_a_worker_runs_what_is_deployed(server: dict[str, str], tmp_path: Path) -> None:
    workspace = scenario.make(tmp_path / "digits")
    environment = server | {"ROBUSTDISTILL_HOME": str(scenario.ROOT), "ROBUSTDISTILL_WORKSPACE": str(workspace)}
    _prefect(environment, "work-pool", "create", "local", "--type", "process")
    _prefect(environment, "deploy", "--all")
    listed = _prefect(environment | {"COLUMNS": "200"}, "deployment", "ls")
    assert all(name in listed for name in ("retrain/nightly", "promote/manual", "rescore/weekly"))
    with (tmp_path / "worker.log").open("wb") as log:
        command = [str(scenario.SCRIPTS / "prefect"), "worker", "start", "--pool", "local"]
        worker = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
        try:
            said = _prefect(environment, "deployment", "run", "retrain/nightly", "-p", "dry_run=true", "--watch")
        finally:
            _stop(worker)
    assert "Completed" in said or "COMPLETED" in said, said
    summary = (workspace / ".work" / "summary.json").read_text()
    assert "would run: prepare, initial" in summary
    assert not (workspace / "artifacts").exists()
