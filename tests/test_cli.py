"""The command line: exit codes, clean JSON, help that teaches, and a stage run the way DVC runs it."""

from __future__ import annotations

import errno
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from robustdistill import journal, launch, recipes
from robustdistill.actions import stage
from robustdistill.actions.stage import Stopped
from robustdistill.cli import guarded, main
from robustdistill.cli.errors import Interrupted, Terminated
from robustdistill.errors import BadInput, GateRefused, OutOfTime, RobustDistillError, ServiceFailed, Unhealthy
from robustdistill.services import leash
from robustdistill.stages import catalog
from robustdistill.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    recipes.write(recipes.load("digits"), tmp_path)
    (tmp_path / "data").mkdir()
    return Workspace(tmp_path)


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return int(caught.value.code or 0)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (GateRefused("no"), 1, "error: no"),
        (BadInput("bad", where="here", fix="mend"), 2, "error: bad\n  where: here\n  fix:   mend"),
        (Unhealthy("masked"), 3, "error: masked"),
        (ServiceFailed("away"), 4, "error: away"),
        (
            OSError(errno.ENOSPC, "No space left", "x"),
            4,
            "error: the disk is full\n  where: x\n  fix:   make room",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 4, "error: Permission denied\n  where: x"),
        (RuntimeError("bug"), 70, "error: unexpected RuntimeError: bug\n  fix:   run it again with --debug"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Stopped(), 143, "stopped"),
        (click.UsageError("which?"), 2, "Error: which?"),
    ],
)
def test_every_error_is_a_sentence_and_a_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    assert guarded(fail) == code
    out, err = capsys.readouterr()
    assert out == "" and said in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (GateRefused("no"), ["refused", "no", "", "", 1]),
        (BadInput("bad", where="here", fix="mend"), ["bad_input", "bad", "here", "mend", 2]),
        (Unhealthy("masked"), ["unhealthy", "masked", "", "", 3]),
        (ServiceFailed("away"), ["service_failed", "away", "", "", 4]),
        (RuntimeError("bug"), ["fault", "unexpected RuntimeError: bug", "", "run it again with --debug", 70]),
        (KeyboardInterrupt(), ["interrupted", "interrupted", "", "", 130]),
        (Stopped(), ["stopped", "stopped", "", "", 143]),
        (SystemExit(143), ["stopped", "stopped", "", "", 143]),
        (click.FileError("x"), ["bad_input", "Could not open file 'x': unknown error", "", "--help", 2]),
    ],
)
def test_an_error_can_be_read_by_a_program(
    error: BaseException, told: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    assert guarded(fail, as_json=True) == told[-1]
    out, err = capsys.readouterr()
    fields = ("kind", "cause", "where", "fix", "exit_code")
    assert json.loads(out) == {"error": dict(zip(fields, told, strict=True))}
    assert str(told[1]) in err


@pytest.mark.parametrize("error", [click.exceptions.Exit(0), click.exceptions.Exit(1), SystemExit(1)])
def test_an_exit_without_an_error_says_nothing(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    def leave() -> None:
        raise error

    guarded(leave, as_json=True)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("given", "cause", "where"),
    [
        (["nonsense"], "No such command 'nonsense'", "robustdistill"),
        (["init"], "Missing argument 'DIRECTORY'", "robustdistill init"),
        (["status", "--colour"], "No such option", "robustdistill status"),
        (["--workspace", "/nowhere", "status"], "not a workspace", "/nowhere"),
        ([], "Missing command", "robustdistill"),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_wrong_use_can_be_read_by_a_program(
    given: list[str], cause: str, where: str, before: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(*(["--json", *given] if before else [*given, "--json"])) == 2
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert (error["kind"], error["exit_code"], error["where"]) == ("bad_input", 2, where)
    assert cause in error["cause"] and error["fix"] and err


def test_only_the_option_counts_and_help_is_no_cause(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("predict", "--", "--json") == 2
    assert capsys.readouterr().out == ""
    assert _run("--json", "data") == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["cause"] == "a command is missing" and "Commands:" in err


def test_a_flow_tells_its_errors_in_the_same_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    flow = SimpleNamespace(name="retrain", fn=lambda workspace: None)
    for options in (["--json"], []):
        monkeypatch.setattr(sys, "argv", ["retrain.py", "--workspace", "/nowhere", *options])
        with pytest.raises(SystemExit, match="2"):
            launch.main(flow, {})
        out, err = capsys.readouterr()
        assert "not a workspace" in err and bool(out) == bool(options)
        assert not out or json.loads(out)["error"]["where"] == "/nowhere"


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: 1 // 0, debug=True) == 70
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert guarded(lambda: 3) == 3


def test_help_of_every_command_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("--help") == 0
    listed = capsys.readouterr().out
    for command in (
        "init",
        "data",
        "status",
        "teacher",
        "predict",
        "versions",
        "judge",
        "promote",
        "rollback",
        "ui",
        "doctor",
        "gc",
    ):
        assert f"\n  {command} " in listed
        assert _run(command, "--help") == 0
        assert "Options:" in capsys.readouterr().out
    assert "..." not in listed.split("Commands:")[1]  # each summary fits


@pytest.mark.parametrize("command", ["init", "methods", "status"])
def test_only_a_command_that_acts_on_a_workspace_takes_one(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(command, "--help") == 0
    text = capsys.readouterr().out.partition("Options:")[2]
    assert ("--workspace" in text) == (command == "status") and "--json" in text


@pytest.mark.parametrize("command", [("promote", "1"), ("rollback",)])
@pytest.mark.parametrize(("option", "other"), [("--why", "--by"), ("--by", "--why")])
@pytest.mark.parametrize("text", ["", " \t"])
def test_a_record_has_to_say_who_and_why(
    workspace: Workspace, command: tuple[str, ...], option: str, other: str, text: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given = ["--workspace", str(workspace.root), *command, option, text, other, "said", "--json"]
    assert _run(*given) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["where"] == option and "is empty" in error["cause"] and error["fix"].startswith(option)
    assert not workspace.work.exists()  # nothing was opened, so nothing is on record


def test_the_readme_lists_every_exit_code() -> None:
    listed = (Path(__file__).parents[1] / "README.md").read_text().split("## Exit codes")[1].split("##")[0]
    errors = [
        RobustDistillError, GateRefused, BadInput, Unhealthy, ServiceFailed, OutOfTime, Interrupted, Terminated
    ]  # fmt: skip
    codes = {0, *(error.exit_code for error in errors)}
    assert {int(number) for number in re.findall(r"(\d+) [a-z]", listed)} == codes


@pytest.mark.parametrize(
    "given", [["nonsense"], ["init"], ["teacher", "use", "file"], ["--workspace", "/nowhere", "status"]]
)
def test_wrong_use_is_bad_input(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(*given) == 2
    out, err = capsys.readouterr()
    assert out == "" and err


@pytest.mark.parametrize("before", [True, False])
def test_shared_options_may_stand_before_or_after(
    workspace: Workspace, before: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = ["--workspace", str(workspace.root), "--json"]
    assert _run(*(shared if before else []), "teacher", "use", "none", *([] if before else shared)) == 0
    assert json.loads(capsys.readouterr().out) == {"sha256": None}
    assert workspace.pin.exists()


def _stage(workspace: Workspace, name: str, revision: int = 1) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "robustdistill.cli", "stage", name, "--revision", str(revision)]
    return subprocess.run(command, cwd=workspace.root, capture_output=True, text=True, check=False)


def _events(workspace: Workspace) -> list[str]:
    return [record["event"] for _, record in journal.read(workspace.journal)]


def test_a_failed_stage_leaves_its_reason(workspace: Workspace) -> None:
    done = _stage(workspace, "prepare")
    assert done.returncode == BadInput.exit_code and done.stdout == ""
    record = json.loads(workspace.error("prepare").read_text())
    assert record["exit_code"] == BadInput.exit_code and record["cause"] in done.stderr
    assert _events(workspace) == ["start", "note", "failed"]


def test_a_pipeline_of_another_version_is_refused(workspace: Workspace) -> None:
    done = _stage(workspace, "prepare", revision=99)
    assert done.returncode == BadInput.exit_code and "robustdistill upgrade" in done.stderr


class _Runs:
    """Stands in for a stage's module."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    def run(self, params: object, reads: dict[str, Path], out: Path, tools: object) -> None:
        assert list(out.iterdir()) == []
        (out / "result").write_text("done")
        (tools.scratch / "checkpoint").write_text("")  # type: ignore[attr-defined]
        if self.error:
            raise self.error


@pytest.fixture
def unleashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leash, "watch", lambda: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)


def test_a_stage_starts_clean_and_keeps_checkpoints_only_if_it_failed(
    workspace: Workspace, unleashed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = workspace.out("prepare")
    out.mkdir(parents=True)
    (out / "old").write_text("of another run")
    scratch = workspace.work / "prepare"
    monkeypatch.setattr(stage, "importlib", SimpleNamespace(import_module=lambda _: _Runs(MemoryError("no room"))))
    with pytest.raises(MemoryError):
        stage.run(workspace, "prepare", 1)
    assert len(list(scratch.rglob("checkpoint"))) == 1
    monkeypatch.setattr(stage, "importlib", SimpleNamespace(import_module=lambda _: _Runs()))
    stage.run(workspace, "prepare", 1)
    assert [item.name for item in out.iterdir()] == ["result"]
    assert not scratch.exists() and not workspace.error("prepare").exists()
    assert _events(workspace) == ["start", "note", "failed", "start", "note", "end"]


def test_checkpoints_belong_to_exactly_these_inputs(workspace: Workspace) -> None:
    prepared = workspace.out("prepare")
    prepared.mkdir(parents=True)
    (prepared / "x.npy").write_bytes(b"1")
    entry, params = catalog.get("initial"), workspace.params()
    keys = [stage.input_key(workspace, entry, params)]
    keys.append(stage.input_key(workspace, entry, params.model_copy(update={"seed": 1})))
    (prepared / "x.npy").write_bytes(b"2")
    keys.append(stage.input_key(workspace, entry, params))
    (prepared / "x.npy").rename(prepared / "y.npy")
    keys.append(stage.input_key(workspace, entry, params))
    assert len(set(keys)) == 4
    unread = params.model_copy(update={"judge": params.judge.model_copy(update={"examples": 21})})
    assert stage.input_key(workspace, entry, unread) == keys[-1]


@pytest.mark.parametrize(
    ("name", "wrong", "words"), [("pgd", "pdg", "attack 'pdg'"), ("ard", "arrd", "objective 'arrd'")]
)
def test_status_refuses_what_a_run_would_refuse(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], name: str, wrong: str, words: str
) -> None:
    path = workspace.root / "params.yaml"
    text = path.read_text()
    assert f"name: {name}\n" in text
    path.write_text(text.replace(f"name: {name}\n", f"name: {wrong}\n", 1))
    assert _run("--workspace", str(workspace.root), "status") == 2
    assert f"unknown {words}" in capsys.readouterr().err


def test_long_lines_of_status_wrap_within_their_column(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = "it is not worse than the champion by more than the margins allow, and the floors hold, too " * 2
    found = {
        "workspace": "/" + "w" * 150,
        "model": "digits",
        "data": None,
        "running": None,
        "changed": list(catalog.STAGES),
        "last": {"outcome": "promoted", "sentence": sentence},
    }
    monkeypatch.setattr("robustdistill.actions.standing.standing", lambda _: found)
    monkeypatch.setenv("COLUMNS", "70")
    assert _run("--workspace", str(workspace.root), "status") == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 70 for line in lines if "www" not in line)
    assert sum("w" * 150 in line for line in lines) == 1  # a path stays whole
    starts = [line[:11].strip() for line in lines]
    assert [start for start in starts if start] == ["workspace", "model", "data", "would run", "last run"]
    words = " ".join(line[11:].strip() for line in lines)
    assert ", ".join(catalog.STAGES) in words and sentence.strip() in words


def test_versions_have_a_header(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"name": "digits-candidates", "version": 10, "aliases": "", "sha256": "0" * 64},
        {"name": "digits", "version": 1, "aliases": "champion", "sha256": "1" * 64},
    ]
    monkeypatch.setattr("robustdistill.actions.serving.versions", lambda _: rows)
    assert _run("--workspace", str(workspace.root), "versions") == 0
    assert capsys.readouterr().out.splitlines() == [
        "model              version  aliases   sha256",
        "digits-candidates  10       -         000000000000",
        "digits             1        champion  111111111111",
    ]
    rows.clear()
    assert _run("--workspace", str(workspace.root), "versions") == 0
    assert capsys.readouterr().out == "nothing is registered yet: run the flow\n"


def test_init_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "robustdistill.cli", "init", "W", "--recipe", "digits"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and time.monotonic() < until:
        time.sleep(0.02)
    process.terminate()
    assert process.wait(30) == 143
    assert list(tmp_path.iterdir()) == []
