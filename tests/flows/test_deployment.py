"""prefect.yaml on the small form of infra/'s stack: MLflow and Prefect servers, a worker, records in files.

On PostgreSQL and S3: tests/services/test_server_stack.py.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import scenario

pytestmark = pytest.mark.slow
TERMINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
STACK = scenario.ROOT / "infra" / "stack.sh"


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture
def workspace(finished: Path, copied: Callable[[Path], Path]) -> Path:
    return copied(finished)


@pytest.fixture
def client(workspace: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a client of a fresh stack."""
    ports = {"MLFLOW_PORT": _free_port(), "PREFECT_PORT": _free_port()}
    own = {"STACK_HOME": str(tmp_path / "stack"), "ROBUSTDISTILL_WORKSPACE": str(workspace), "STACK": "sqlite"}
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


def _deployments(api: httpx.Client) -> dict[str, Any]:
    """Name -> deployment, as far as they are there yet."""
    found = api.post("/deployments/filter", json={}).json()
    return {deployment["name"]: deployment for deployment in found}


def _wait_for(what: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        try:
            if what():
                return
        except httpx.TransportError:
            pass  # the server is still starting
        time.sleep(0.5)
    raise AssertionError(log.read_text())


def _alike(summary: dict[str, Any]) -> dict[str, Any]:
    """What two runs on equal workspaces have in common: all but times, places and the measured latency."""
    rules = [rule for rule in summary["verdict"]["rules"] if rule["rule"] != "latency_ms"]
    kept = {key: summary[key] for key in ("outcome", "exit_code", "sentence", "models", "registry")}
    return kept | {"rules": rules, "gain": summary["verdict"]["gain"]}


def test_a_worker_runs_what_is_deployed(
    client: dict[str, str], workspace: Path, finished: Path, copied: Callable[[Path], Path], tmp_path: Path
) -> None:
    """On a workspace whose stages are up to date: registered, judged and promoted as by the command line."""
    log = tmp_path / "stack.log"
    with httpx.Client(base_url=client["PREFECT_API_URL"], timeout=30) as api:
        _wait_for(lambda: {"nightly", "manual", "weekly"} <= _deployments(api).keys(), log)
        deployed = _deployments(api)
        crons = {name: [item["schedule"]["cron"] for item in it["schedules"]] for name, it in deployed.items()}
        assert crons == {"nightly": ["0 2 * * *"], "manual": [], "weekly": ["0 4 * * 0"]}
        assert all(item["active"] for it in deployed.values() for item in it["schedules"])
        run = api.post(f"/deployments/{deployed['nightly']['id']}/create_flow_run", json={}).json()
        _wait_for(lambda: api.get(f"/flow_runs/{run['id']}").json()["state_type"] in TERMINAL, log)
        state = api.get(f"/flow_runs/{run['id']}").json()["state"]
    assert (state["type"], state["name"]) == ("COMPLETED", "Completed"), f"{state}\n{log.read_text()}"
    worked = scenario.read(workspace, ".work", "summary.json")
    assert (worked["outcome"], worked["sentence"]) == (
        "promoted",
        "digits version 1 is champion; nothing was retrained",
    )
    assert _alike(worked) == _alike(scenario.flow("retrain", copied(finished)))
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


@pytest.mark.parametrize(
    ("script", "setting", "words"),
    [
        ("postgres.sh", {"POSTGRES_BIN": "/nowhere"}, "apt-get install --no-install-recommends postgresql"),
        ("s3.sh", {"PATH": "{tools}"}, "apt-get install --no-install-recommends ceph-mon ceph-osd radosgw curl"),
    ],
)
def test_a_service_that_is_not_installed_is_named_and_not_installed(
    tmp_path: Path, script: str, setting: dict[str, str], words: str
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "dirname", "mkdir"):
        (tools / name).symlink_to(str(shutil.which(name)))
    own = {"STACK_HOME": str(tmp_path / "stack"), **{key: value.format(tools=tools) for key, value in setting.items()}}
    done = subprocess.run(
        [scenario.ROOT / "infra" / script, "start"],
        env=scenario.environment() | own,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and words in done.stderr
    asked = subprocess.run([scenario.ROOT / "infra" / script, "env", "nobody"], capture_output=True, text=True)
    assert asked.returncode == 2 and "no such name: 'nobody'" in asked.stderr
