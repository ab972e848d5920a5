"""What is in the way of a stage: a DVC that works there, one that is gone, a number used again, a torn file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from robustdistill.services import dvc_locks

SLEEP = "import time; time.sleep(60)"
GIVEN = "repro student"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like `dvc repro student`."""
    process = subprocess.Popen([sys.executable, "-c", SLEEP, *GIVEN.split()])
    yield process
    process.kill()
    process.wait()


def hold(
    root: Path, pid: int, command: str = f"/bin/dvc {GIVEN}", mode: str = "write", path: str = "artifacts"
) -> Path:
    who = {"pid": pid, "cmd": command}
    file = root / ".dvc" / "tmp" / "rwlock"
    held = {"write": {str(root / path): who}} if mode == "write" else {"read": {str(root / path): [who]}}
    file.write_text(json.dumps({"write": {}, "read": {}} | held))
    return file


@pytest.mark.parametrize("text", ["", '{"write": {', "[]", '{"write": {"a": 3}}'])
def test_a_torn_file_is_taken_away(root: Path, text: str) -> None:
    file = root / ".dvc" / "tmp" / "rwlock"
    file.write_text(text)
    dvc_locks.mend(root)
    assert not file.exists()


def test_who_is_gone_or_another_process_by_now_holds_nothing(root: Path, other: subprocess.Popen[bytes]) -> None:
    file = hold(root, other.pid, "/bin/dvc repro teacher")
    dvc_locks.mend(root)
    assert json.loads(file.read_text()) == {"write": {}, "read": {}}
    file = hold(root, 2**22 - 1, mode="read")
    dvc_locks.mend(root)
    assert json.loads(file.read_text()) == {"write": {}, "read": {}}


@pytest.mark.parametrize("mode", ["read", "write"])
def test_who_works_there_is_left_and_waited_for(root: Path, other: subprocess.Popen[bytes], mode: str) -> None:
    file, told = hold(root, other.pid, mode=mode), list[dvc_locks.Entry]()
    before = file.read_text()
    dvc_locks.mend(root)
    assert json.loads(file.read_text()) == json.loads(before)
    ending = threading.Timer(1.0, other.kill)
    ending.start()
    began = time.monotonic()
    waiting = threading.Thread(target=other.wait)  # or it would stay as a zombie
    waiting.start()
    dvc_locks.wait(root, [], [root / "artifacts" / "student"], told.append, threading.Event())
    assert time.monotonic() - began >= 0.9
    assert [entry.pid for entry in told] == [other.pid]


def test_readers_do_not_wait_for_each_other_nor_for_what_is_elsewhere(
    root: Path, other: subprocess.Popen[bytes]
) -> None:
    hold(root, other.pid, mode="read", path="artifacts/prepare")
    never = threading.Event()
    dvc_locks.wait(root, [root / "artifacts" / "prepare"], [root / "artifacts" / "student"], pytest.fail, never)
    hold(root, other.pid, path="artifacts/teacher")
    dvc_locks.wait(root, [root / "artifacts" / "prepare"], [root / "artifacts" / "student"], pytest.fail, never)


def test_a_run_that_is_stopped_waits_no_longer(root: Path, other: subprocess.Popen[bytes]) -> None:
    hold(root, other.pid)
    stopped = threading.Event()
    dvc_locks.wait(root, [], [root / "artifacts"], lambda _: stopped.set(), stopped)


def test_whom_we_may_not_look_at_is_believed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(_: object) -> list[str]:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "cmdline", hidden)
    file = hold(root, os.getpid())
    dvc_locks.mend(root)
    assert json.loads(file.read_text())["write"]
