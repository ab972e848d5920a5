"""prefect.yaml on the stack of infra/: real MLflow and Prefect servers and a real worker."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import scenario

pytestmark = pytest.mark.slow
STACK = scenario.ROOT / "infra" / "stack.sh"


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return scenario.make(tmp_path / "digits")


@pytest.fixture
def client(workspace: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a client of a fresh stack."""
    ports = {"MLFLOW_PORT": _free_port(), "PREFECT_PORT": _free_port()}
    own = {"STACK_HOME": str(tmp_path / "stack"), "ROBUSTDISTILL_WORKSPACE": str(workspace)}
    with (tmp_path / "stack.log").open("wb") as log:
        environment = scenario.environment() | ports | own
        stack = subprocess.Popen([STACK], env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            yield scenario.environment() | {"PREFECT_API_URL": f"http://127.0.0.1:{ports['PREFECT_PORT']}/api", **ports}
        finally:
            stack.terminate()
            try:
                stack.wait(30)
            finally:
                _kill_rest(stack.pid)


def _kill_rest(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _prefect(client: dict[str, str], *arguments: str, check: bool = True) -> str:
    command = [str(scenario.SCRIPTS / "prefect"), "--no-prompt", *arguments]
    done = subprocess.run(command, env=client, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 or not check, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _wait_for(client: dict[str, str], names: tuple[str, ...], log: Path) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        listed = _prefect(client | {"COLUMNS": "200"}, "deployment", "ls", check=False)
        if all(name in listed for name in names):
            return
        time.sleep(2)
    raise AssertionError(log.read_text())


def test_a_worker_runs_what_is_deployed(client: dict[str, str], workspace: Path, tmp_path: Path) -> None:
    _wait_for(client, ("retrain/nightly", "promote/manual", "rescore/weekly"), tmp_path / "stack.log")
    said = _prefect(client, "deployment", "run", "retrain/nightly", "-p", "dry_run=true", "--watch")
    assert "Completed" in said or "COMPLETED" in said, said + (tmp_path / "stack.log").read_text()
    assert "would run: prepare, initial" in (workspace / ".work" / "summary.json").read_text()
    assert not (workspace / "artifacts").exists()
    assert _recorded(client["MLFLOW_PORT"]) == ["FINISHED"]
    assert not (workspace / ".work" / "mlflow.db").exists()  # on the server, not in the workspace


def _recorded(port: str) -> list[str]:
    """States of the runs that MLflow's server keeps of the model."""
    from robustdistill.services.mlflow_store import Store

    store = Store.open(f"http://127.0.0.1:{port}", Path("unused"))
    return [run.status for run in store.runs(store.experiment("digits"))]


def test_the_stack_says_what_it_lacks(tmp_path: Path) -> None:
    environment = scenario.environment() | {"ROBUSTDISTILL_WORKSPACE": str(tmp_path)}
    done = subprocess.run([STACK], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is not a workspace" in done.stderr and "robustdistill init" in done.stderr
