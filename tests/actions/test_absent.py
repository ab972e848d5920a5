"""A version that is not there: the message says what is, and what leads to one."""

from __future__ import annotations

import shutil

import pytest

from robustdistill import recipes
from robustdistill.actions import champion
from robustdistill.actions.promote import promote, rollback
from robustdistill.errors import BadInput
from robustdistill.services.mlflow_store import Store


def refused(store, work, name, asked):
    with pytest.raises(BadInput) as caught:
        champion.require(store, name, asked, work / "models")
    assert caught.value.exit_code == 2 and "mlflow.db" in caught.value.where
    return caught.value


def test_with_an_empty_registry_only_the_flow_leads_to_a_champion(store, work):
    error = refused(store, work, "toy", "champion")
    assert error.cause == "toy has no champion"
    assert error.fix.startswith("python flows/retrain.py") and "promote N" not in error.fix
    with pytest.raises(BadInput, match="toy has no champion") as caught:
        rollback(store, "toy", None, by="me", why="x", work=work)
    assert "flows/retrain.py" in caught.value.fix and "--to" not in caught.value.fix


def test_candidates_that_wait_are_named(store, work, registered):
    registered(1.0), registered(2.0)
    assert (
        "robustdistill --workspace DIR promote N --why WHY if it passes the gate, N: 2, 1"
        in refused(store, work, "toy", "champion").fix
    )
    assert "toy-candidates/2" in refused(store, work, "toy", "previous").fix


def test_versions_without_a_champion_and_other_aliases_are_named(store, work, registered):
    promote(store, "toy", registered(1.0), verdict={"verdict": "pass"}, record={}, by="me", work=work)
    error = refused(store, work, "toy", "chmpion")
    assert "no version or alias 'chmpion'" in error.cause and error.fix == "name one that it has: 1, champion"
    store.registry.point("toy", "champion", None)
    assert "rollback --to N --why WHY, N: 1" in refused(store, work, "toy", "champion").fix


@pytest.mark.parametrize(("above", "option"), [(0, ""), (1, " --workspace ws"), (2, " --workspace 'my models/ws'")])
def test_the_commands_act_on_the_workspace_that_was_asked(tmp_path, migrated, monkeypatch, above, option):
    home = tmp_path / "my models" / "ws"
    (home / ".work").mkdir(parents=True)
    recipes.write(recipes.load("digits"), home)
    shutil.copyfile(migrated, home / ".work" / "mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir([home, home.parent, tmp_path][above])
    store = Store.open(None, home / ".work")
    with pytest.raises(BadInput, match="no champion") as caught:
        rollback(store, "toy", None, by="me", why="x", work=home / ".work")
    assert caught.value.fix.startswith(f"python flows/retrain.py{option} trains")
    with pytest.raises(BadInput, match="no version 3") as caught:
        store.registry.version("toy", 3)
    assert caught.value.fix == f"run the flow: python flows/retrain.py{option}"


def test_a_long_list_of_versions_is_cut(store):
    store.registry.ensure("toy")
    for _ in range(12):
        store.registry.create("toy", "/nowhere", run="", tags={})
    with pytest.raises(BadInput, match="no version 99") as caught:
        store.registry.version("toy", 99)
    assert caught.value.fix == "the newest are 12, 11, 10, 9, 8, 7, 6, 5, 4, 3"


@pytest.mark.parametrize("asked", ["champion", 3, "latest"])
@pytest.mark.parametrize("name", ["tou", "it's"])
def test_another_name_gets_the_names_that_there_are(store, work, registered, name, asked):
    registered(1.0)
    error = refused(store, work, name, asked)
    assert ("toy-candidates" in error.fix) == (asked != "champion")


def test_what_mlflow_does_not_hold_is_bad_input(store, work):
    with pytest.raises(BadInput, match="nothing at runs:/abc/x"):
        store.registry.download_from("runs:/abc/x", work / "run")
