"""What gc leaves in DVC's cache, with real git and DVC, and in the workspace's folders."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from robustdistill.actions import data_news
from robustdistill.actions.gc import cache, leftovers
from robustdistill.actions.gc.item import Item, Policy
from robustdistill.actions.gc.records import Found
from robustdistill.errors import BadInput
from robustdistill.services import dvc_cli, git_cli, git_history
from robustdistill.workspace import Workspace

LATER = time.time() + 3600
NOTHING = Found([], [], set(), set(), set(), [])
TRACKED = ["data.dvc", ".gitignore", ".dvc"]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A workspace whose data were six different ones, and the commits of five by name."""
    root = tmp_path_factory.mktemp("history")
    git_cli.init(root)
    dvc_cli.init(root)
    commits = {}
    for name in ("tagged", "recorded", "forgotten", "branch", "head"):
        (root / "data").mkdir(exist_ok=True)
        (root / "data" / "x.txt").write_text(name)
        dvc_cli.add_data(root)
        assert git_cli.commit(root, TRACKED, name)
        commits[name] = git_cli.head(root) or ""
        if name == "branch":
            git_cli.git(root, "branch", "side")
            git_cli.git(root, "reset", "--quiet", "--hard", "HEAD~1")
    git_cli.git(root, "tag", "-a", "v1", commits["tagged"], "-m", "kept")
    (root / "data" / "x.txt").write_text("not committed")
    dvc_cli.add_data(root)
    return root, commits


@pytest.fixture
def root(history: tuple[Path, dict[str, str]], tmp_path: Path) -> Path:
    return shutil.copytree(history[0], tmp_path / "workspace", symlinks=True)


def _contents(root: Path) -> set[str]:
    """What the files in DVC's cache say, but for lists of files."""
    files = (root / ".dvc" / "cache" / "files").rglob("*")
    return {path.read_text() for path in files if path.is_file() and path.suffix != ".dir"}


ALL = {"tagged", "recorded", "forgotten", "branch", "head", "not committed"}


def test_the_cache_keeps_what_is_named(root: Path, history: tuple[Path, dict[str, str]]) -> None:
    commits = history[1]
    assert _contents(root) == ALL
    [item] = cache.find(Workspace(root), Policy(0, LATER), [commits["recorded"]], remote=False)
    assert (item.kind, item.count) == ("DVC cache", 2) and item.size and item.size > len("forgotten")
    assert _contents(root) == ALL and not git_cli.git(root, "for-each-ref", "refs/robustdistill")
    refs = git_cli.git(root, "for-each-ref")
    item.remove()
    assert _contents(root) == ALL - {"forgotten"}
    assert git_cli.git(root, "for-each-ref") == refs
    assert cache.find(Workspace(root), Policy(0, LATER), [commits["recorded"]], remote=False) == []
    git_cli.git(root, "checkout", "--quiet", "--force", commits["recorded"])
    dvc_cli.dvc(root, "checkout", "--force", "--quiet")
    assert (root / "data" / "x.txt").read_text() == "recorded"


def test_young_commits_and_the_last_ones_of_head_stay(root: Path) -> None:
    """head, forgotten and recorded are the last three of HEAD."""
    assert cache.find(Workspace(root), Policy(0, 0.0), [], remote=False) == []
    assert cache.find(Workspace(root), Policy(3, LATER), [], remote=False) == []
    [item] = cache.find(Workspace(root), Policy(2, LATER), [], remote=False)
    item.remove()
    assert _contents(root) == ALL - {"recorded"}


def test_the_remote_is_left_alone_unless_asked_for(root: Path) -> None:
    remote = root / ".work" / "dvc-remote"
    shutil.copytree(root / ".dvc" / "cache" / "files", remote / "files")  # as every run has pushed its own
    before = {path.name for path in remote.rglob("*") if path.is_file()}
    _remove(cache.find(Workspace(root), Policy(0, LATER), [], remote=False))
    assert {path.name for path in remote.rglob("*") if path.is_file()} == before
    items = cache.find(Workspace(root), Policy(0, LATER), [], remote=True)
    assert [item.kind for item in items] == ["DVC remote"] and items[0].size
    _remove(items)
    assert {path.name for path in remote.rglob("*") if path.is_file()} < before


def _remove(items: list[Item]) -> None:
    for item in items:
        item.remove()


def test_a_history_that_was_lost_is_no_reason_to_empty_the_cache(root: Path) -> None:
    shutil.rmtree(root / ".git")
    with pytest.raises(BadInput, match=r"lost its \.git"):
        cache.find(Workspace(root), Policy(0, LATER), [], remote=False)
    git_cli.init(root)
    (root / "dvc.lock").write_text("stages: {}\n")
    with pytest.raises(BadInput, match="knows no commit"):
        cache.find(Workspace(root), Policy(0, LATER), [], remote=False)
    assert _contents(root) == ALL


def test_a_line_holds_each_content_once(root: Path, history: tuple[Path, dict[str, str]]) -> None:
    commits = history[1]
    (root / "README").write_text("nothing that DVC reads")
    assert git_cli.commit(root, ["README"], "words")
    last, count = git_history.line(root, [git_cli.head(root) or "", commits["head"], commits["tagged"]])
    assert count == 2 and len(git_cli.git(root, "rev-list", last).split()) == 2
    assert git_history.line(root, []) == ("", 0)


@pytest.fixture
def full(tmp_path: Path) -> Workspace:
    """A workspace with all that a life leaves in its folders, an hour old."""
    git_cli.init(tmp_path)
    workspace, work = Workspace(tmp_path), tmp_path / ".work"
    paths = [
        work / "student" / "key" / "checkpoint",
        work / "rescored" / "key" / "scorecard.json",
        work / "models" / "of-a-version" / "model.onnx",
        work / "models" / "of-none" / "model.onnx",
        work / "models" / ".part-x" / "model.onnx",
        work / "mirror" / "sent" / "report" / "r.html",
        work / "mirror" / "untold" / "report" / "r.html",
        work / "logs" / "student.log",
        work / "errors" / "student.json",
        work / "prefect" / "prefect.db",
        work / "mlflow.db",
        work / "looks.jsonl",
        *(workspace.reports / f"{name}.html" for name in ("kept", "old", "older", "newest", "now")),
        *(
            workspace.imports / name / "model.safetensors"
            for name in ("pinned", "once", "champions", "present", "none")
        ),
        tmp_path / "journal.jsonl",
    ]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (work / "mirror.json").write_text(json.dumps({"offset": 0, "runs": {"untold": {}}}))
    for sha in ("once", "pinned"):
        workspace.pin.write_text(json.dumps({"sha256": sha}))
        assert git_cli.commit(tmp_path, [workspace.pin.name], sha)
    workspace.out("teacher").mkdir(parents=True)
    (workspace.out("teacher") / "model.json").write_text(json.dumps({"sha256": "present"}))
    for place, folders, names in os.walk(tmp_path):
        for name in (*folders, *names):
            if ".git" not in place:
                os.utime(Path(place) / name, (1000, 1000))
    os.utime(workspace.reports / "newest.html", (2000, 2000))
    return workspace


def test_leftovers_go_and_nothing_that_is_named(full: Workspace) -> None:
    found = Found([], [], {"kept"}, {"of-a-version"}, {"champions"}, [])
    items = list(leftovers.find(full, Policy(1, 3000.0), found))
    assert {item.name for item in items} == {
        ".work/student/key",
        ".work/rescored/key",
        ".work/models/of-none",
        ".work/models/.part-x",
        ".work/mirror/sent",
        ".work/logs/student.log",
        ".work/errors/student.json",
        "reports/old.html",
        "reports/older.html",
        "imports/none",
    }
    _remove(items)
    _remove(items)  # as after a crash
    assert not list(leftovers.find(full, Policy(1, 3000.0), found))
    assert (full.work / "mlflow.db").exists() and (full.imports / "once").exists()


def test_what_is_young_stays(full: Workspace) -> None:
    assert not list(leftovers.find(full, Policy(0, 500.0), NOTHING))
    (full.work / "student" / "key" / "checkpoint").write_text("goes on")
    assert ".work/student/key" not in {item.name for item in leftovers.find(full, Policy(0, 3000.0), NOTHING)}


def test_a_commit_that_is_not_here_is_no_reason_to_drop_what_it_needs(root: Path) -> None:
    with pytest.raises(
        BadInput, match="1 commits of runs that are kept are not in this repository, such as 000000000000"
    ):
        cache.find(Workspace(root), Policy(0, LATER), ["0" * 40], remote=False)


def test_data_that_no_run_has_seen_are_left_alone(root: Path) -> None:
    data_news.leave(Workspace(root), "d" * 32, "more")
    with pytest.raises(BadInput, match="no run has seen"):
        cache.find(Workspace(root), Policy(0, LATER), [], remote=False)
