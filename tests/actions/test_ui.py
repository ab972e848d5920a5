"""The web pages: both servers and all their workers end with the command, however it is stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from robustdistill.actions import ui

# A server with a worker of its own; a stubborn one heeds no SIGTERM.
SERVER = """
import http.server, os, signal, subprocess, sys
port, folder, stubborn = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "stubborn"
if stubborn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
open(f"{folder}/{port}.pids", "w").write(f"{os.getpid()} {worker.pid}")
http.server.ThreadingHTTPServer(("127.0.0.1", port), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
PAGES = """
import sys
from pathlib import Path
from robustdistill.actions import ui

folder, manner = Path(sys.argv[1]), sys.argv[2]

def commands(work, *ports):
    names = dict(zip(("MLflow", "Prefect"), ports))
    own = lambda port: [sys.executable, str(folder / "server.py"), str(port), str(folder), manner]
    return {name: (own(port), {}, f"http://127.0.0.1:{port}/") for name, port in names.items()}

ui.commands, ui.STOP_SECONDS = commands, 1.5
ui.serve(folder, "toy", lambda text: print(text, flush=True))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "pages.py").write_text(PAGES)
    (tmp_path / "mlflow.db").write_text("")
    return tmp_path


def alive(pid: int) -> bool:
    """A process that has ended and was not waited for yet does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("number", "manner"),
    [(signal.SIGINT, "meek"), (signal.SIGTERM, "meek"), (signal.SIGHUP, "meek"), (signal.SIGINT, "stubborn")],
)
def test_no_process_is_left(folder: Path, number: int, manner: str) -> None:
    """Started with SIGINT ignored, as a shell starts a job in the background; stopped twice, as the impatient do."""
    command = [sys.executable, str(folder / "pages.py"), str(folder), manner]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("Ctrl-C"):
            break
    pids = [int(pid) for path in folder.glob("*.pids") for pid in path.read_text().split()]
    assert len(pids) == 4 and all(map(alive, pids)), said
    os.killpg(process.pid, number)
    time.sleep(0.3)
    if process.poll() is None:
        os.killpg(process.pid, number)
    assert process.wait(20) == 0
    assert not [pid for pid in pids if alive(pid)]


# Somebody binds Prefect's port after it was chosen, and answers there; `often` times.
SQUATTED = """
import http.server, sys, threading

taken = []

def squatting(work, *ports):
    if len(taken) < often and ports[1] not in taken:
        taken.append(ports[1])
        print("TOOK", ports[1], flush=True)
        squatter = http.server.ThreadingHTTPServer(("127.0.0.1", ports[1]), http.server.SimpleHTTPRequestHandler)
        threading.Thread(target=squatter.serve_forever, daemon=True).start()
    return commands(work, *ports)

ui.commands, ui.STOP_SECONDS = squatting, 1.5
try:
    ui.serve(folder, "toy", lambda text: (print(text, flush=True), text.startswith("Ctrl-C") and sys.exit("served")))
except ui.PortTaken as error:
    print("TAKEN", *taken, error)
"""


@pytest.mark.parametrize("often", [1, 2])
def test_a_port_that_was_taken_meanwhile_is_given_up_once(folder: Path, often: int) -> None:
    beginning = PAGES.partition("ui.commands, ui.STOP_SECONDS")[0]
    (folder / "squatted.py").write_text(f"often = {often}\n{beginning}{SQUATTED}")
    command = [sys.executable, str(folder / "squatted.py"), str(folder), "meek"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    pids = [int(pid) for path in folder.glob("*.pids") for pid in path.read_text().split()]
    assert pids and not [pid for pid in pids if alive(pid)]
    if often == 1:
        served = re.search(r"Prefect +http://127.0.0.1:(\d+)", done.stdout)
        took = re.search(r"TOOK (\d+)", done.stdout)
        assert served and took and served[1] != took[1], done
        assert "served" in done.stderr and (folder / f"{served[1]}.pids").exists(), done
    else:
        first, second = done.stdout.partition("TAKEN ")[2].split()[:2]
        assert first != second and f"could not have port {second}" in done.stdout, done


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.path.endswith("?experiment_name=a%20b")
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"experiment": {"experiment_id": "7"}} if known else {}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_page_of_the_models_runs_is_named_where_it_is_known(address: str) -> None:
    assert ui.runs_page(address, "a b") == f"{address}/#/experiments/7/runs"
    assert ui.runs_page(address, "another") == address
