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

from robustdistill.services import prefect_events

pytestmark = pytest.mark.slow
TERMINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
NAMES = {f"{flow}/digits" for flow in ("retrain", "watch", "rescore", "promote")}
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
    """FLOW/NAME -> deployment, as far as they are there yet."""
    flows = {flow["id"]: flow["name"] for flow in api.post("/flows/filter", json={}).json()}
    found = api.post("/deployments/filter", json={}).json()
    return {f"{flows[each['flow_id']]}/{each['name']}": each for each in found if each["flow_id"] in flows}


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
        _wait_for(lambda: _deployments(api).keys() >= NAMES, log)
        deployed = _deployments(api)
        times = {
            name: [(item["schedule"].get("cron") or item["schedule"]["interval"], item["active"]) for item in schedules]
            for name, schedules in ((name, it["schedules"]) for name, it in deployed.items())
        }
        assert times == {
            "retrain/digits": [("0 2 * * *", True)],
            "watch/digits": [(600.0, False)],  # no source was given
            "rescore/digits": [("0 4 * * 0", True)],
            "promote/digits": [],
        }
        run = api.post(f"/deployments/{deployed['retrain/digits']['id']}/create_flow_run", json={}).json()
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API of a Prefect server alone, with the deployments of two models and nobody to work on them."""
    place, port = tmp_path_factory.mktemp("server"), _free_port()
    api = f"http://127.0.0.1:{port}/api"
    own = {"PREFECT_HOME": str(place), "PREFECT_API_URL": api, "ROBUSTDISTILL_HOME": str(scenario.ROOT)}
    environment = scenario.environment(own)
    command = [scenario.SCRIPTS / "prefect", "server", "start", "--port", port]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            with httpx.Client(base_url=api, timeout=60) as client:
                _wait_for(lambda: client.get("/health").is_success, place / "log")
            prefect = [scenario.SCRIPTS / "prefect", "--no-prompt"]
            scenario.call(*prefect, "work-pool", "create", "local", "--type", "process", extra=own)
            for model, source in (("cats", "s3://inbox/cats"), ("cats-2", "")):
                told = {"MODEL": model, "SOURCE": source, "WATCHES": str(bool(source)).lower()}
                told |= {"WORKSPACE": f"/models/{model}"}
                settings = own | {f"ROBUSTDISTILL_{name}": value for name, value in told.items()}
                scenario.call(*prefect, "deploy", "--all", cwd=scenario.ROOT, extra=settings)
            yield api
        finally:
            process.terminate()
            try:
                process.wait(30)
            finally:
                _kill_rest(process.pid)


def _runs(api: httpx.Client, deployment: str) -> list[dict[str, Any]]:
    """The runs of a deployment that an event started; those of its schedules are left out."""
    wanted = {"deployments": {"id": {"any_": [_deployments(api)[deployment]["id"]]}}}
    return [run for run in api.post("/flow_runs/filter", json=wanted).json() if not run["auto_scheduled"]]


def test_each_model_has_its_own_deployments(server: str) -> None:
    with httpx.Client(base_url=server, timeout=60) as api:
        deployed = _deployments(api)
    flows = ("retrain", "watch", "rescore", "promote")
    assert deployed.keys() == {f"{flow}/{model}" for flow in flows for model in ("cats", "cats-2")}
    for name, each in deployed.items():
        assert each["parameters"]["workspace"] == f"/models/{name.split('/')[1]}"
        assert each["global_concurrency_limit"]["limit"] == 1
    watch = deployed["watch/cats"]
    assert watch["parameters"]["source"] == "s3://inbox/cats" and watch["schedules"][0]["active"] is True
    assert deployed["watch/cats-2"]["schedules"][0]["active"] is False


def test_an_event_starts_a_retrain_of_its_model_and_of_no_other(server: str) -> None:
    """The other's name begins alike: a trigger that matched by prefix would show."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: server}), httpx.Client(base_url=server, timeout=60) as api:
        assert prefect_events.emit(prefect_events.DATA_CHANGED, "cats", {"digest": "0123.dir", "files": 3})
        assert prefect_events.emit(prefect_events.CHAMPION_DRIFTED, "cats-2", {"robust": 0.4, "recorded": 0.5})
        assert prefect_events.emit(prefect_events.RUN_FAILED, "cats", {"flow": "retrain"})  # starts nothing
        _wait_for(lambda: bool(_runs(api, "retrain/cats") and _runs(api, "retrain/cats-2")), Path("/dev/null"))
        time.sleep(3)  # for what should not come
        found = {name: [run["parameters"] for run in _runs(api, name)] for name in _deployments(api)}
    started = {name: parameters for name, parameters in found.items() if parameters}
    assert started == {
        "retrain/cats": [{"workspace": "/models/cats", "reason": "new data", "data_digest": "0123.dir"}],
        "retrain/cats-2": [{"workspace": "/models/cats-2", "reason": "the champion drifted"}],
    }


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
