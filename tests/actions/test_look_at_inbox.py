"""Looks at an inbox: what is taken, what is refused and named once, and what a kill in between costs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from robustdistill.actions import data, init, version, watch, watch_place
from robustdistill.actions.watch_state import State
from robustdistill.data import materialise
from robustdistill.errors import BadInput, ServiceFailed
from robustdistill.services import dvc_cli, git_cli, prefect_events
from robustdistill.workspace import Workspace

pytestmark = pytest.mark.slow
LONG_AGO = 1_600_000_000


def image(path: Path, seed: int, size: tuple[int, int] = (8, 8)) -> Path:
    """An image of its own; written long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = hashlib.shake_256(str(seed).encode()).digest(size[0] * size[1])
    Image.fromarray(np.frombuffer(content, np.uint8).reshape(size)).save(path)
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def many(folder: Path, first: int, n: int = 40) -> None:
    for i in range(first, first + n):
        image(folder / f"{i}.png", i)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of 40 cats and 40 dogs. To be copied."""
    place = tmp_path_factory.mktemp("watched")
    many(place / "photos" / "cat", 0)
    many(place / "photos" / "dog", 100)
    return init.init(place / "pets", "image_folder", name="pets", source_path=place / "photos").root


@pytest.fixture
def workspace(template: Path, tmp_path: Path) -> Workspace:
    return Workspace.find(shutil.copytree(template, tmp_path / "pets", symlinks=True))


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Mapping[str, Any]]]:
    """What Prefect's server is told; it is there and answers."""
    told: list[tuple[str, str, Mapping[str, Any]]] = []

    def emit(event: str, model: str, payload: Mapping[str, Any]) -> bool:
        told.append((event, model, payload))
        return True

    monkeypatch.setattr(prefect_events, "emit", emit)
    monkeypatch.setattr(prefect_events, "is_heard", lambda: True)
    return told


def commits(workspace: Workspace) -> int:
    return int(git_cli.git(workspace.root, "rev-list", "--count", "HEAD"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_new_images_are_added_versioned_and_told_once(workspace: Workspace, inbox: Path, events: list[Any]) -> None:
    before, had, old = dvc_cli.digest(workspace.root), commits(workspace), contents(workspace.data)
    image(inbox / "cat" / "new.png", 7001)
    found = watch.look(workspace, str(inbox))
    assert found.outcome == "ingested" and found.taken == ["cat/new.png"] and found.refused == {}
    assert contents(workspace.data) == old | {"cat/new.png": (inbox / "cat" / "new.png").read_bytes()}
    after = dvc_cli.digest(workspace.root)
    assert (found.before, found.after) == (before, after) and after == data.tree_digest(workspace.data) != before
    payload = {"digest": after, "before": before, "files": 1, "source": str(inbox)}
    assert events == [(prefect_events.DATA_CHANGED, "pets", payload)]
    assert commits(workspace) == had + 1 and not git_cli.dirty(workspace.root)
    assert (workspace.work / "not-pushed").exists()
    assert version.version_data(workspace, expected=after) == ""
    again = watch.look(workspace, str(inbox))
    assert again.outcome == "nothing new" and commits(workspace) == had + 1 and len(events) == 1


def test_an_empty_inbox_leaves_no_trace(workspace: Workspace, inbox: Path, events: list[Any]) -> None:
    def state() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in workspace.root.rglob("*")}

    before = state()
    with workspace.lock():  # nothing new does not even ask for the lock
        locked = state()
        assert watch.look(workspace, str(inbox)).outcome == "nothing new"
        assert state() == locked
    assert before.keys() <= locked.keys() and not events


def test_what_cannot_be_used_is_named_once_and_holds_nothing_up(
    workspace: Workspace, inbox: Path, events: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = image(inbox / "dog" / "good.png", 7002)
    (inbox / "dog" / "torn.png").write_bytes(good.read_bytes()[:40])
    (inbox / "torn.npz").write_bytes(b"PK\x03\x04 and no more")
    image(inbox / "dog" / "wide.png", 7003, (8, 9))
    image(inbox / "stray.png", 7004)
    (inbox / "dog" / "link.png").symlink_to("/etc/passwd")
    for path in [inbox / "dog" / "torn.png", inbox / "torn.npz"]:
        os.utime(path, (LONG_AGO, LONG_AGO))
    found = watch.look(workspace, str(inbox))
    assert found.outcome == "ingested" and found.taken == ["dog/good.png"]
    assert found.refused.keys() == {"dog/torn.png", "torn.npz", "dog/wide.png", "stray.png", "dog/link.png"}
    assert "[1, 8, 9], the data are [1, 8, 8]" in found.refused["dog/wide.png"]
    assert "no class" in found.refused["stray.png"] and "link" in found.refused["dog/link.png"]
    assert "dog/torn.png (" in found.sentence and len(events) == 1

    monkeypatch.setattr(watch_place, "examine", lambda *_: pytest.fail("it was looked at again"))
    again = watch.look(workspace, str(inbox))
    assert again.outcome == "nothing new" and "5 refused earlier" in again.sentence
    monkeypatch.undo()
    shutil.copyfile(good, inbox / "dog" / "torn.png")
    os.utime(inbox / "dog" / "torn.png", (LONG_AGO, LONG_AGO))
    mended = watch.look(workspace, str(inbox))
    assert mended.outcome == "ingested" and mended.taken == ["dog/torn.png"]


def test_only_refusals_are_an_outcome_of_their_own(workspace: Workspace, inbox: Path, events: list[Any]) -> None:
    old = contents(workspace.data)
    (inbox / "cat").mkdir()
    (inbox / "cat" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    os.utime(inbox / "cat" / "torn.png", (LONG_AGO, LONG_AGO))
    found = watch.look(workspace, str(inbox))
    assert found.outcome == "refused" and found.summary(workspace).exit_code == 1
    assert contents(workspace.data) == old and not events


def test_a_class_with_too_few_images_waits_for_more_and_holds_no_other_up(
    workspace: Workspace, inbox: Path, events: list[Any]
) -> None:
    many(inbox / "eel", 200, 5)
    image(inbox / "cat" / "new.png", 7005)
    found = watch.look(workspace, str(inbox))
    assert found.outcome == "ingested" and found.taken == ["cat/new.png"]
    assert "waiting for more: class eel" in found.sentence and not (workspace.data / "eel").exists()
    assert watch.look(workspace, str(inbox)).outcome == "nothing new"
    many(inbox / "eel", 205, 1)
    few = watch.look(workspace, str(inbox))
    assert few.outcome == "too few" and few.summary(workspace).exit_code == 0
    many(inbox / "eel", 206, 34)
    enough = watch.look(workspace, str(inbox))
    assert enough.outcome == "ingested" and len(enough.taken) == 40 == len(list((workspace.data / "eel").iterdir()))
    assert len(events) == 2


def test_a_file_that_is_still_being_written_is_not_taken(
    workspace: Workspace, inbox: Path, events: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = image(inbox / "cat" / "slow.png", 7006)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    for name in (".hidden.png", "upload.png.part", "upload.png.tmp"):
        image(inbox / "cat" / "x.png", 7007).rename(inbox / "cat" / name)
    found = watch.look(workspace, str(inbox))
    assert found.outcome == "nothing new" and "1 still being written" in found.sentence
    path.write_bytes(whole)
    assert watch.look(workspace, str(inbox)).outcome == "nothing new"
    now = time.time()
    os.utime(path, (now + 3600, now + 3600))  # the uploader's clock is ahead: two looks that see the same decide
    assert watch.look(workspace, str(inbox)).outcome == "nothing new"
    monkeypatch.setattr(time, "time", lambda: now + watch.SETTLE + 1)
    assert watch.look(workspace, str(inbox)).taken == ["cat/slow.png"]
    assert {path.name for path in (workspace.data / "cat").iterdir()} & {".hidden.png", "upload.png.part"} == set()


def test_a_file_that_changes_while_it_is_copied_is_left_for_the_next_look(
    workspace: Workspace, inbox: Path, events: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = image(inbox / "cat" / "moving.png", 7008)
    copy = shutil.copyfileobj

    def growing(stream: Any, target: Any) -> None:
        copy(stream, target)
        with path.open("ab") as more:
            more.write(b"more")

    monkeypatch.setattr("robustdistill.services.inbox.shutil.copyfileobj", growing)
    assert watch.look(workspace, str(inbox)).taken == []
    assert not events and not (workspace.data / "cat" / "moving.png").exists()


def test_an_image_of_a_name_that_is_taken_is_kept_beside_it(
    workspace: Workspace, inbox: Path, events: list[Any]
) -> None:
    old = contents(workspace.data)
    image(inbox / "cat" / "0.png", 7009)
    assert watch.look(workspace, str(inbox)).outcome == "ingested"
    now = contents(workspace.data)
    (added,) = now.keys() - old.keys()
    assert {name: now[name] for name in old} == old and added.startswith("cat/0~") and added.endswith(".png")
    image(inbox / "cat" / "0.png", 7010)  # sent anew: takes the place of what was sent before
    os.utime(inbox / "cat" / "0.png", (LONG_AGO + 1, LONG_AGO + 1))
    assert watch.look(workspace, str(inbox)).outcome == "ingested"
    assert len(contents(workspace.data)) == len(old) + 1 and contents(workspace.data) != now


@pytest.mark.parametrize("moment", ["data.add", "dvc_cli.add_data", "version.commit_data", "State.save"])
def test_a_kill_costs_a_repetition_and_loses_no_event(
    workspace: Workspace, inbox: Path, events: list[Any], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Killed right after the named step; the next look ends as if nothing had been."""
    image(inbox / "cat" / "new.png", 7011)
    owner, name = moment.split(".")
    place = State if owner == "State" else getattr(watch, owner)
    real: Callable[..., Any] = getattr(place, name)

    def killed(*given: Any, **named: Any) -> Any:
        done = real(*given, **named)
        if name == "save" and not given[0].files:
            return done  # the one before data/ is touched
        raise KeyboardInterrupt

    monkeypatch.setattr(place, name, killed)
    with pytest.raises(KeyboardInterrupt):
        watch.look(workspace, str(inbox))
    assert not events
    monkeypatch.setattr(place, name, real)
    watch.look(workspace, str(inbox))
    after = dvc_cli.digest(workspace.root)
    assert after == data.tree_digest(workspace.data) and (workspace.data / "cat" / "new.png").exists()
    assert [payload["digest"] for _, _, payload in events] == [after]
    assert watch.look(workspace, str(inbox)).outcome == "nothing new" and len(events) == 1


def test_an_event_that_did_not_go_out_is_sent_by_the_next_look(
    workspace: Workspace, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, told = [False, True], []
    monkeypatch.setattr(prefect_events, "is_heard", lambda: True)
    monkeypatch.setattr(prefect_events, "emit", lambda *given: told.append(given[2]["digest"]) or answers.pop(0))
    image(inbox / "cat" / "new.png", 7012)
    assert watch.look(workspace, str(inbox)).outcome == "ingested"
    assert watch.look(workspace, str(inbox)).outcome == "nothing new"
    assert watch.look(workspace, str(inbox)).outcome == "nothing new"
    assert told == [dvc_cli.digest(workspace.root)] * 2


def test_a_lost_state_changes_nothing(workspace: Workspace, inbox: Path, events: list[Any]) -> None:
    image(inbox / "cat" / "new.png", 7013)
    watch.look(workspace, str(inbox))
    shutil.rmtree(workspace.work / "watch")
    found = watch.look(workspace, str(inbox))
    assert found.outcome == "nothing new" and "hold them already" in found.sentence and len(events) == 1


def test_a_run_on_the_workspace_is_not_disturbed(workspace: Workspace, inbox: Path, events: list[Any]) -> None:
    image(inbox / "cat" / "new.png", 7014)
    with workspace.lock():
        found = watch.look(workspace, str(inbox))
    assert found.outcome == "busy" and "locked by another run" in found.sentence and not events
    assert watch.look(workspace, str(inbox)).outcome == "ingested"


def test_a_source_in_the_workspace_or_nowhere_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="lie in each other"):
        watch.look(workspace, str(workspace.root / "data"))
    with pytest.raises(BadInput, match="no such folder"):
        watch.look(workspace, str(tmp_path / "nowhere"))
    with pytest.raises(BadInput, match="neither S3 nor a folder"):
        watch.look(workspace, "ftp://user:pw@host/x")


def test_arrays_get_further_rows_and_no_row_twice(tmp_path: Path, inbox: Path, events: list[Any]) -> None:
    workspace = Workspace.find(init.init(tmp_path / "digits", "digits").root)
    old = np.load(workspace.data / "train_x.npy")
    rows = (old[:3].astype(np.int64) * 3 + 17).astype(np.uint8) % 255
    labels = np.load(workspace.data / "train_y.npy")
    np.savez(inbox / "more.npz", images=np.concatenate([rows, old[:2]]), labels=np.concatenate([[9, 9, 9], labels[:2]]))
    np.savez(inbox / "odd.npz", images=np.zeros((4, 9, 9), np.uint8), labels=np.zeros(4, np.int64))
    np.savez(inbox / "unnamed.npz", images=rows, labels=np.array([30, 31, 32]))
    for path in inbox.iterdir():
        os.utime(path, (LONG_AGO, LONG_AGO))
    found = watch.look(workspace, str(inbox))
    assert found.taken == ["more.npz"] and found.refused.keys() == {"odd.npz", "unnamed.npz"}
    assert len(np.load(workspace.data / "train_x.npy")) == len(old) + 3
    assert list(np.load(workspace.data / "train_y.npy")[-3:]) == [9, 9, 9]
    shutil.rmtree(workspace.work / "watch")
    assert watch.look(workspace, str(inbox)).taken == ["more.npz"] and len(events) == 1


def test_a_clone_gets_its_data_first(workspace: Workspace, inbox: Path, events: list[Any], tmp_path: Path) -> None:
    dvc_cli.dvc(workspace.root, "push")
    remote = workspace.root / ".work" / "dvc-remote"
    subprocess.run(["git", "clone", "-q", str(workspace.root), str(tmp_path / "clone")], check=True)
    clone = Workspace.find(tmp_path / "clone")
    dvc_cli.dvc(clone.root, "remote", "modify", "--local", "local", "url", str(remote))
    image(inbox / "cat" / "new.png", 7015)
    assert watch.look(clone, str(inbox)).outcome == "ingested"
    assert len(contents(clone.data)) == 81


def test_the_first_data_may_come_through_the_inbox(tmp_path: Path, inbox: Path, events: list[Any]) -> None:
    workspace = init.init(tmp_path / "fresh", "image_folder", name="fresh")
    many(inbox / "cat", 0)
    assert watch.look(workspace, str(inbox)).outcome == "too few"  # one class is none
    many(inbox / "dog", 100)
    found = watch.look(workspace, str(inbox))
    assert found.outcome == "ingested" and len(found.taken) == 80 and found.before is None
    assert events[0][2]["digest"] == dvc_cli.digest(workspace.root)


@pytest.mark.parametrize(
    "name", ["../cat/1.png", "cat/../../1.png", "/cat/1.png", "cat//1.png", "cat/\n.png", "a\\..\\b"]
)
def test_a_name_that_leads_out_of_the_data_is_refused(name: str) -> None:
    from robustdistill.services.inbox import fault_of_name

    assert fault_of_name(name)
    assert not fault_of_name("cat/größe 猫.png")


def test_a_disk_fault_is_told_and_nothing_is_taken(
    workspace: Workspace, inbox: Path, events: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    image(inbox / "cat" / "new.png", 7016)

    def full(*_: Any) -> bool:
        raise ServiceFailed("the disk is full")

    monkeypatch.setattr("robustdistill.services.inbox.Folder.fetch", full)
    with pytest.raises(ServiceFailed):
        watch.look(workspace, str(inbox))
    monkeypatch.undo()
    assert watch.look(workspace, str(inbox)).outcome == "ingested"


def test_digits_of_class_folders_are_read_as_data_add_reads_them(workspace: Workspace, tmp_path: Path) -> None:
    """What a look makes of an inbox is what `data add` makes of the same folder."""
    image(tmp_path / "inbox" / "cat" / "new.png", 7017)
    watch.look(workspace, str(tmp_path / "inbox"))
    many(tmp_path / "whole" / "cat", 0)
    many(tmp_path / "whole" / "dog", 100)
    shutil.copyfile(tmp_path / "inbox" / "cat" / "new.png", tmp_path / "whole" / "cat" / "new.png")
    materialise("image_folder", tmp_path / "added", path=tmp_path / "whole")
    assert data.tree_digest(tmp_path / "added") == dvc_cli.digest(workspace.root)


def test_two_looks_do_not_get_in_each_others_way(workspace: Workspace, inbox: Path, events: list[Any]) -> None:
    with watch._alone(workspace) as first, watch._alone(workspace) as second:
        assert first and not second
        assert watch.look(workspace, str(inbox)).outcome == "busy"
    assert watch.look(workspace, str(inbox)).outcome == "nothing new"
