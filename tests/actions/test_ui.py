"""The web pages: both servers and all their workers end with the command, however it is stopped."""

from __future__ import annotations

import json
import os
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
