from __future__ import annotations

import pytest

from robustdistill.actions import champion
from robustdistill.actions.package import EXPORT_FILES
from robustdistill.actions.promote import promote, rollback
from robustdistill.actions.register import SHA
from robustdistill.errors import BadInput, ServiceFailed
from robustdistill.services.mlflow_registry import Registry


def promoted(store, work, number):
    return promote(store, "toy", number, verdict={"verdict": "pass"}, record={}, by="me", work=work).version


def test_before_the_first_promotion_there_is_nothing(store, work):
    assert champion.current(store, "toy") == (None, None)
    assert champion.fetch(store, "toy", "champion", work / "models") is None
    assert champion.rivals(store, "toy") == []
    with pytest.raises(BadInput, match="has no version 3"):
        champion.fetch(store, "toy", 3, work / "models")


def test_a_fetched_version_is_an_export_folder_and_fetched_once(store, work, registered, make_student, monkeypatch):
    promoted(store, work, registered(1.0))
    export, _ = make_student(1.0)
    folder = champion.fetch(store, "toy", "champion", work / "models")
    assert folder == work / "models" / champion.current(store, "toy")[1]
    for name in EXPORT_FILES:
        assert (folder / name).read_bytes() == (export / name).read_bytes()
    monkeypatch.setattr(Registry, "download", lambda *_: pytest.fail("fetched again"))
    assert champion.fetch(store, "toy", 1, work / "models") == folder
    assert champion.fetch(store, "toy-candidates", "1", work / "models") == folder


def test_a_spoilt_copy_is_fetched_anew(store, work, registered):
    promoted(store, work, registered(1.0))
    folder = champion.fetch(store, "toy", "champion", work / "models")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(b"bad")
    assert champion.fetch(store, "toy", "champion", work / "models") == folder
    assert (folder / "model.safetensors").read_bytes() == whole
    assert [path.name for path in (work / "models").iterdir()] == [folder.name]


def test_a_version_of_somebody_else_is_refused(store, work):
    store.registry.ensure("toy")
    run = store.create_run(store.experiment("toy"), "x", started=0.0, tags={})
    store.registry.create("toy", str(work / "anything"), run=run, tags={})
    with pytest.raises(ServiceFailed, match="not registered by robustdistill"):
        champion.fetch(store, "toy", 1, work / "models")


def test_rivals_are_the_most_robust_and_of_equals_the_newest(store, work, registered):
    for scale, robust in ((1.0, 0.5), (2.0, 0.7), (3.0, 0.7), (4.0, 0.6)):
        promoted(store, work, registered(scale, robust=robust))
    assert champion.rivals(store, "toy") == [3, 2, 4, 1]
    assert champion.current(store, "toy")[0] == 4


def test_versions_of_another_threat_model_come_after_all_of_this_one(store, work, registered):
    for scale, robust in ((1.0, 0.9), (2.0, 0.5)):
        promoted(store, work, registered(scale, robust=robust))
    store.registry.tag("toy", 1, {"robustdistill.threat": "linf 0.001"})
    assert champion.rivals(store, "toy") == [2, 1]  # the champion's by default
    assert champion.rivals(store, "toy", "linf 0.001") == [1, 2]


def test_best_and_the_way_back_pass_over_what_was_withdrawn(store, work, registered):
    for scale, robust in ((1.0, 0.5), (2.0, 0.6), (3.0, 0.9)):
        promoted(store, work, registered(scale, robust=robust))
    rollback(store, "toy", None, by="me", why="complaints", work=work)
    assert champion.rivals(store, "toy") == [2, 1]
    assert rollback(store, "toy", None, by="me", why="more complaints", work=work).version == 1  # not 3 again
    assert [version.number for version in champion.confirmed(store, "toy")] == [1]


def test_contents_that_were_withdrawn_stand_under_no_earlier_number(store, work, registered):
    """A, then B, then A again: rolled back, A is gone under both its numbers, until a person goes back to one."""
    for scale in (1.0, 2.0, 3.0):
        promoted(store, work, registered(scale))
    a = store.registry.version("toy", 1).tags[SHA]
    promoted(store, work, 1)
    assert rollback(store, "toy", None, by="me", why="complaints", work=work).version == 3
    assert champion.withdrawn(store, "toy", a) == 4
    assert champion.rivals(store, "toy") == [3, 2]
    assert rollback(store, "toy", None, by="me", why="more", work=work).version == 2
    with pytest.raises(BadInput, match="no earlier champion"):
        rollback(store, "toy", None, by="me", why="and 1 holds what 4 held", work=work)
    assert rollback(store, "toy", 1, by="me", why="it was the best after all", work=work).version == 1
    assert champion.withdrawn(store, "toy", a) is None
