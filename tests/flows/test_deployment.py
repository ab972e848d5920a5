"""prefect.yaml on the small form of infra/'s stack: MLflow and Prefect servers that ask for passwords, a worker for a
trainer and one for a promoter, records in files.

On PostgreSQL and S3: tests/services/test_server_stack.py.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import scenario

from robustdistill.actions.intent import RECORD
from robustdistill.actions.promote import OFFER
from robustdistill.services.mlflow_store import Store

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
            yield scenario.environment() | ports | own
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


def _exports(client: dict[str, str], script: str, *arguments: str) -> dict[str, str]:
    """What `infra/SCRIPT env …` says a client exports."""
    command = [scenario.ROOT / "infra" / script, "env", *arguments]
    said = subprocess.run(command, env=client, capture_output=True, text=True, check=True).stdout
    return dict(word.split("=", 1) for word in shlex.split(said) if word != "export")


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


def _ended(api: httpx.Client, deployment: str, log: Path) -> dict[str, Any]:
    """The state of the first run of a deployment, once it has one that has ended."""

    def states() -> list[dict[str, Any]]:
        asked = {"flow_runs": {"deployment_id": {"any_": [deployment]}}}
        runs = api.post("/flow_runs/filter", json=asked).json()
        return [run["state"] for run in runs if run["state_type"] in TERMINAL]

    _wait_for(lambda: bool(states()), log)
    return states()[0]


def _lines(verdict: dict[str, Any]) -> list[Any]:
    """What two verdicts on equal models have in common: all but the measured latency and whose control was asked."""
    return [rule for rule in verdict["rules"] if rule["rule"] not in ("latency_ms", "gain")]


def test_a_trainers_worker_hands_over_and_a_promoters_promotes(
    client: dict[str, str], workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a workspace whose stages are up to date: registered and judged by one worker, which cannot move the champion,
    and promoted by the other, which an event wakes."""
    log = tmp_path / "stack.log"
    _wait_for(lambda: (tmp_path / "stack" / "prefect" / "secrets" / "api").exists(), log)
    prefect = _exports(client, "prefect.sh")
    pair = prefect["PREFECT_API_AUTH_STRING"].split(":")
    with httpx.Client(base_url=prefect["PREFECT_API_URL"], auth=(pair[0], pair[1]), timeout=30) as api:
        _wait_for(lambda: {"nightly", "manual", "weekly", "hand-over"} <= _deployments(api).keys(), log)
        assert httpx.post(f"{prefect['PREFECT_API_URL']}/deployments/filter", json={}).status_code == 401
        deployed = _deployments(api)
        crons = {name: [item["schedule"]["cron"] for item in it["schedules"]] for name, it in deployed.items()}
        assert {name: crons[name] for name in ("nightly", "manual", "weekly", "hand-over")} == {
            "nightly": ["0 2 * * *"],
            "manual": [],
            "weekly": ["0 4 * * 0"],
            "hand-over": [],
        }
        assert all(item["active"] for it in deployed.values() for item in it["schedules"])
        assert {name: deployed[name]["work_pool_name"] for name in ("nightly", "hand-over")} == {
            "nightly": "local",
            "hand-over": "promoter",
        }
        api.post(f"/deployments/{deployed['nightly']['id']}/create_flow_run", json={}).raise_for_status()
        states = [_ended(api, deployed[name]["id"], log) for name in ("nightly", "hand-over")]
    assert [(state["type"], state["name"]) for state in states] == [("COMPLETED", "Completed")] * 2, log.read_text()
    assert "digits-candidates version 1 passed and waits for the promoter" in states[0]["message"]
    for name, value in _exports(client, "mlflow.sh", "reader").items():
        monkeypatch.setenv(name, value)
    store = Store.open(None, Path("unused"))
    assert store.registry.aliases("digits") == {"champion": 1}
    assert store.registry.aliases("digits-candidates") == {}
    offered = json.loads(store.registry.version("digits-candidates", 1).tags[OFFER])
    record = json.loads(store.registry.version("digits", 1).tags[RECORD])
    assert (record["by"], record["record"]["why"]) == ("the promoter's worker", "handed over by a flow")
    assert _lines(record["verdict"]) == _lines(offered["verdict"])
    found = {run.tags["robustdistill.outcome"]: run.status for run in store.runs(store.experiment("digits"))}
    assert found == {"waiting": "FINISHED", "promoted": "FINISHED"}
    assert scenario.read(workspace, ".work", "summary.json")["outcome"] == "promoted"
    assert not (workspace / ".work" / "mlflow.db").exists()  # on the server, not in the workspace
    _no_secret_is_told(tmp_path / "stack", log, workspace)


def _no_secret_is_told(stack: Path, log: Path, workspace: Path) -> None:
    """Each password lies in one file that is closed to others, and stands in no log and no command line."""
    kept = sorted(stack.glob("*/secrets/*"))
    assert {path.name for path in kept} == {"admin", "trainer", "promoter", "reader", "forms", "api"}
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
    assert {path.parent.stat().st_mode & 0o777 for path in kept} == {0o700}
    lines = [" ".join(line) for line in (process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"]))]
    written = [log.read_text(), *(path.read_text() for path in (workspace / ".work").rglob("*.log")), *lines]
    for path in kept:
        assert not [text for text in written if path.read_text() in text], path.name


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
