"""What the doctor says of services: there, away, wrong key, wrong version, wrong clock, and rights on S3."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import fake_services as fakes
import pytest

from robustdistill.actions import doctor
from robustdistill.actions.doctor import mlflow, prefect, remote
from robustdistill.actions.doctor.finding import Case, Finding
from robustdistill.services import http_probe, s3_probe
from robustdistill.workspace import Workspace

PASSWORD = "seeded-password"
MLFLOW, PREFECT = metadata.version("mlflow"), metadata.version("prefect")


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's settings or keys but the test's."""
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", fakes.KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "seeded-secret-key")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def _named(found: Iterator[Finding] | list[Finding]) -> dict[str, Finding]:
    listed = list(found)
    assert PASSWORD not in str(listed) and "seeded-secret-key" not in str(listed)
    return {finding.check: finding for finding in listed}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("given", "level", "says"),
    [(None, "FAIL", "there are none"), ("wrong", "FAIL", "refuses these"), (PASSWORD, "ok", "lets us in")],
)
def test_mlflow_with_a_password(given: str | None, level: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    if given:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "trainer")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", given)
    with fakes.serving(fakes.mlflow(MLFLOW, user="trainer", password=PASSWORD)) as fake:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", fake.address)
        found = _named(mlflow.examine(Case(None)))
    assert found["MLflow"].level == level and says in found["MLflow"].found and not found["MLflow"].service


def test_a_password_in_the_uri_is_used_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    with fakes.serving(fakes.mlflow(MLFLOW, user="trainer", password=PASSWORD)) as fake:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", fake.address.replace("//", f"//trainer:{PASSWORD}@"))
        assert _named(mlflow.examine(Case(None)))["MLflow"].level == "ok"


@pytest.mark.parametrize(("version", "level"), [(MLFLOW, "ok"), ("3.1.0", "warn"), ("2.9.2", "FAIL")])
def test_the_servers_version_is_held_against_ours(version: str, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with fakes.serving(fakes.mlflow(version)) as fake:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", fake.address)
        assert _named(mlflow.examine(Case(None)))["MLflow, version"].level == level


@pytest.mark.parametrize(("ahead", "level"), [(0, "ok"), (-50, "ok"), (100, "warn"), (-3600, "warn")])
def test_a_wrong_clock_is_told(ahead: float, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = fakes.mlflow(MLFLOW)
    fake.ahead = ahead
    with fakes.serving(fake):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", fake.address)
        assert _named(mlflow.examine(Case(None)))["clock, MLflow"].level == level


def test_a_service_that_is_away_or_never_answers_is_a_service_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_probe, "SECONDS", 0.3)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{_free_port()}")
    assert doctor.exit_code(list(mlflow.examine(Case(None)))) == 4
    slow = fakes.mlflow(MLFLOW)
    slow.delay = 30
    with fakes.serving(slow):
        monkeypatch.setenv("PREFECT_API_URL", f"{slow.address}/api")
        begin = time.monotonic()
        assert doctor.exit_code(list(prefect.examine(Case(None)))) == 4
        assert time.monotonic() - begin < 10


def test_a_redirection_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    with fakes.serving(fakes.mlflow(MLFLOW)) as other:
        lures = fakes.Fake(lambda *_: (302, "", {"Location": f"{other.address}/version"}))
        with fakes.serving(lures):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", lures.address)
            assert _named(mlflow.examine(Case(None)))["MLflow"].level == "FAIL"
    assert lures.asked and other.asked == []


@pytest.mark.parametrize(("may", "level"), [("READ", "ok"), ("EDIT", "ok"), ("MANAGE", "ok")])
def test_artifacts_are_written_only_where_they_can_be_removed(
    may: str, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").touch()
    monkeypatch.setattr(Workspace, "name", "digits")
    with fakes.serving(fakes.mlflow(MLFLOW, may=may)) as fake:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", fake.address)
        assert "MLflow, artifacts" not in _named(mlflow.examine(Case(Workspace(tmp_path))))
        assert not [method for method, _ in fake.asked if method != "GET"]
        found = _named(mlflow.examine(Case(Workspace(tmp_path), write=True)))["MLflow, artifacts"]
    assert found.level == level and ("removed again" in found.found) == (may == "MANAGE")
    assert fake.kept == set()  # type: ignore[attr-defined]
    assert [method for method, _ in fake.asked].count("PUT") == (may == "MANAGE")


@pytest.mark.parametrize(("given", "level"), [("", "FAIL"), ("me:wrong", "FAIL"), (f"me:{PASSWORD}", "ok")])
def test_prefect_with_a_password(given: str, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", given)
    with fakes.serving(fakes.prefect(PREFECT, auth=f"me:{PASSWORD}")) as fake:
        monkeypatch.setenv("PREFECT_API_URL", f"{fake.address}/api")
        found = _named(prefect.examine(Case(None)))
    assert found["Prefect"].level == level
    assert ("Prefect, version" in found) == (level == "ok") and found["clock, Prefect"].level == "ok"


def test_an_address_of_prefect_without_its_path_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with fakes.serving(fakes.prefect(PREFECT)) as fake:
        monkeypatch.setenv("PREFECT_API_URL", fake.address)
        found = _named(prefect.examine(Case(None)))["Prefect"]
    assert found.level == "FAIL" and "/api" in found.fix


def _s3(root: Path, fake: Any, *, write: bool = False, bucket: str = "bucket") -> dict[str, Finding]:
    (root / ".dvc").mkdir(exist_ok=True)
    rows = f"url = s3://{bucket}/digits\n    endpointurl = {fake.address}\n    verify = true\n"
    (root / ".dvc" / "config").write_text(f"[core]\n    remote = local\n['remote \"local\"']\n    {rows}")
    return _named(remote.examine(Case(Workspace(root), write=write)))


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("versions", [False, True])
@pytest.mark.parametrize(
    ("may", "level"), [("list get", "warn"), ("list put get", "ok"), ("list put get delete", "ok")]
)
def test_rights_on_s3_are_told_by_role_and_nothing_is_left(
    may: str, level: str, versions: bool, write: bool, tmp_path: Path
) -> None:
    with fakes.serving(fakes.s3(may=may, versions=versions)) as fake:
        found = _s3(tmp_path, fake, write=write)
    assert found["DVC remote"].level == level, found
    assert fake.kept == {} and "DVC remote, probe" not in found  # type: ignore[attr-defined]
    assert found["clock, S3"].level == "ok"
    gets = [path for method, path in fake.asked if method == "GET" and "list-type" not in path]
    assert bool(gets) == (write and "delete" in may)


def test_a_reader_whose_workspace_has_something_to_push_is_wrong(tmp_path: Path) -> None:
    (tmp_path / ".work").mkdir()
    (tmp_path / ".work" / remote.OWED).touch()
    with fakes.serving(fakes.s3(may="list get")) as fake:
        assert _s3(tmp_path, fake)["DVC remote"].level == "FAIL"


def test_wrong_key_missing_bucket_no_list_and_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fakes.serving(fakes.s3()) as fake:
        assert "does not exist" in _s3(tmp_path, fake, bucket="another")["DVC remote"].found
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
        found = _s3(tmp_path, fake)["DVC remote"]
        assert "refuses these credentials" in found.found and not found.service
    away = _s3(tmp_path, fake)["DVC remote"]
    assert away.service and "does not answer" in away.found


def test_without_keys_no_other_host_is_asked_for_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    asked: list[Any] = []
    real = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", lambda self, place: (asked.append(place), real(self, place))[1])
    with fakes.serving(fakes.s3()) as fake:
        found = _s3(tmp_path, fake)["DVC remote"]
    assert "there are none" in found.found and asked == []


def test_the_probes_key_lies_below_the_remotes_own_folder(tmp_path: Path) -> None:
    with fakes.serving(fakes.s3()) as fake:
        _s3(tmp_path, fake)
    assert {path.partition("?")[0].rpartition("/")[0] for method, path in fake.asked if method == "PUT"} == {
        "/bucket/digits"
    }
    assert all(s3_probe.PROBE in path for method, path in fake.asked if method == "PUT")
