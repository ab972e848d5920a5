from __future__ import annotations

import json
from pathlib import Path

import pytest

from robustdistill.actions import intent
from robustdistill.actions.promote import Promoted, challenger, promote, rollback
from robustdistill.errors import BadInput, GateRefused, ServiceFailed
from robustdistill.services.mlflow_registry import Registry

PASS = {"verdict": "pass", "policy_sha256": "abc", "rules": []}


def promoting(store, work, number, **changes):
    given = {"verdict": PASS, "record": {"run": "r1"}, "by": "on call", "work": work} | changes
    return promote(store, "toy", number, **given)


def stored_model(store, name: str, number: int) -> Path:
    location = store.client.get_model_version_download_uri(name, str(number))
    return Path(location.removeprefix("file://")) / "model.onnx"


def test_first_and_second_promotion(store, work, registered):
    registered(1.0), registered(2.0)
    assert promoting(store, work, 1) == Promoted(1, None)
    assert store.registry.aliases("toy") == {"champion": 1}
    assert promoting(store, work, 2) == Promoted(2, 1)
    assert store.registry.aliases("toy") == {"champion": 2, "previous": 1}
    version = store.registry.version("toy", 2)
    assert version.source == "models:/toy-candidates/2"
    record = json.loads(version.tags[intent.RECORD])
    assert record["verdict"] == PASS
    assert record["policy_sha256"] == "abc"
    assert (record["by"], record["candidate"], record["champion_before"]) == ("on call", 2, 1)
    assert record["record"] == {"run": "r1"}
    assert version.tags[intent.STATE] == "confirmed"
    assert intent.pending(store, "toy", work) is None


def test_the_champion_is_not_promoted_again(store, work, registered):
    registered(1.0)
    promoting(store, work, 1)
    assert promoting(store, work, 1) == Promoted(1, None)
    assert len(store.registry.versions("toy")) == 1


@pytest.mark.parametrize("said", ["fail", "unhealthy", None])
def test_what_did_not_pass_is_not_promoted(store, work, registered, said):
    registered(1.0)
    with pytest.raises(GateRefused):
        promoting(store, work, 1, verdict={"verdict": said})
    assert store.registry.aliases("toy") == {}


def test_a_version_that_fails_its_smoke_test_never_becomes_champion(store, work, registered):
    registered(1.0), registered(2.0)
    promoting(store, work, 1)
    stored_model(store, "toy-candidates", 2).write_bytes(b"not a model")
    with pytest.raises(ServiceFailed, match="smoke test"):
        promoting(store, work, 2)
    assert store.registry.aliases("toy") == {"champion": 1}
    assert len(store.registry.versions("toy")) == 1


def test_altered_class_names_never_become_champion(store, work, registered):
    promoting(store, work, registered(1.0))
    number = registered(2.0)
    path = stored_model(store, "toy-candidates", number).with_name("export.json")
    path.write_text(path.read_text().replace('"cat"', '"wolf"'))
    with pytest.raises(ServiceFailed, match="class names, input range or scaling are not those"):
        promoting(store, work, number)
    assert store.registry.aliases("toy") == {"champion": 1}


def test_the_same_weights_under_other_names_can_be_promoted(store, work, registered):
    promoting(store, work, registered(1.0))
    assert promoting(store, work, registered(1.0, classes=["cat", "wolf", "eel"])) == Promoted(2, 1)


def test_a_version_that_does_not_exist_is_named(store, work, registered):
    registered(1.0)
    with pytest.raises(BadInput, match="has no version 7"):
        promoting(store, work, 7)


def test_challenger_waits_and_is_taken_down_once_promoted(store, work, registered):
    registered(1.0)
    challenger(store, "toy", 1)
    assert store.registry.aliases("toy-candidates") == {"challenger": 1}
    promoting(store, work, 1)
    assert store.registry.aliases("toy-candidates") == {}


def test_rollback_goes_back_and_leaves_a_record_on_both(store, work, registered):
    for scale in (1.0, 2.0, 3.0):
        promoting(store, work, registered(scale))
    assert rollback(store, "toy", None, by="me", why="complaints", work=work) == Promoted(2, 3)
    assert store.registry.aliases("toy") == {"champion": 2, "previous": 3}
    assert rollback(store, "toy", 1, by="me", why="still bad", work=work) == Promoted(1, 2)
    (told,) = json.loads(store.registry.version("toy", 1).tags[intent.ROLLBACKS])
    assert (told["from"], told["to"], told["by"], told["why"]) == (2, 1, "me", "still bad")
    assert "complaints" in store.registry.version("toy", 3).tags["robustdistill.withdrawn"]
    assert store.registry.version("toy", 2).tags[intent.STATE] == "withdrawn"


def test_rollback_needs_somewhere_to_go(store, work, registered):
    promoting(store, work, registered(1.0))
    registered(2.0)
    with pytest.raises(BadInput, match="no earlier champion") as caught:
        rollback(store, "toy", None, by="me", why="x", work=work)
    assert "mlflow.db" in caught.value.where
    assert "rollback" not in caught.value.fix and "promote N --why WHY" in caught.value.fix
    assert "N: 2;" in caught.value.fix and "flows/retrain.py" in caught.value.fix
    with pytest.raises(BadInput, match="champion already"):
        rollback(store, "toy", 1, by="me", why="x", work=work)
    with pytest.raises(BadInput, match="has no version 9") as caught:
        rollback(store, "toy", 9, by="me", why="x", work=work)
    assert caught.value.fix == "there is only version 1"
    with pytest.raises(BadInput, match="has no version 9") as caught:
        promoting(store, work, 9)
    assert caught.value.fix == "there are versions 2, 1"


def test_a_rollback_does_not_wait_for_a_promotion_whose_files_are_lost(store, work, registered, monkeypatch):
    for scale in (1.0, 2.0):
        promoting(store, work, registered(scale))
    number = registered(3.0)
    with monkeypatch.context() as patch:
        patch.setattr(Registry, "point", lambda *_: (_ for _ in ()).throw(ServiceFailed("gone")))
        with pytest.raises(ServiceFailed, match="gone"):
            promoting(store, work, number)
    stored_model(store, "toy-candidates", 3).parent.rename(work / "lost")
    assert rollback(store, "toy", None, by="me", why="x", work=work) == Promoted(1, 2)
    assert intent.pending(store, "toy", work) is None


def test_a_record_too_long_for_a_tag_keeps_its_verdict(store, work, registered):
    promoting(store, work, registered(1.0), record={"scorecard": "x" * 200_000})
    record = json.loads(store.registry.version("toy", 1).tags[intent.RECORD])
    assert record["verdict"] == PASS
    assert "too long" in record["record"]
