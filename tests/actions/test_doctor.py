"""The doctor on a workspace, on a machine without one, and on setups with a fault each."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from robustdistill import recipes
from robustdistill.actions import doctor
from robustdistill.actions.doctor import disk, house, privacy, remote, versions
from robustdistill.actions.doctor.finding import Case, Finding, check
from robustdistill.cli import main
from robustdistill.services import dvc_cli, git_cli
from robustdistill.workspace import Workspace


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "ROBUSTDISTILL_WORKSPACE", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """As `init` leaves it, but for data."""
    recipes.write(recipes.load("digits"), tmp_path)
    git_cli.init(tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text(dvc_cli.CONFIG)
    git_cli.commit(tmp_path, ["params.yaml", "policy.yaml", "dvc.yaml", ".dvc"], "start")
    return Workspace(tmp_path)


def _levels(findings: Iterator[Finding] | list[Finding]) -> dict[str, str]:
    return {finding.check: finding.level for finding in findings}


def _failed(findings: Iterator[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level == "FAIL"]


def test_a_sound_workspace(workspace: Workspace) -> None:
    found = _levels(house.examine(Case(workspace)))
    assert found.pop("data") == "warn"
    assert set(found.values()) == {"ok"} and {"params.yaml", "policy.yaml", "dvc.yaml", "git and DVC"} <= set(found)


def test_a_machine_without_a_workspace_is_said_to_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["doctor", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert caught.value.code == answer["exit_code"] == 0
    assert "no workspace" in answer["where"]
    assert not [each for each in answer["findings"] if each["level"] == "FAIL"]
    assert {"Python", "packages", "MLflow", "Prefect", "telemetry", "disk, temporary files"} <= {
        each["check"] for each in answer["findings"]
    }
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("params.yaml", "seed:", "seeed:", "params.yaml"),
        ("params.yaml", "name: ard", "name: nonsense", "params.yaml"),
        ("policy.yaml", "waivers:", "wavers:", "policy.yaml"),
        ("dvc.yaml", "stages:", "stages: # by hand", "dvc.yaml"),
    ],
)
def test_a_fault_in_a_file_is_found_and_the_rest_looked_at(
    workspace: Workspace, file: str, old: str, new: str, said: str
) -> None:
    path = workspace.root / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    findings = list(house.examine(Case(workspace)))
    [failed] = _failed(iter(findings))
    assert failed.check == said and failed.fix and not failed.service
    assert doctor.exit_code(findings) == 2 and len(findings) >= 5


def test_a_lost_repository_is_found(workspace: Workspace) -> None:
    (workspace.root / ".dvc" / "config").unlink()
    [failed] = _failed(house.examine(Case(workspace)))
    assert ".dvc" in failed.found and failed.fix == "robustdistill upgrade"


def test_what_does_not_come_to_an_end_is_left_behind() -> None:
    never = threading.Event()

    def hangs(_: Case) -> Iterator[Finding]:
        yield Finding("first", "ok", "")
        never.wait()

    begin = time.monotonic()
    found = doctor.together(Case(None), {"slow": hangs, "quick": disk.examine}, 0.5, services=True)
    assert time.monotonic() - begin < 5
    assert doctor.exit_code(found) == 4 and _levels(found)["slow"] == "FAIL" and "threads" in _levels(found)
    never.set()


def test_a_fault_of_ours_does_not_end_the_doctor_and_tells_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2-seeded")

    @check("broken")
    def broken(_: Case) -> Iterator[Finding]:
        yield Finding("said", "ok", "hunter2-seeded and s3://me:word@host")
        raise KeyError("hunter2-seeded")

    found = list(broken(Case(None)))
    assert [each.level for each in found] == ["ok", "FAIL"] and "KeyError" in found[1].found
    assert "hunter2" not in str(found) and "word" not in str(found)


def test_a_setup_comes_before_a_service() -> None:
    away, wrong = Finding("a", "FAIL", "", service=True), Finding("b", "FAIL", "")
    assert [doctor.exit_code(each) for each in ([], [away], [away, wrong])] == [0, 4, 2]


def test_packages_are_held_against_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    assert versions.conflicts() == []
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.165.0" if name.lower() == "fastapi" else real(name))
    wrong = versions.conflicts()
    assert any(each.startswith("prefect needs fastapi") or "robustdistill needs fastapi" in each for each in wrong)
    monkeypatch.setattr(versions, "installed", lambda name: "" if name == "dvc" else "1")
    assert any(each.endswith("needs dvc, which is missing") for each in versions.conflicts())


def _remote(workspace: Workspace, **settings: str) -> None:
    rows = "".join(f"    {key} = {value}\n" for key, value in settings.items())
    (workspace.root / ".dvc" / "config").write_text(f"[core]\n    remote = local\n['remote \"local\"']\n{rows}")


def test_a_remote_that_is_not_verified_or_not_named_is_wrong(workspace: Workspace) -> None:
    _remote(workspace, url="../.work/dvc-remote")
    [failed] = _failed(remote.examine(Case(workspace)))
    assert "verify true" in failed.fix
    (workspace.root / ".dvc" / "config").write_text("[core]\n")
    [failed] = _failed(remote.examine(Case(workspace)))
    assert "none is named" in failed.found


def test_a_password_in_the_remotes_address_is_found_and_not_repeated(workspace: Workspace) -> None:
    _remote(workspace, url="https://me:pass-word-seeded@host/x", verify="true")
    found = list(remote.examine(Case(workspace)))
    assert _failed(iter(found)) and "pass-word-seeded" not in str(found)


def test_the_machines_own_settings_of_a_remote_count(workspace: Workspace) -> None:
    place = workspace.root / "elsewhere"
    place.mkdir()
    (workspace.root / ".dvc" / "config.local").write_text(f"['remote \"local\"']\n    url = {place}\n")
    assert str(place) in next(each.found for each in remote.examine(Case(workspace)) if each.check == "DVC remote")


@pytest.mark.parametrize(("owed", "level"), [(False, "warn"), (True, "FAIL")])
def test_a_reader_is_no_fault_unless_there_is_something_to_push(owed: bool, level: str) -> None:
    assert remote._may_write(None, "s3://b", owed=owed).level == level
    assert remote._may_write(True, "s3://b", owed=owed).level == "ok"


def test_telemetry_that_is_on_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, quiet in privacy.SILENT.items():
        monkeypatch.setenv(name, quiet[0])
    assert _levels(privacy.examine(Case(None))) == {"telemetry": "ok", "pickles": "ok"}
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "true")
    [failed] = _failed(privacy.examine(Case(None)))
    assert "PREFECT_SERVER_ANALYTICS_ENABLED" in failed.found


def test_folders_that_others_may_open_are_found(workspace: Workspace) -> None:
    secrets = workspace.work / "stack" / "s3" / "secrets"
    for folder in (secrets, workspace.work / "prefect"):
        folder.mkdir(parents=True, mode=0o700)
    assert not _failed(privacy.examine(Case(workspace)))
    secrets.chmod(0o755)
    [failed] = _failed(privacy.examine(Case(workspace)))
    assert failed.fix == f"chmod 700 {secrets}"


def test_keys_in_a_file_that_others_read_are_found(workspace: Workspace) -> None:
    own = workspace.root / ".dvc" / "config.local"
    own.write_text("['remote \"local\"']\n    secret_access_key = seeded-secret\n")
    own.chmod(0o644)
    found = list(privacy.examine(Case(workspace)))
    assert [each.check for each in _failed(iter(found))] == ["DVC remote, keys"] and "seeded-secret" not in str(found)
    own.chmod(0o600)
    assert not _failed(privacy.examine(Case(workspace)))


def test_room_is_held_against_a_run_and_the_cache(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "size", lambda path: 400e6 if path.name == "artifacts" else 300e6)
    levels = {}
    for free in (700e6, 1000e6, 1200e6):
        monkeypatch.setattr(disk.shutil, "disk_usage", lambda _, free=free: _Usage(free))
        levels[free] = _levels(disk.examine(Case(workspace)))["disk, workspace"]
    assert list(levels.values()) == ["FAIL", "warn", "ok"]


class _Usage:
    def __init__(self, free: float) -> None:
        self.free = free


@pytest.mark.parametrize(("given", "level"), [("1", "ok"), ("many", "FAIL"), ("4096", "warn")])
def test_threads(given: str, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert _levels(disk.examine(Case(None)))["threads"] == level
