"""DVC as the only door to a stage: what it runs, what it remembers, and that nothing it started is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from robustdistill import budget
from robustdistill.errors import BadInput, OutOfTime, RobustDistillError, ServiceFailed, Unhealthy
from robustdistill.services import dvc_cli, dvc_remote, git_cli

pytestmark = pytest.mark.slow

STAGE = """
import json, os, pathlib, sys, time
name = sys.argv[1]
pathlib.Path(".work").mkdir(exist_ok=True)
pathlib.Path(f".work/{name}.pid").write_text(str(os.getpid()))
what = pathlib.Path("what")
if what.exists():
    what = what.read_text()
    if what == "sleep":
        from robustdistill.services import leash
        leash.watch(every=0.1)
        time.sleep(60)
    if what != "die":
        pathlib.Path(f".work/errors").mkdir(exist_ok=True)
        record = {"cause": "the cause", "where": "here", "fix": "mend it", "exit_code": int(what)}
        pathlib.Path(f".work/errors/{name}.json").write_text(json.dumps(record))
    print("last words")
    sys.exit(7)
time.sleep(float(os.environ.get("PAUSE", 0)))
while pathlib.Path("hold").exists():
    time.sleep(0.05)
out = pathlib.Path("artifacts", name)
out.mkdir(parents=True, exist_ok=True)
(out / "result").write_text(name + pathlib.Path("params.yaml").read_text())
"""
READS = {"prepare": "data", "initial": "artifacts/prepare", "control": "artifacts/prepare"}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three stages with names of the catalog and a script instead of training."""
    root = tmp_path_factory.mktemp("workspace")
    git_cli.init(root)
    dvc_cli.init(root)
    (root / "data").mkdir()
    (root / "data" / "x").write_text("1")
    (root / "stage.py").write_text(STAGE)
    (root / ".gitignore").write_text("/data\n/artifacts\n/.work\n")
    (root / "params.yaml").write_text("seed: 0\n")
    stages = {
        name: {
            "cmd": f"{sys.executable} stage.py {name}",
            "deps": [path],
            "params": ["seed"],
            "outs": [f"artifacts/{name}"],
        }
        for name, path in READS.items()
    }
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    dvc_cli.add_data(root)
    dvc_cli.repro(root, "prepare")
    return root


@pytest.fixture
def root(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The repository with `initial` and `control` to be run; it is no whole pipeline, and need not be here."""
    monkeypatch.setattr(dvc_cli, "_require_pipeline", lambda root: None)
    (repository / "params.yaml").write_text(f"seed: {time.time_ns()}\n")
    yield repository
    (repository / "what").unlink(missing_ok=True)


def test_a_pipeline_that_lacks_stages_is_not_up_to_date(tmp_path: Path) -> None:
    for content, words in ((None, "not a pipeline"), ("stages: {prepare: {}}", "lacks adversaries"), ("[", "not a")):
        if content is not None:
            (tmp_path / "dvc.yaml").write_text(content)
        with pytest.raises(BadInput, match=words) as caught:
            dvc_cli.changed(tmp_path)
        assert "robustdistill upgrade" in caught.value.fix


@pytest.mark.parametrize(
    "content",
    [
        b"[",
        b"",
        b"outs: []",
        b"outs: {}",
        b"outs:\n- path: data\n",
        b"\xff",
        b"outs:\n- md5: 7\n",
        b"outs:\n- md5: abc\n",
    ],
)
def test_a_damaged_data_file_is_told_with_a_fix(tmp_path: Path, content: bytes) -> None:
    assert dvc_cli.digest(tmp_path) is None
    (tmp_path / "data.dvc").write_bytes(content)
    with pytest.raises(BadInput, match="dvc add data") as caught:
        dvc_cli.digest(tmp_path)
    assert caught.value.where == str(tmp_path / "data.dvc") and "git checkout data.dvc" in caught.value.fix


def test_two_stages_at_once_both_enter_the_lock_file(root: Path) -> None:
    assert dvc_cli.changed(root)[:2] == ["prepare", "initial"]  # and so on: what reads a changed stage runs too
    dvc_cli.repro(root, "prepare")
    failures: list[BaseException] = []

    def run(name: str) -> None:
        try:
            dvc_cli.repro(root, name, {"PAUSE": "0.5"})
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("initial", "control")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert dvc_cli.changed(root) == []


@pytest.mark.parametrize(
    ("what", "kind", "said"),
    [
        (str(BadInput.exit_code), BadInput, "prepare: the cause"),
        (str(Unhealthy.exit_code), Unhealthy, "prepare: the cause"),
        ("70", RobustDistillError, "prepare: the cause"),
        (str(OutOfTime.exit_code), OutOfTime, "prepare: the cause"),
        ("die", ServiceFailed, "last words"),
    ],
)
def test_a_stages_error_is_raised_as_what_it_was(root: Path, what: str, kind: type[Exception], said: str) -> None:
    (root / "what").write_text(what)
    (root / ".work" / "errors").mkdir(exist_ok=True)
    (root / ".work" / "errors" / "prepare.json").write_text('{"cause": "an old error"}')
    with pytest.raises(RobustDistillError, match=said) as caught:
        dvc_cli.repro(root, "prepare")
    assert type(caught.value) is kind


def test_what_does_not_stop_in_time_is_cut_off_with_all_it_started(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "what").write_text("sleep")
    monkeypatch.setattr(budget, "LATEST_SECONDS", -50.0)  # overdue 10 s after the beginning
    note = root / ".work" / "prepare.pid"
    note.unlink(missing_ok=True)
    with budget.limited(1), pytest.raises(OutOfTime, match="prepare was cut off"):
        dvc_cli.repro(root, "prepare")
    stage = int(note.read_text())  # it had begun
    assert _within(10, lambda: not psutil.pid_exists(stage))
    assert not [child for child in psutil.Process().children(recursive=True) if "dvc" in " ".join(child.cmdline())]


def test_after_the_time_no_stage_is_begun(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / ".work" / "prepare.pid").unlink(missing_ok=True)
    monkeypatch.setattr(budget, "spent", lambda: True)
    with pytest.raises(OutOfTime, match="prepare was not begun"):
        dvc_cli.repro(root, "prepare")
    assert not (root / ".work" / "prepare.pid").exists()


def test_what_ends_a_flow_early_ends_its_stages(root: Path) -> None:
    (root / "what").write_text("sleep")
    caught: list[BaseException] = []

    def run() -> None:
        try:
            dvc_cli.repro(root, "prepare")
        except ServiceFailed as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    with pytest.raises(KeyboardInterrupt), dvc_cli.stopping_children():
        thread.start()
        process = _started(root)
        raise KeyboardInterrupt
    thread.join(10)
    assert "stopped" in str(caught[0])
    assert _gone(process)
    with pytest.raises(ServiceFailed), dvc_cli.stopping_children():
        dvc_cli.stop_all()
        dvc_cli.repro(root, "prepare")  # nothing starts any more


def test_a_killed_flow_takes_its_stage_along(root: Path) -> None:
    (root / "what").write_text("sleep")
    script = (
        "from pathlib import Path; from robustdistill.services import dvc_cli; dvc_cli.repro(Path.cwd(), 'prepare')"
    )
    flow = subprocess.Popen([sys.executable, "-c", script], cwd=root)
    process = _started(root)
    flow.send_signal(signal.SIGKILL)
    flow.wait()
    assert _gone(process)


def _started(root: Path) -> psutil.Process:
    """The process of the stage, once it sleeps."""
    note = root / ".work" / "prepare.pid"
    note.unlink(missing_ok=True)
    assert _within(20, lambda: note.exists() and note.read_text() != "")
    time.sleep(0.5)  # the leash is imported and tied
    return psutil.Process(int(note.read_text()))


def _gone(process: psutil.Process) -> bool:
    return _within(10, lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def _within(seconds: float, true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.05)
    return False


def test_a_digest_is_read_without_dvc(tmp_path: Path) -> None:
    assert dvc_cli.digest(tmp_path) is None
    digest = f"{'0123' * 8}.dir"
    (tmp_path / "data.dvc").write_text(f"outs:\n- md5: {digest}\n  path: data\n")
    assert dvc_cli.digest(tmp_path) == digest


def test_children_neither_call_home_nor_see_a_hooks_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    found = dvc_cli.environment({"PAUSE": "1"})
    assert found["DVC_NO_ANALYTICS"] == "1" and found["PAUSE"] == "1" and "GIT_DIR" not in found
    assert (Path(found["PATH"].split(os.pathsep)[0]) / "python").exists()


def test_what_dvc_says_is_told(root: Path) -> None:
    with pytest.raises(ServiceFailed, match="nowhere"):
        dvc_cli.dvc(root, "status", "nowhere")


def test_a_folder_without_git_and_dvc_is_bad_input(tmp_path: Path) -> None:
    for ask in (dvc_cli.status, dvc_remote.push, lambda root: dvc_cli.repro(root, "prepare")):
        with pytest.raises(BadInput, match=r"lost its \.git and its \.dvc"):
            ask(tmp_path)


def test_a_stage_waits_for_a_dvc_by_hand_and_a_torn_lock_is_no_matter(root: Path) -> None:
    """The lock is torn where a process was killed while it wrote it; DVC itself would refuse every command then."""
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", "prepare"]
    lock, journal = root / ".dvc" / "tmp" / "rwlock", root / "journal.jsonl"
    (root / "hold").touch()
    by_hand = subprocess.Popen(command, cwd=root, env=dvc_cli.environment())
    _until(lambda: lock.exists() and "prepare" in lock.read_text())
    with dvc_cli.stopping_children():
        ours = threading.Thread(target=dvc_cli.repro, args=(root, "prepare"))
        ours.start()
        _until(lambda: journal.exists() and "which has artifacts/prepare" in journal.read_text())
        assert ours.is_alive()
        (root / "hold").unlink()
        assert by_hand.wait(60) == 0
        ours.join(60)
        assert not ours.is_alive()
        lock.write_text('{"write": {')
        dvc_cli.repro(root, "initial")
    assert (root / "artifacts" / "initial" / "result").exists()


def _until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)
