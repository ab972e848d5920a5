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
from pathlib import Path

from robustdistill.errors import ServiceFailed

HOST = "127.0.0.1"
START_SECONDS = 120.0
STOP_SECONDS = 10.0
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, a kill, a closed terminal


def free_port(first: int) -> int:
    """The first port from `first` on that nobody holds. Raises ServiceFailed if 50 in a row are taken."""
    for port in range(first, first + 50):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a port just left counts as taken
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise ServiceFailed(f"ports {first} to {first + 49} are all taken", fix="stop what listens there")


def commands(work: Path, mlflow_port: int, prefect_port: int) -> dict[str, tuple[list[str], dict[str, str], str]]:
    """Name -> (command, extra environment, address that answers once it is up)."""
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


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
    raise ServiceFailed(f"a server did not come up:\n{tail}", where=address, fix=f"see {log}")


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
    plan = commands(work, free_port(5000), free_port(4200))
    processes: list[subprocess.Popen[bytes]] = []
    for number in STOPPING:  # SIGINT, too: a shell starts background jobs without it
        signal.signal(number, signal.default_int_handler)
    try:
        logs = [work / f"{name.lower()}-ui.log" for name in plan]
        for log, (command, extra, _) in zip(logs, plan.values(), strict=True):
            with log.open("wb") as sink:
                environment = os.environ | extra
                environment.pop("PREFECT_API_URL", None)
                processes.append(
                    subprocess.Popen(
                        command, env=environment, stdout=sink, stderr=sink, start_new_session=True, cwd=work
                    )
                )
        say("starting MLflow and Prefect (about 15 s) ...")
        for process, log, (name, (_, _, address)) in zip(processes, logs, plan.items(), strict=True):
            _wait(address, process, log)
            home = address.removesuffix("/health").removesuffix("/api")
            say(f"{name:<8} {runs_page(home, model) if name == 'MLflow' else home}")
        say("Ctrl-C stops both")
        while all(process.poll() is None for process in processes):
            time.sleep(0.5)
        raise ServiceFailed("one of the servers ended by itself", where=str(work), fix=f"see {logs[0]} and {logs[1]}")
    except KeyboardInterrupt:
        say("stopping")
    finally:
        _stop(processes)
