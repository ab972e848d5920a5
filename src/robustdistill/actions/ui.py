"""MLflow's and Prefect's web pages on a workspace's embedded stores, on this machine only, until interrupted."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from robustdistill.errors import ServiceFailed

Command = tuple[list[str], dict[str, str], str]  # a command line, its extra environment, what answers once it is up

HOST = "127.0.0.1"
START_SECONDS = 120.0
STOP_SECONDS = 10.0
FIRST_PORTS = {"MLflow": 5000, "Prefect": 4200}
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, a kill, a closed terminal


class PortTaken(ServiceFailed):
    """Somebody else was quicker: a server binds its port seconds after it was chosen."""


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a port just left counts as taken
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port(first: int) -> int:
    """The first port from `first` on that nobody holds. Raises ServiceFailed if 50 in a row are taken."""
    for port in range(first, first + 50):
        if _is_free(port):
            return port
    raise ServiceFailed(f"ports {first} to {first + 49} are all taken", fix="stop what listens there")


def commands(work: Path, mlflow_port: int, prefect_port: int) -> dict[str, Command]:
    """Name -> how that server is started."""
    here = f"http://{HOST}"
    stores = ["--backend-store-uri", f"sqlite:///{work}/mlflow.db", "--artifacts-destination", f"{work}/mlartifacts"]
    listen = ["--host", HOST, "--port", str(mlflow_port), "--workers", "1"]
    mlflow = [sys.executable, "-m", "mlflow", "server", *listen, *stores]
    prefect = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(prefect_port)]
    prefect_home = {"PREFECT_HOME": str(work / "prefect"), "PREFECT_UI_API_URL": f"{here}:{prefect_port}/api"}
    return {
        "MLflow": (mlflow, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, f"{here}:{mlflow_port}/health"),
        "Prefect": (prefect, prefect_home, f"{here}:{prefect_port}/api/health"),
    }


@dataclass
class Pages:
    """The two servers of a workspace; `started` also holds one that ended because its port was taken."""

    work: Path
    ports: dict[str, int]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def _command(self, name: str) -> Command:
        return commands(self.work, *(self.ports[each] for each in FIRST_PORTS))[name]

    def log(self, name: str) -> Path:
        return self.work / f"{name.lower()}-ui.log"

    def start(self, name: str) -> None:
        command, extra, _ = self._command(name)
        environment = os.environ | extra
        environment.pop("PREFECT_API_URL", None)
        with self.log(name).open("wb") as sink:
            process = subprocess.Popen(
                command, env=environment, stdout=sink, stderr=sink, start_new_session=True, cwd=self.work
            )
        self.running[name] = process
        self.started.append(process)

    def await_one(self, name: str) -> str:
        """The address at which a started server answers; once, on another port, if its own was taken meanwhile.

        Raises ServiceFailed, PortTaken if that happened again.
        """
        try:
            return self._wait(name)
        except PortTaken:
            self.ports[name] = free_port(self.ports[name] + 1)
            self.start(name)
            return self._wait(name)

    def _wait(self, name: str) -> str:
        process, port, (_, _, address) = self.running[name], self.ports[name], self._command(name)
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if _answers(address) and _holds(process.pid, port):
                return address.removesuffix("/health").removesuffix("/api")
            time.sleep(0.3)
        if not _is_free(port) and not _holds(process.pid, port):
            cause = f"{name} could not have port {port}: another program took it"
            raise PortTaken(cause, where=address, fix=f"stop what listens on port {port}, then start again")
        tail = "\n".join(self.log(name).read_text(errors="replace").splitlines()[-8:])
        raise ServiceFailed(f"{name} did not come up:\n{tail}", where=address, fix=f"see {self.log(name)}")


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _holds(pid: int, port: int) -> bool:
    """Whether a server or one of its workers listens on a port: the answer there may be another program's. True where
    the system does not tell."""
    try:
        parent = psutil.Process(pid)
        return any(port in _listening(process) for process in (parent, *parent.children(recursive=True)))
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _listening(process: psutil.Process) -> set[int]:
    try:
        found = process.net_connections("tcp")
    except psutil.NoSuchProcess:  # a worker that is gone meanwhile
        return set()
    return {each.laddr.port for each in found if each.status == psutil.CONN_LISTEN}


def _send(process: subprocess.Popen[bytes], number: int) -> bool:
    """A signal to a server and all its workers; False if none of them is left."""
    process.poll()  # or its own remains count as one of them
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Each server and its workers; those that do not end in time are killed. A second Ctrl-C changes nothing."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    for process in processes:
        _send(process, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while any(_send(process, 0) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in processes:
        _send(process, signal.SIGKILL)
        process.wait()


def runs_page(address: str, model: str) -> str:
    """The page of the model's runs on the MLflow at `address`: its first page shows none."""
    query = f"{address}/api/2.0/mlflow/experiments/get-by-name?experiment_name={urllib.parse.quote(model)}"
    try:
        with urllib.request.urlopen(query, timeout=10) as answer:
            number = json.load(answer)["experiment"]["experiment_id"]
    except (OSError, ValueError, KeyError, TypeError):  # it is an address for people, no more
        return address
    return f"{address}/#/experiments/{number}/runs"


def serve(work: Path, model: str, say: Callable[[str], None]) -> None:
    """Starts both, says where they are, and stops both on Ctrl-C, SIGTERM or SIGHUP. `work` is a workspace's .work
    folder, `model` its name."""
    if not (work / "mlflow.db").exists():
        raise ServiceFailed("nothing has been recorded here yet", where=str(work), fix="run the flow first: make demo")
    pages = Pages(work, {name: free_port(first) for name, first in FIRST_PORTS.items()})
    for number in STOPPING:  # SIGINT, too: a shell starts background jobs without it
        signal.signal(number, signal.default_int_handler)
    try:
        for name in FIRST_PORTS:
            pages.start(name)
        say("starting MLflow and Prefect (about 15 s) ...")
        for name in FIRST_PORTS:
            home = pages.await_one(name)
            say(f"{name:<8} {runs_page(home, model) if name == 'MLflow' else home}")
        say("Ctrl-C stops both")
        while all(process.poll() is None for process in pages.running.values()):
            time.sleep(0.5)
        logs = " and ".join(str(pages.log(name)) for name in FIRST_PORTS)
        raise ServiceFailed("one of the servers ended by itself", where=str(work), fix=f"see {logs}")
    except KeyboardInterrupt:
        say("stopping")
    finally:
        _stop(pages.started)
