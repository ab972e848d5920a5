"""init: a whole workspace or nothing, in its own git repository."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

from robustdistill.actions import init as module
from robustdistill.actions.data import tree_digest
from robustdistill.actions.init import init, upgrade
from robustdistill.actions.version import version_data
from robustdistill.cli import main
from robustdistill.errors import BadInput, ServiceFailed
from robustdistill.services import dvc_cli, dvc_remote, git_cli
from robustdistill.workspace import Workspace

pytestmark = pytest.mark.slow
CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return init(tmp_path_factory.mktemp("place") / "new" / "demo", "digits")


def test_the_workspace_is_complete_and_committed(workspace: Workspace) -> None:
    assert workspace.params().name == "digits" and workspace.policy().promote == "auto"
    assert (workspace.data / "train_x.npy").exists()
    assert git_cli.git(workspace.root, "status", "--porcelain") == ""
    tracked = git_cli.git(workspace.root, "ls-files").split()
    assert {"params.yaml", "policy.yaml", "dvc.yaml", "data.dvc", "teacher.pin.json", ".dvc/config"} <= set(tracked)
    assert list(workspace.root.parent.iterdir()) == [workspace.root]  # nothing is left of the building site


def test_dvc_sees_every_stage_and_the_data_as_they_are(workspace: Workspace) -> None:
    found = dvc_cli.status(workspace.root)
    assert "data.dvc" not in found
    assert set(found) == set(dvc_cli.changed(workspace.root))


def test_its_data_are_the_same_anywhere(workspace: Workspace) -> None:
    content = yaml.safe_load((CHECKOUT / "data.dvc").read_text())
    assert content == yaml.safe_load((workspace.root / "data.dvc").read_text())


def test_the_checkouts_other_files_are_those_of_init(workspace: Workspace) -> None:
    for name in ("teacher.pin.json", ".dvc/config", ".dvc/.gitignore"):
        assert (CHECKOUT / name).read_text() == (workspace.root / name).read_text()
    ignored = set((CHECKOUT / ".gitignore").read_text().split())
    assert {"/data", "/artifacts"} <= ignored & set(module.IGNORED)  # else DVC writes .gitignore files of its own


def test_an_older_pipeline_is_renewed_once(workspace: Workspace) -> None:
    path = workspace.root / "dvc.yaml"
    path.write_text("stages: {}\n")
    assert upgrade(workspace)
    assert not upgrade(workspace)
    assert "prepare" in path.read_text() and not git_cli.dirty(workspace.root)


def _lose(root: Path, names: tuple[str, ...]) -> None:
    for name in names:
        shutil.rmtree(root / name)


@pytest.mark.parametrize("names", [(".git",), (".dvc",), (".git", ".dvc")])
def test_a_lost_repository_is_said_and_mended(workspace: Workspace, tmp_path: Path, names: tuple[str, ...]) -> None:
    root = tmp_path / "copy"
    shutil.copytree(workspace.root, root, symlinks=True)
    with (root / ".dvc" / "config").open("a") as stream:
        stream.write("['remote \"mine\"']\n    url = /there\n")
    git_cli.commit(root, [".dvc"], "A remote of my own")
    before = dvc_cli.digest(root)
    _lose(root, names)
    with pytest.raises(BadInput, match=" and its ".join(names)) as caught:
        dvc_cli.changed(root)
    assert "robustdistill upgrade" in caught.value.fix and caught.value.where == str(root)
    assert upgrade(Workspace(root)) == list(names)
    assert upgrade(Workspace(root)) == []
    assert dvc_cli.changed(root) and not git_cli.dirty(root)
    assert dvc_cli.digest(root) == before == dvc_cli.add_data(root)
    assert ("/there" in (root / ".dvc" / "config").read_text()) == (names != (".git", ".dvc"))
    assert "cache" not in git_cli.git(root, "ls-files", ".dvc")


def test_what_is_left_of_dvc_keeps_its_cache(workspace: Workspace, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(workspace.root, root, symlinks=True)
    shutil.rmtree(root / ".git")
    for name in ("config", ".gitignore"):
        (root / ".dvc" / name).unlink()
    cached = sorted((root / ".dvc" / "cache").rglob("*"))
    assert upgrade(Workspace(root)) == [".git", ".dvc"]
    assert sorted((root / ".dvc" / "cache").rglob("*")) == cached
    assert "cache" not in git_cli.git(root, "ls-files", ".dvc")


def test_images_of_ones_own_may_come_later(tmp_path: Path) -> None:
    made = init(tmp_path / "mine", "image_folder")
    assert not made.data.exists() and dvc_cli.digest(made.root) is None


def _clone(workspace: Workspace, into: Path) -> Workspace:
    git_cli.git(workspace.root, "clone", "--quiet", str(workspace.root), str(into))
    return Workspace(into)


def test_a_clone_takes_its_data_from_a_shared_remote(tmp_path: Path) -> None:
    made = init(tmp_path / "made", "digits", remote=str(tmp_path / "store"))
    dvc_remote.push(made.root)
    assert not (made.root / ".work" / "dvc-remote").exists()
    clone = _clone(made, tmp_path / "clone")
    assert version_data(clone) == ""
    assert tree_digest(clone.data) == dvc_cli.digest(made.root)


def test_a_clone_without_a_remote_is_told_what_to_do(tmp_path: Path, workspace: Workspace) -> None:
    clone = _clone(workspace, tmp_path / "clone")
    with pytest.raises(BadInput, match="as in a clone") as caught:
        version_data(clone)
    assert caught.value.exit_code == 2 and caught.value.where == str(clone.root / ".work" / "dvc-remote")
    assert "dvc remote modify" in caught.value.fix and "robustdistill init --remote" in caught.value.fix
    dvc_remote.push(workspace.root)
    dvc_cli.dvc(clone.root, "remote", "modify", "--local", "local", "url", str(workspace.work / "dvc-remote"))
    assert version_data(clone) == ""


def test_a_remote_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        init(tmp_path / "made", "image_folder", remote="nonsense://x")
    assert caught.value.where == "--remote" and list(tmp_path.iterdir()) == []


def test_an_endpoint_is_committed_with_its_remote(tmp_path: Path) -> None:
    made = init(tmp_path / "made", "image_folder", remote="s3://bucket/mine", endpoint="http://127.0.0.1:9000")
    config = (made.root / ".dvc" / "config").read_text()
    assert "url = s3://bucket/mine" in config and "endpointurl = http://127.0.0.1:9000" in config
    assert "verify = true" in config and not git_cli.dirty(made.root)


@pytest.mark.parametrize(
    ("remote", "endpoint", "words"),
    [
        ("s3://bucket/mine", "http://me:hidden@host", "committed to git"),
        ("s3://me:hidden@bucket/mine", None, "committed to git"),
        (None, "http://host", "an S3 remote"),
        ("s3://bucket/mine", "host:9000", "http"),
    ],
)
def test_an_address_that_tells_a_secret_or_leads_nowhere_is_refused(
    tmp_path: Path, remote: str | None, endpoint: str | None, words: str
) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        init(tmp_path / "made", "image_folder", remote=remote, endpoint=endpoint)
    assert "hidden" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(BadInput, match="not empty"):
        init(tmp_path, "digits")
    assert [item.name for item in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("recipe", ["digits", "nonsense"])
def test_nothing_is_left_of_a_failure(tmp_path: Path, recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(root: Path, remote: str | None) -> None:
        assert json.loads((root / "teacher.pin.json").read_text())["sha256"] is None
        raise ServiceFailed("no DVC today")

    monkeypatch.setattr(dvc_cli, "init", fail)
    with pytest.raises((ServiceFailed, BadInput)):
        init(tmp_path / "demo", recipe)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of 30 images, 8 × 8."""
    for number in range(60):
        path = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    return tmp_path / "photos"


def test_own_images_may_come_at_once(tmp_path: Path, photos: Path) -> None:
    made = init(tmp_path / "mine", "image_folder", source_path=photos)
    assert len(list((made.data / "cat").iterdir())) == 30 and dvc_cli.digest(made.root)


def test_own_images_that_are_refused_are_named_where_they_lie_with_the_way_to_the_setting(
    tmp_path: Path, photos: Path
) -> None:
    Image.new("RGB", (9, 8)).save(photos / "cat" / "wide.png")
    with pytest.raises(BadInput, match=f"{photos}/cat/wide.png") as caught:
        init(tmp_path / "mine", "image_folder", source_path=photos)
    assert caught.value.where == str(photos)
    assert "set data.resize" in caught.value.fix and "init without --path makes one" in caught.value.fix
    assert [item.name for item in tmp_path.iterdir()] == ["photos"]


def _sizes(folder: Path) -> None:
    """Two classes of 30 images of two sizes."""
    for number in range(60):
        path = folder / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8 + number // 2 % 2), (number, 0, 0)).save(path)


def test_resize_may_be_said_at_once_or_with_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _sizes(tmp_path / "photos")
    made = init(tmp_path / "mine", "image_folder", source_path=tmp_path / "photos", resize=8)
    assert made.params().data.resize == 8 and made.data.is_dir()
    later = init(tmp_path / "later", "image_folder")
    given = ["--workspace", str(later.root), "data", "add", str(tmp_path / "photos")]
    assert _cli(*given) == 2 and "--resize 8" in capsys.readouterr().err
    assert _cli(*given, "--resize", "2") == 2 and "where: --resize" in capsys.readouterr().err
    assert later.params().data.resize is None and not later.data.exists()
    assert _cli(*given, "--resize", "16", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["changed"] and told["resize"] == 16 == later.params().data.resize
    assert "# edge in pixels" in (later.root / "params.yaml").read_text()


def _cli(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return int(caught.value.code or 0)


def test_a_report_on_no_data_says_how_to_add_some(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = init(tmp_path / "mine", "image_folder")
    monkeypatch.chdir(tmp_path)
    assert _cli("--workspace", "mine", "data", "report") == 2
    said = capsys.readouterr().err
    assert "there are no data yet" in said and "robustdistill --workspace mine data add PATH" in said
    monkeypatch.chdir(made.root)
    assert _cli("data", "report") == 2
    assert "fix:   robustdistill data add PATH" in capsys.readouterr().err
    clone = _clone(workspace, tmp_path / "clone")
    assert _cli("--workspace", str(clone.root), "data", "report") == 2
    assert "dvc pull data.dvc" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "option", "fix"),
    [
        (["--name", "a b"], "--name", "a letter, then"),
        (["--resize", "3"], "--resize", "in pixels"),
        (["--path", "."], "--path", "image_folder"),
        (["--download"], "--download", "leave it out"),
    ],
)
def test_a_wrong_option_is_named_itself(
    tmp_path: Path, given: list[str], option: str, fix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _cli("init", str(tmp_path / "demo"), "--json", *given) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["where"] == option and fix in error["fix"]
    assert list(tmp_path.iterdir()) == []
