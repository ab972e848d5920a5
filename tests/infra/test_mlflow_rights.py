"""Rights by role on a real MLflow server with basic auth: what a trainer, a promoter and a reader can and cannot do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow_server
import pytest
import requests

from robustdistill.actions import intent, promote, reconcile
from robustdistill.actions.register import SHA
from robustdistill.errors import ServiceFailed, ServiceRefused
from robustdistill.services.mlflow_store import Store

pytestmark = pytest.mark.slow
As = Callable[[str], Store]
FORBIDDEN = "Permission denied|403"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mlflow_server.Running]:
    with mlflow_server.running(tmp_path_factory.mktemp("mlflow")) as found:
        done = found.grant("digits")
        assert done.returncode == 0, done.stderr
        yield found


@pytest.fixture
def as_user(server: mlflow_server.Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> As:
    """The project's own store, opened with the credentials of a user."""

    def open_store(user: str) -> Store:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", server.passwords[user])
        return Store.open(server.address, tmp_path)

    return open_store


@pytest.fixture
def candidate(as_user: As, tmp_path: Path) -> tuple[int, str]:
    """A version of digits-candidates that the trainer registered, and the id of the logged model that has its files."""
    store = as_user("trainer")
    experiment = store.experiment("digits")
    run = store.client.create_run(experiment).info.run_id
    (folder := tmp_path / "model").mkdir()
    (folder / "model.onnx").write_bytes(b"as judged")
    registry = store.registry
    registry.ensure("digits-candidates")
    model, location = registry.log_model(experiment, "student", run=run, tags={}, write=lambda *_: folder)
    made = registry.create(
        "digits-candidates", location, run=run, tags={"sha256": "of the judged file"}, model_id=model
    )
    return made.number, model


@pytest.fixture
def champion(as_user: As, candidate: tuple[int, str]) -> int:
    """A version of digits that the promoter made of it and points to."""
    registry = as_user("promoter").registry
    version = registry.version("digits-candidates", candidate[0])
    made = registry.create("digits", f"models:/digits-candidates/{version.number}", run=version.run, tags=version.tags)
    registry.point("digits", "champion", made.number)
    return made.number


def test_a_trainer_registers_candidates_and_cannot_touch_the_model(as_user: As, champion: int) -> None:
    registry = as_user("trainer").registry
    registry.tag("digits-candidates", 1, {"note": "may be written"})
    registry.ensure("digits")  # asks to make a model that is there: no error, and no rights gained
    forbidden: dict[str, Callable[[], Any]] = {
        "moves the champion": lambda: registry.point("digits", "champion", 1),
        "takes the champion away": lambda: registry.point("digits", "champion", None),
        "copies a candidate": lambda: registry.create("digits", "models:/digits-candidates/1", run="", tags={}),
        "copies by MLflow's client": lambda: registry.client.copy_model_version(
            "models:/digits-candidates/1", "digits"
        ),
        "marks a version": lambda: registry.tag("digits", champion, {"sha256": "mine"}),
        "marks the model": lambda: registry.tag_model("digits", "intent", "mine"),
        "renames the model": lambda: registry.client.rename_registered_model("digits", "elsewhere"),
        "deletes a version": lambda: registry.client.delete_model_version("digits", str(champion)),
        "deletes the model": lambda: registry.client.delete_registered_model("digits"),
        "deletes its candidates": lambda: registry.client.delete_registered_model("digits-candidates"),
    }
    for what, attempt in forbidden.items():
        with pytest.raises(Exception, match=FORBIDDEN):
            attempt()
            pytest.fail(what)
    assert as_user("reader").registry.aliases("digits") == {"champion": champion}
    assert as_user("reader").registry.version("digits", champion).tags == {"sha256": "of the judged file"}


def test_a_trainer_cannot_take_the_models_place(as_user: As, champion: int) -> None:
    """Its own models can get any free name, but neither that of the model nor a candidate's renamed to it."""
    registry = as_user("trainer").registry
    with pytest.raises(Exception, match=r"exists|403|Permission denied"):
        registry.client.rename_registered_model("digits-candidates", "digits")
    assert registry.aliases("digits") == {"champion": champion}


def test_a_promoter_moves_the_champion_and_takes_it_away(as_user: As, champion: int) -> None:
    registry = as_user("promoter").registry
    assert registry.aliases("digits") == {"champion": champion}
    registry.tag_model("digits", "intent", "x")
    registry.tag_model("digits", "intent", None)
    registry.point("digits", "champion", None)
    assert registry.aliases("digits") == {}


def test_a_reader_reads(as_user: As, champion: int, candidate: tuple[int, str], tmp_path: Path) -> None:
    store = as_user("reader")
    registry = store.registry
    assert (registry.download("digits", champion, tmp_path / "got") / "model.onnx").read_bytes() == b"as judged"
    for attempt in (
        lambda: registry.tag("digits-candidates", candidate[0], {"note": "x"}),
        lambda: registry.point("digits", "champion", champion),
        lambda: store.client.create_run(store.experiment("digits")),
    ):
        with pytest.raises(Exception, match=FORBIDDEN):
            attempt()


def test_a_trainer_can_alter_the_files_of_a_champion_and_the_mark_of_it_stays(
    as_user: As, candidate: tuple[int, str], champion: int, tmp_path: Path
) -> None:
    """A gap of MLflow's (docs/security.md): a copied version keeps its files where the candidate has them, and whoever
    may write to the experiment may overwrite them. So the sha256 beside the version, out of a trainer's reach, counts.
    """
    store = as_user("trainer")
    (other := tmp_path / "other").mkdir()
    (other / "model.onnx").write_bytes(b"swapped")
    store.client.log_model_artifacts(candidate[1], str(other))
    registry = as_user("reader").registry
    got = registry.download("digits", champion, tmp_path / "got") / "model.onnx"
    assert got.read_bytes() == b"swapped"
    assert registry.version("digits", champion).tags["sha256"] == "of the judged file"


@pytest.mark.parametrize("user", [None, "trainer", "promoter", "reader"])
def test_only_the_admin_makes_users_and_grants(server: mlflow_server.Running, user: str | None) -> None:
    auth = (user, server.passwords[user]) if user else None
    asked = [
        ("api/2.0/mlflow/users/create", {"username": "mallory", "password": "a-long-password"}),
        ("api/2.0/mlflow/users/update-admin", {"username": user, "is_admin": True}),
        (
            "api/3.0/mlflow/users/permissions/grant",
            {"username": user, "resource_type": "experiment", "resource_id": "0", "permission": "MANAGE"},
        ),
    ]
    for path, body in asked:
        verb = "PATCH" if path.endswith("admin") else "POST"
        answer = requests.request(verb, f"{server.address}/{path}", json=body, auth=auth, timeout=30)
        assert answer.status_code == (403 if user else 401), (path, answer.text)


def test_strangers_and_wrong_passwords_see_nothing(server: mlflow_server.Running) -> None:
    for path in ("api/2.0/mlflow/registered-models/search", "api/2.0/mlflow-artifacts/artifacts", "signup"):
        assert requests.get(f"{server.address}/{path}", timeout=30).status_code == 401, path
        wrong = requests.get(f"{server.address}/{path}", auth=("trainer", "wrong"), timeout=30)
        assert wrong.status_code == 401, path


def test_a_second_run_gives_the_same_rights_and_new_passwords(server: mlflow_server.Running, as_user: As) -> None:
    server.passwords["reader"] = "another-password-of-a-test"
    done = server.grant("digits", "letters")
    assert done.returncode == 0, done.stderr
    assert as_user("reader").registry.names() == ["digits", "digits-candidates", "letters", "letters-candidates"]


def test_a_refusal_names_no_password(server: mlflow_server.Running) -> None:
    wrong = mlflow_server.Running(server.address, {**server.passwords, "admin": "wrong-and-secret"})
    done = wrong.grant("digits")
    assert done.returncode == 4 and "401" in done.stderr
    assert "wrong-and-secret" not in done.stderr + done.stdout


def test_a_failure_is_the_projects_own(as_user: As) -> None:
    """What MLflow refuses reaches a person as a failed service, without a traceback."""
    with pytest.raises(ServiceFailed, match=FORBIDDEN):
        as_user("trainer").registry.point("digits", "champion", 1)


def test_a_trainer_hands_over_and_a_promoter_moves_the_champion(
    as_user: As, candidate: tuple[int, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a promotion between them that was cut short: the trainer leaves it alone, the promoter ends it."""
    monkeypatch.setattr(intent, "smoke_test", lambda *_: None)  # of the files; here it is about rights
    (work := tmp_path / "work").mkdir()
    number, passed = candidate[0], {"verdict": "pass"}

    def move(store: Store) -> promote.Promoted:
        return promote.promote(store, "digits", number, verdict=passed, record={}, by="a test", work=work)

    trainer = as_user("trainer")
    trainer.registry.tag("digits-candidates", number, {SHA: f"of student {number}"})
    before = trainer.registry.aliases("digits")
    with pytest.raises(ServiceRefused, match=FORBIDDEN):
        move(trainer)
    assert not intent.path(work).exists() and intent.TAG not in trainer.registry.tags("digits")
    promote.offer(trainer, "digits", number, verdict=passed, run="r1")
    assert trainer.registry.aliases("digits-candidates") == {"waiting": number}
    assert trainer.registry.aliases("digits") == before

    promoter = as_user("promoter")
    plan = intent.Intent.new("promotion", "digits", promoter.registry, by="a test", candidate=number)
    intent.declare(promoter, plan, work)
    made = intent.copy(promoter, plan, {"verdict": passed})
    trainer = as_user("trainer")
    with pytest.raises(ServiceRefused, match=FORBIDDEN):
        reconcile.reconcile(trainer, "digits", work)
    assert trainer.registry.aliases("digits") == before

    promoter = as_user("promoter")
    assert "completed" in reconcile.reconcile(promoter, "digits", work)[0]
    assert promoter.registry.aliases("digits")["champion"] == made
    assert promoter.registry.aliases("digits-candidates") == {}
    assert move(promoter).version == made  # once more: nothing moves
    assert intent.pending(promoter, "digits", work) is None
