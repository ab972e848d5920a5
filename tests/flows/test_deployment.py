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
from robustdistill.services import prefect_events
from robustdistill.services.mlflow_store import Store

pytestmark = pytest.mark.slow
TERMINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
SECONDS = 480.0  # for a stack of six processes to start, on a busy machine
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
    """FLOW/NAME -> deployment, as far as they are there yet."""
    flows = {flow["id"]: flow["name"] for flow in api.post("/flows/filter", json={}).json()}
    found = api.post("/deployments/filter", json={}).json()
    return {f"{flows[each['flow_id']]}/{each['name']}": each for each in found if each["flow_id"] in flows}


def _wait_for(what: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            if what():
                return
        except httpx.TransportError:
            pass  # the server is still starting
        time.sleep(0.5)
    raise AssertionError(log.read_text())


def _ended(api: httpx.Client, name: str, log: Path) -> dict[str, Any]:
    """The state of the first run of FLOW/NAME that was not scheduled, once there is one that has ended."""

    def states() -> list[dict[str, Any]]:
        return [run["state"] for run in _runs(api, name) if run["state_type"] in TERMINAL]

    _wait_for(lambda: bool(states()), log)
    return states()[0]


def _lines(verdict: dict[str, Any]) -> list[Any]:
    """What two verdicts on equal models have in common: all but the measured latency and whose control was asked."""
    return [rule for rule in verdict["rules"] if rule["rule"] not in ("latency_ms", "gain")]


@pytest.mark.timeout(1800)
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
        _wait_for(lambda: _deployments(api).keys() >= NAMES, log)
        assert httpx.post(f"{prefect['PREFECT_API_URL']}/deployments/filter", json={}).status_code == 401
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
        pools = {name: each["work_pool_name"] for name, each in deployed.items()}
        assert {name for name, pool in pools.items() if pool == "promoter"} == {"promote/digits"}
        api.post(f"/deployments/{deployed['retrain/digits']['id']}/create_flow_run", json={}).raise_for_status()
        states = [_ended(api, name, log) for name in ("retrain/digits", "promote/digits")]
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
            for pool in ("local", "promoter"):
                scenario.call(*prefect, "work-pool", "create", pool, "--type", "process", extra=own)
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
