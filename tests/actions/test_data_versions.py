"""The way back to an earlier version of the data: the same bytes, in a commit, and nothing lost on the way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustdistill.actions import data_news, data_versions, init, version
from robustdistill.actions.data import tree_digest
from robustdistill.cli import main
from robustdistill.errors import BadInput, ServiceFailed, Superseded
from robustdistill.services import dvc_cli, dvc_remote, git_cli
from robustdistill.workspace import Workspace

pytestmark = pytest.mark.slow


def darken(workspace: Workspace, pixel: int) -> str:
    """Changes one pixel of data/ by hand; its digest then."""
    path = workspace.data / "train_x.npy"
    pixels = np.load(path)
    pixels.reshape(-1)[pixel] ^= 1
    np.save(path, pixels)
    return tree_digest(workspace.data)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Three versions: two committed as a flow does, the third added and in no commit yet."""
    made = init.init(tmp_path_factory.mktemp("versions") / "digits", "digits")
    darken(made, 0)
    version.version_data(made)
    version.commit(made, "second")
    darken(made, 1)
    dvc_cli.add_data(made.root)
    return made


@pytest.fixture
def made(template: Workspace, tmp_path: Path) -> Iterator[Workspace]:
    yield Workspace(shutil.copytree(template.root, tmp_path / "digits", symlinks=True))


def digests(workspace: Workspace) -> list[str]:
    return [known.digest for known in data_versions.versions(workspace)]


def test_what_was_there_is_listed(made: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    third, second, first = data_versions.versions(made)
    assert third.digest == tree_digest(made.data) == dvc_cli.digest(made.root)
    assert (third.here, third.commit, second.here) == (True, "", False)
    commits = [line.split()[0] for line in git_cli.git(made.root, "log", "--format=%H").splitlines()]
    assert [second.commit, first.commit] == commits
    files = list(made.data.iterdir())
    assert (first.files, first.size) == (len(files), sum(path.stat().st_size for path in files))
    with pytest.raises(SystemExit):
        main(["--workspace", str(made.root), "data", "versions"])
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[0] == "digest" and [row.split()[0] for row in rows] == digests(made)
    assert rows[0].endswith("*") and second.commit[:12] in rows[1] and second.date in rows[1]


def test_going_back_brings_the_same_bytes_in_a_commit_and_loses_nothing(
    made: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    third, second, first = digests(made)
    with pytest.raises(SystemExit):
        main(["--workspace", str(made.root), "--json", "data", "use", first[:7]])
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (told["before"], told["after"], told["changed"]) == (third, first, True)
    assert tree_digest(made.data) == first == dvc_cli.digest(made.root)
    assert git_cli.git(made.root, "status", "--porcelain") == ""
    assert f"{data_news.HEADING}{first}" in data_news.waiting(made)
    assert not (made.work / "data-before").exists()
    assert digests(made) == [first, third, second]  # the third was in no commit before
    assert data_versions.use(made, first) is None
    for digest in (third, second):
        data_versions.use(made, digest)
        assert tree_digest(made.data) == digest
        assert version.version_data(made, expected=digest) == ""


def test_data_that_no_version_has_are_not_thrown_away(made: Workspace) -> None:
    *_, first = digests(made)
    mine = darken(made, 2)
    with pytest.raises(BadInput, match="would lose it") as caught:
        data_versions.use(made, first)
    assert "dvc add data" in caught.value.fix and tree_digest(made.data) == mine
    dvc_cli.add_data(made.root)  # as it says
    data_versions.use(made, first)
    data_versions.use(made, mine)
    assert tree_digest(made.data) == mine


@pytest.mark.parametrize("digits", ["f" * 32, "", "abc"])
def test_an_unknown_version_is_refused(made: Workspace, digits: str) -> None:
    with pytest.raises(BadInput, match="of the data has the digest") as caught:
        data_versions.use(made, digits)
    assert "data versions lists them" in caught.value.fix


def remove_from_cache(workspace: Workspace, digest: str) -> None:
    """The files of this version that no other one has."""
    cache = workspace.root / ".dvc" / "cache" / "files" / "md5"
    listings = {known: json.loads((cache / known[:2] / known[2:]).read_text()) for known in digests(workspace)}
    others = {item["md5"] for known, items in listings.items() if known != digest for item in items}
    for item in listings[digest]:
        if item["md5"] not in others:
            (cache / item["md5"][:2] / item["md5"][2:]).unlink()


def test_what_neither_cache_nor_remote_has_is_said_and_all_stays(made: Workspace) -> None:
    third, second, first = digests(made)
    before = (made.root / "data.dvc").read_bytes()
    remote = made.root / ".work" / "dvc-remote"
    assert remote.is_dir()  # pushed with the second version, which alone is there
    remove_from_cache(made, first)
    with pytest.raises(ServiceFailed, match=f"the version {first} of the data is not in DVC's cache here"):
        data_versions.use(made, first)
    assert tree_digest(made.data) == third and (made.root / "data.dvc").read_bytes() == before
    assert data_news.HEADING + first not in data_news.waiting(made).splitlines()[-3:]
    remove_from_cache(made, second)
    data_versions.use(made, second)  # from the remote
    assert tree_digest(made.data) == second


def test_an_altered_copy_is_refused_and_all_stays(made: Workspace) -> None:
    third, _, first = digests(made)
    cache = made.root / ".dvc" / "cache" / "files" / "md5"
    listing = json.loads((cache / first[:2] / first[2:]).read_text())
    [md5] = [item["md5"] for item in listing if item["relpath"] == "train_x.npy"]
    copy = cache / md5[:2] / md5[2:]
    copy.chmod(0o644)
    copy.write_bytes(copy.read_bytes()[:-1] + b"\x7f")
    copy.chmod(0o444)
    with pytest.raises(BadInput, match="was altered"):
        data_versions.use(made, first)
    assert tree_digest(made.data) == third == dvc_cli.digest(made.root)


def test_a_run_for_data_that_others_followed_is_superseded(made: Workspace) -> None:
    third, second, _ = digests(made)
    with pytest.raises(Superseded, match="those were there earlier") as caught:
        version.version_data(made, expected=second)
    assert caught.value.fix.endswith(f"data use {second}")
    mine = darken(made, 2)
    with pytest.raises(BadInput, match="asked for was") as caught:
        version.version_data(made, expected=third)
    assert not isinstance(caught.value, Superseded) and tree_digest(made.data) == mine


def test_every_remote_verifies_also_one_that_was_added_by_hand(made: Workspace, tmp_path: Path) -> None:
    assert dvc_remote.verify_all(made.root) == []  # that of `init`
    for name, level in (("other", "--project"), ("mine", "--local")):
        dvc_cli.dvc(made.root, "remote", "add", level, name, str(tmp_path / name))
    version.version_data(made)
    said = [line for line in made.journal.read_text().splitlines() if "`verify` is set" in line]
    assert len(said) == 2
    for name in ("local", "other", "mine"):
        assert dvc_cli.dvc(made.root, "config", f"remote.{name}.verify").strip() == "true"
    dvc_cli.dvc(made.root, "config", "remote.other.verify", "false")
    git_cli.git(made.root, "commit", "--quiet", "--all", "--message", "mine")
    assert init.upgrade(made) == [".dvc/config"] and init.upgrade(made) == []
    assert dvc_cli.dvc(made.root, "config", "remote.other.verify").strip() == "true"
    assert git_cli.git(made.root, "status", "--porcelain") == ""
