"""infra/'s stack with PostgreSQL and S3, as a test starts it, asks it and ends it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import httpx
import psutil
import scenario

INFRA = scenario.ROOT / "infra"
SECONDS = 1500.0
TERMINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def _free_port(width: int = 1) -> int:
    """The first of `width` free ports in a row."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first = int(probe.getsockname()[1])
        try:
            for port in range(first, first + width):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
        except (OSError, OverflowError):
            continue


def wait_for(what: Callable[[], bool], fault: Callable[[], str]) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            if what():
                return
        except httpx.TransportError:
            pass  # the server is still starting
        time.sleep(0.5)
    raise AssertionError(fault())


def _place() -> Path:
    """A folder through which PostgreSQL's own user may pass; pytest's are closed to it."""
    place = Path(tempfile.mkdtemp(prefix="robustdistill-stack-"))
    place.chmod(0o711)
    return place


@dataclass
class Stack:
    """`place` holds the services' folders, the workspace, the logs."""

    place: Path = field(default_factory=_place)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        names = ("MLFLOW_PORT", "PREFECT_PORT", "POSTGRES_PORT", "S3_PORT")
        self.ports = {name: str(_free_port()) for name in names} | {"S3_CLUSTER_PORT": str(_free_port(41))}
        self.workspace = self.place / "first" / "digits"
        self.endpoint = f"http://127.0.0.1:{self.ports['S3_PORT']}"
        self.remote = "s3://robustdistill/digits"

    @property
    def settings(self) -> dict[str, str]:
        """What the scripts of infra/ are told."""
        return {**self.ports, "STACK_HOME": str(self.place / "stack"), "STACK": "server"} | self._dvc("first")

    def _dvc(self, machine: str) -> dict[str, str]:
        """DVC's folders outside a workspace, for each machine its own."""
        return {
            "DVC_SITE_CACHE_DIR": str(self.place / machine / "dvc-site"),
            "DVC_GLOBAL_CONFIG_DIR": str(self.place / machine / "dvc-config"),
        }

    def client(self, machine: str = "first", role: str = "promoter") -> dict[str, str]:
        """What somebody who starts a flow exports: addresses and credentials of a role; a promoter's flow promotes."""
        records = {"ROBUSTDISTILL_RECORDS": "s3://records"} if role == "promoter" else {}
        mlflow, prefect = self.exports("mlflow", role), self.exports("prefect")
        return self._dvc(machine) | mlflow | prefect | self.exports("s3", role) | records

    def script(self, service: str, *arguments: str) -> str:
        return scenario.call(INFRA / f"{service}.sh", *arguments, extra=self.settings).stdout

    def exports(self, service: str, *name: str) -> dict[str, str]:
        """What `infra/SERVICE.sh env NAME` exports."""
        words = shlex.split(self.script(service, "env", *name))
        return dict(word.split("=", 1) for word in words if word != "export")

    def bucket(self, name: str, keys: str | None = None) -> Any:
        """The bucket as its own user sees it, or with the keys of another."""
        own = self.exports("s3", keys or name)
        session = boto3.session.Session(own["AWS_ACCESS_KEY_ID"], own["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1")
        return session.resource("s3", endpoint_url=self.endpoint).Bucket(name)

    @property
    def log(self) -> Path:
        return self.place / "stack.log"

    def start(self) -> None:
        """Returns when the worker has deployed prefect.yaml."""
        with self.log.open("ab") as log:
            environment = scenario.environment(self.settings) | {"ROBUSTDISTILL_WORKSPACE": str(self.workspace)}
            self.process = subprocess.Popen(
                [INFRA / "stack.sh"], env=environment, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(self._deployed, self.log.read_text)

    def _deployed(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.log.read_text()
        with self.prefect() as api:
            return {f"{flow}/digits" for flow in ("retrain", "watch", "rescore", "promote")} <= self._deployments(
                api
            ).keys()

    @staticmethod
    def _deployments(api: httpx.Client) -> dict[str, str]:
        """FLOW/NAME -> id, as far as they are there yet."""
        flows = {flow["id"]: flow["name"] for flow in api.post("/flows/filter", json={}).json()}
        found = api.post("/deployments/filter", json={}).json()
        return {f"{flows[each['flow_id']]}/{each['name']}": each["id"] for each in found if each["flow_id"] in flows}

    def prefect(self) -> httpx.Client:
        known = self.exports("prefect")
        user, _, password = known["PREFECT_API_AUTH_STRING"].partition(":")
        return httpx.Client(base_url=known["PREFECT_API_URL"], auth=(user, password), timeout=60)

    def run(self, deployment: str) -> dict[str, Any]:
        """A run of a deployment by the worker, when it has ended."""
        with self.prefect() as api:
            found = self._deployments(api)
            run = api.post(f"/deployments/{found[deployment]}/create_flow_run", json={}).json()["id"]
            wait_for(lambda: api.get(f"/flow_runs/{run}").json()["state_type"] in TERMINAL, self.log.read_text)
            return dict(api.get(f"/flow_runs/{run}").json())

    def handed_over(self) -> dict[str, Any]:
        """The run that the event of a waiting candidate has started, when it has ended."""
        with self.prefect() as api:
            asked = {"deployments": {"id": {"any_": [self._deployments(api)["promote/digits"]]}}}

            def ended() -> list[dict[str, Any]]:
                runs = api.post("/flow_runs/filter", json=asked).json()
                return [run for run in runs if run["state_type"] in TERMINAL]

            wait_for(lambda: bool(ended()), self.log.read_text)
            return ended()[0]

    def family(self) -> list[psutil.Process]:
        """Every process that belongs to this stack: by its place on a command line or in its environment."""
        return [process for process in psutil.process_iter() if str(self.place) in _known_by(process)]

    def end(self) -> None:
        """Polite, then by force; leaves nothing running and no folder."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(120)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
        for service in ("s3", "postgres"):
            self.script(service, "stop")
        shutil.rmtree(self.place, ignore_errors=True)


def _known_by(process: psutil.Process) -> str:
    try:
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return ""
        return " ".join([*process.cmdline(), process.environ().get("STACK_HOME", "")])
    except psutil.Error:
        return ""
