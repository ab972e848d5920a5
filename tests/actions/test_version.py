"""Data as a versioned step: a plan and a refused digest write nothing, altered copies are refused."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import pytest

from robustdistill.actions import init, version
from robustdistill.errors import BadInput, ServiceFailed
from robustdistill.services import dvc_cli, dvc_remote
from robustdistill.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return init.init(tmp_path_factory.mktemp("version") / "digits", "digits")


@pytest.fixture
def edited(made: Workspace) -> Workspace:
    """One more pixel is black."""
    path = made.data / "train_x.npy"
    pixels = np.load(path)
    pixels[0, 0, 0, 0] ^= 1
    np.save(path, pixels)
    return made


def test_unchanged_data_are_no_news(made: Workspace) -> None:
    assert version.version_data(made) == ""


def test_a_result_altered_in_the_cache_is_refused_and_can_be_made_again(made: Workspace) -> None:
    """DVC restores what lies in its cache and calls it up to date."""
    dvc_cli.dvc(made.root, "repro", "--single-item", "prepare")
    version.require_unaltered_results(made)
    labels = made.artifacts / "prepare" / "test_y.npy"
    md5 = hashlib.md5(labels.read_bytes(), usedforsecurity=False).hexdigest()
    cached = made.root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    flipped = np.load(labels)
    flipped[0] = (flipped[0] + 1) % 10
    cached.chmod(0o644)
    np.save(cached.with_suffix(".npy"), flipped)
    cached.with_suffix(".npy").replace(cached)
    cached.chmod(0o444)  # as DVC leaves what it trusts
    shutil.rmtree(made.artifacts / "prepare")
    dvc_cli.dvc(made.root, "checkout", "--quiet", "prepare")
    assert "prepare" not in dvc_cli.status(made.root)  # DVC does not notice
    with pytest.raises(BadInput, match="the result of stage prepare was altered") as caught:
        version.require_unaltered_results(made)
    assert caught.value.fix.startswith(f"rm -r artifacts/prepare {cached.relative_to(made.root)}, then")
    shutil.rmtree(made.artifacts / "prepare")
    cached.unlink()
    dvc_cli.dvc(made.root, "repro", "--single-item", "prepare")
    version.require_unaltered_results(made)


def test_looking_writes_nothing_and_a_real_run_versions(edited: Workspace) -> None:
    before = (edited.root / "data.dvc").read_bytes()
    assert "| class |" in version.version_data(edited, plan=True)
    with pytest.raises(BadInput, match="asked for was"):
        version.version_data(edited, expected="0" * 32 + ".dir")
    assert (edited.root / "data.dvc").read_bytes() == before
    assert "| class |" in version.version_data(edited)
    assert (edited.root / "data.dvc").read_bytes() != before


def test_an_altered_copy_in_the_cache_is_refused(edited: Workspace) -> None:
    dvc_cli.add_data(edited.root)
    for path in edited.data.iterdir():
        path.unlink()
    edited.data.rmdir()
    largest = max((edited.root / ".dvc" / "cache").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    largest.chmod(0o644)
    largest.write_bytes(largest.read_bytes()[:-1] + b"\x7f")
    largest.chmod(0o444)
    with pytest.raises(BadInput, match="altered"):
        version.version_data(edited)
    assert not edited.data.exists()


def test_a_push_that_failed_is_made_up_for(made: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: list[int] = []

    def away(_: object) -> None:
        raise ServiceFailed("away")

    monkeypatch.setattr(dvc_remote, "push", away)
    (made.root / "policy.yaml").write_text((made.root / "policy.yaml").read_text() + "# edited\n")
    with pytest.raises(ServiceFailed, match="away"):
        version.commit(made, "first")
    monkeypatch.setattr(dvc_remote, "push", lambda _: pushed.append(1))
    for _ in range(2):
        version.commit(made, "nothing new")
    assert pushed == [1]
