"""A promotion and a rollback are ended by a crash between any two of their writes; then the next start mends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from toy_session import Crash, crash_before

from robustdistill.actions import champion, intent, owner
from robustdistill.actions.promote import Promoted, promote, rollback
from robustdistill.actions.reconcile import reconcile
from robustdistill.services.mlflow_registry import Registry
from robustdistill.services.mlflow_store import Store

PASS = {"verdict": "pass"}


def assert_one_valid_champion(store: Store, work: Path, among: tuple[int, ...]) -> int:
    number, sha = champion.current(store, "toy")
    assert number in among
    folder = champion.fetch(store, "toy", "champion", work / "models")
    assert folder is not None
    assert folder.name == sha
    version = store.registry.version("toy", number)
    assert version.tags[intent.STATE] == "confirmed"
    assert json.loads(version.tags[intent.RECORD])["verdict"] == PASS
    previous = store.registry.aliases("toy").get("previous")
    assert previous is None or (previous != number and store.registry.version("toy", previous))
    assert store.registry.tags("toy").get(intent.TAG) is None
    assert not intent.path(work).exists()
    assert reconcile(store, "toy", work) == []
    return number


@pytest.fixture
def two(store, work, registered):
    """Version 1 of toy is champion; candidate 2 is about to be promoted, and was a challenger."""
    promote(store, "toy", registered(1.0), verdict=PASS, record={}, by="me", work=work)
    number = registered(2.0)
    store.registry.point("toy-candidates", "challenger", number)
    return number


def test_a_crash_at_any_step_of_a_promotion_is_mended(store, work, two, monkeypatch):
    """Every step in one test: what the attempt before has moved is moved back."""
    ends = set()
    for nth in range(1, 40):
        with monkeypatch.context() as patch:
            begun = crash_before(patch, nth)
            try:
                promote(store, "toy", two, verdict=PASS, record={}, by="me", work=work)
            except Crash:
                crashed = True
            else:
                crashed = False
            writes = begun()
        said = reconcile(store, "toy", work)
        newest = store.registry.versions("toy")[0].number
        moved = assert_one_valid_champion(store, work, (1, newest)) == newest > 1
        assert store.registry.aliases("toy").get("previous") == (1 if moved else None)
        assert ("challenger" in store.registry.aliases("toy-candidates")) is not moved
        store.registry.point("toy-candidates", "challenger", two)
        ends.add((moved, bool(said)))
        _undo(store)
        if not crashed:
            assert writes < nth
            break
    else:
        pytest.fail("a promotion has more writes than were tried")
    # seen: dropped, completed, and nothing left to do with the new champion in place
    assert ends >= {(False, True), (True, True), (True, False)}


def test_a_crash_at_any_step_of_the_first_promotion_ever_is_mended(store, work, registered, monkeypatch):
    """Before it there is no registered model of that name: nothing to go back to, and nothing may stay half-made."""
    registered(1.0)
    kept = store.registry.versions("toy-candidates")
    dropped = set()
    for nth in range(1, 40):
        with monkeypatch.context() as patch:
            crash_before(patch, nth)
            try:
                promote(store, "toy", 1, verdict=PASS, record={}, by="me", work=work)
            except Crash:
                crashed = True
            else:
                crashed = False
        reconcile(store, "toy", work)
        dropped.add(champion.current(store, "toy") == (None, None))
        promote(store, "toy", 1, verdict=PASS, record={}, by="me", work=work)  # as the next flow does
        assert assert_one_valid_champion(store, work, (1,)) == 1
        assert store.registry.aliases("toy") == {"champion": 1}
        assert [version.number for version in store.registry.versions("toy")] == [1]
        assert store.registry.versions("toy-candidates") == kept
        store.client.delete_registered_model("toy")
        if not crashed:
            break
    else:
        pytest.fail("a promotion has more writes than were tried")
    assert dropped == {True, False}


KILLED = """
import os, signal, sys
from pathlib import Path
from robustdistill.actions.promote import promote
from robustdistill.services.mlflow_registry import Registry
from robustdistill.services.mlflow_store import Store

setattr(Registry, sys.argv[2], lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
work = Path(sys.argv[1])
promote(Store.open(None, work), "toy", 1, verdict={"verdict": "pass"}, record={}, by="me", work=work)
"""


@pytest.mark.parametrize(("step", "word"), [("create", "dropped"), ("point", "completed")])
def test_the_first_promotion_ever_killed_after_its_intent(store, work, registered, step, word):
    registered(1.0)
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    done = subprocess.run([sys.executable, "-c", KILLED, str(work), step], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert intent.path(work).exists() and intent.TAG in store.registry.tags("toy")
    assert store.registry.aliases("toy") == {}
    (said,) = reconcile(store, "toy", work)
    assert word in said
    assert promote(store, "toy", 1, verdict=PASS, record={}, by="me", work=work) == Promoted(1, None)
    assert assert_one_valid_champion(store, work, (1,)) == 1
    for name in ("toy", "toy-candidates"):
        assert [version.number for version in store.registry.versions(name)] == [1]


def _undo(store: Store) -> None:
    """Version 1 is champion again, and there is no way back: as before the attempt."""
    store.registry.point("toy", "champion", 1)
    store.registry.point("toy", "previous", None)


def test_a_crash_at_any_step_of_a_rollback_is_mended(store, work, two, monkeypatch):
    promote(store, "toy", two, verdict=PASS, record={}, by="me", work=work)
    for nth in range(1, 20):
        with monkeypatch.context() as patch:
            crash_before(patch, nth)
            try:
                rollback(store, "toy", 1, by="me", why="bad", work=work)
            except Crash:
                crashed = True
            else:
                crashed = False
        reconcile(store, "toy", work)
        if assert_one_valid_champion(store, work, (1, 2)) == 1:
            assert store.registry.aliases("toy")["previous"] == 2
            told = json.loads(store.registry.version("toy", 1).tags[intent.ROLLBACKS])
            assert len({item["token"] for item in told}) == len(told)
            store.registry.tag("toy", 2, {intent.STATE: "confirmed"})
        store.registry.point("toy", "champion", 2)
        store.registry.point("toy", "previous", 1)
        if not crashed:
            break
    else:
        pytest.fail("a rollback has more writes than were tried")


def interrupted(store, work, two, monkeypatch) -> intent.Intent:
    """A promotion that died between its copy and its aliases."""
    with monkeypatch.context() as patch:
        patch.setattr(Registry, "point", lambda *_: (_ for _ in ()).throw(Crash()))
        with pytest.raises(Crash):
            promote(store, "toy", two, verdict=PASS, record={}, by="me", work=work)
    found = intent.pending(store, "toy", work)
    assert found is not None
    return found


def test_a_copy_that_does_not_answer_is_reverted(store, work, two, monkeypatch):
    interrupted(store, work, two, monkeypatch)
    location = store.client.get_model_version_download_uri("toy", "2")
    (Path(location.removeprefix("file://")) / "model.onnx").write_bytes(b"rotten")
    (said,) = reconcile(store, "toy", work)
    assert "reverted" in said
    assert assert_one_valid_champion(store, work, (1,)) == 1
    assert store.registry.version("toy", 2).tags[intent.STATE] == "abandoned"


def test_another_machine_mends_it_from_the_tag_alone(store, work, two, monkeypatch):
    interrupted(store, work, two, monkeypatch)
    intent.path(work).unlink()
    (said,) = reconcile(store, "toy", work)
    assert "completed" in said
    assert assert_one_valid_champion(store, work, (2,)) == 2


def test_a_promotion_that_is_under_way_elsewhere_is_left_alone(store, work, two, monkeypatch):
    found = interrupted(store, work, two, monkeypatch)
    elsewhere = replace(found, owner="another-machine:12:34")
    intent.declare(store, elsewhere, work)
    intent.path(work).unlink()  # declared in a workspace of its own
    (said,) = reconcile(store, "toy", work)
    assert "left alone" in said
    assert store.registry.aliases("toy") == {"champion": 1}
    dead = replace(found, owner=f"{owner.here().rpartition(':')[0]}:1")
    intent.declare(store, dead, work)
    (said,) = reconcile(store, "toy", work)
    assert "completed" in said
    assert assert_one_valid_champion(store, work, (2,)) == 2


def test_nothing_to_mend(store, work, registered):
    assert reconcile(store, "toy", work) == []
    registered(1.0)
    intent.path(work).write_text("torn")
    assert reconcile(store, "toy", work) == []
    assert not intent.path(work).exists()


def test_what_was_settled_from_another_machine_is_not_done_again(store, work, two, tmp_path, monkeypatch):
    """A file left by a crash, after somebody else has completed the promotion and rolled it back."""
    with monkeypatch.context() as patch:
        crash_before(patch, 6)
        with pytest.raises(Crash):
            promote(store, "toy", two, verdict=PASS, record={}, by="me", work=work)
    assert intent.path(work).exists() and champion.current(store, "toy")[0] == 1
    store.registry.tag_model("toy", intent.TAG, _of_a_dead_process(store))
    assert reconcile(store, "toy", tmp_path / "other")[0].endswith("completed")
    rollback(store, "toy", None, by="them", why="complaints", work=tmp_path / "other")
    assert reconcile(store, "toy", work) == [] and champion.current(store, "toy")[0] == 1
    assert not intent.path(work).exists()


def _of_a_dead_process(store: Store) -> str:
    found = intent.Intent.loads(store.registry.tags("toy")[intent.TAG])
    assert found is not None
    here = owner.here().rsplit(":", 2)[0]
    return replace(found, owner=f"{here}:999999999:1").dumps()


def test_what_another_machine_left_long_ago_counts_as_given_up(store, work, two):
    plan = intent.Intent.new("promotion", "toy", store.registry, by="them", candidate=two)
    for at, said in (("2020-01-01T00:00:00+00:00", "dropped"), (plan.at, "left alone")):
        store.registry.tag_model("toy", intent.TAG, replace(plan, owner="gone:1:1", at=at).dumps())
        assert said in reconcile(store, "toy", work)[0]
