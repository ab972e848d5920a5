"""teacher use: weights from elsewhere are copied under their hash, pinned, and named in params."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from robustdistill import recipes
from robustdistill.actions import decide, teacher
from robustdistill.errors import BadInput
from robustdistill.models import build, weights
from robustdistill.models.spec import ModelSpec
from robustdistill.workspace import Workspace

SPEC = ModelSpec({"name": "small_cnn", "size": "nano"}, (1, 8, 8), 10, 0.0, 1.0, (0.3,), (0.4,))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    root = tmp_path / "workspace"
    root.mkdir()
    recipes.write(recipes.load("digits"), root)
    return Workspace(root)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A file that robustdistill wrote, under another name than it has in a workspace."""
    weights.save(build(SPEC, 3, "teacher"), tmp_path, "hardened")
    return tmp_path / "hardened.safetensors"


@pytest.fixture
def foreign(tmp_path: Path, own: Path) -> Path:
    """The same weights as another project would save them."""
    path = tmp_path / "theirs.safetensors"
    save_file({f"module.{name}": value for name, value in load_file(own).items()}, path)
    record = SPEC.to_json()
    record["architecture"] = record.pop("model")
    path.with_suffix(".json").write_text(json.dumps(record))
    return path


def pinned(workspace: Workspace) -> dict[str, Any]:
    return dict(json.loads(workspace.pin.read_text()))


def nobody_knows(*names: str) -> dict[str, Any]:
    """What a pin says of weights that came without a list of examples."""
    return {"trained_on": None, "unknown": list(names)}


@pytest.mark.parametrize("origin", ["own", "foreign"])
def test_weights_are_copied_under_their_hash_and_pinned(
    workspace: Workspace, origin: str, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(origin)
    digest = teacher.use_file(workspace, path)
    kept = workspace.imports / digest
    assert weights.digest(kept / "model.safetensors") == digest
    assert weights.load(kept).spec == SPEC
    described = {"sha256": digest, "description": weights.digest(kept / "model.json")}
    assert pinned(workspace) == described | {"role": "teacher", "origin": path.name} | nobody_knows(path.name)
    assert list(workspace.imports.iterdir()) == [kept]
    assert workspace.params().teacher.source == "file"
    assert teacher.use_file(workspace, path) == digest  # again: nothing new


def test_the_same_weights_described_anew_are_another_teacher(workspace: Workspace, foreign: Path) -> None:
    """A corrected normalisation must reach the model, and DVC must see that the stage has to run."""
    digest, settings = teacher.use_file(workspace, foreign), foreign.with_suffix(".json")
    before = pinned(workspace)
    record = json.loads(settings.read_text())
    settings.write_text(json.dumps(record | {"mean": [0.25], "std": [0.125]}))
    assert teacher.use_file(workspace, foreign) == digest
    assert pinned(workspace)["description"] != before["description"]
    assert weights.load(workspace.imports / digest).spec.mean == (0.25,)


def test_only_the_named_keys_of_params_change(workspace: Workspace, own: Path) -> None:
    path = workspace.root / "params.yaml"
    text = "# my own remark\n" + path.read_text()
    path.write_text(text)
    teacher.use_file(workspace, own, role="start")
    changed = [
        (before, after) for before, after in zip(text.splitlines(), path.read_text().splitlines(), strict=True)
        if before != after
    ]  # fmt: skip
    assert [after.split()[:2] for _, after in changed] == [["warm_start:", "pinned"]]
    assert not decide.asks_for_champion(workspace, ["teacher"])  # so that a flow leaves the pin alone
    teacher.use_none(workspace)
    assert path.read_text() == text
    assert json.loads(workspace.pin.read_text()) == teacher.NO_PIN


def test_a_version_is_taken_from_a_folder(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "version"
    folder.mkdir()
    digest = weights.save(build(SPEC, 4, "teacher"), folder)
    assert teacher.use_folder(workspace, folder, role="teacher", origin="digits/3") == digest
    assert workspace.params().teacher.source == "registry"


def test_what_cannot_be_loaded_changes_nothing(workspace: Workspace, own: Path, tmp_path: Path) -> None:
    before = (workspace.root / "params.yaml").read_text()
    bare = tmp_path / "bare.safetensors"
    bare.write_bytes(own.read_bytes())
    with pytest.raises(BadInput) as caught:
        teacher.use_file(workspace, bare)
    assert "--config" in caught.value.fix
    own.write_bytes(own.read_bytes()[:-1] + b"x")
    with pytest.raises(BadInput):
        teacher.use_file(workspace, own)
    with pytest.raises(BadInput, match="names no version"):
        teacher.use_registry(workspace, "digits")
    assert (workspace.root / "params.yaml").read_text() == before
    assert not workspace.pin.exists() and not workspace.imports.exists()


@pytest.fixture
def seeds(tmp_path: Path) -> list[Path]:
    """The same teacher trained from three seeds."""
    for seed in range(3):
        weights.save(build(SPEC, seed, "teacher"), tmp_path, f"seed{seed}")
    return [tmp_path / f"seed{seed}.safetensors" for seed in range(3)]


def test_several_teachers_are_pinned_as_their_mean(workspace: Workspace, seeds: list[Path]) -> None:
    digest = teacher.use_mean(workspace, "file", [str(path) for path in seeds])
    kept = workspace.imports / digest
    model = weights.load(kept)
    x = torch.from_numpy(np.linspace(0, 1, 2 * 64, dtype=np.float32).reshape(2, 1, 8, 8))
    with torch.no_grad():
        p = torch.stack([weights.load(path.parent, path.stem)(x).softmax(1) for path in seeds]).mean(0)
        torch.testing.assert_close(model(x).softmax(1), p)
    assert [member["sha256"] for member in model.spec.model["members"]] == [weights.digest(path) for path in seeds]
    assert json.loads(workspace.pin.read_text()) == {
        "sha256": digest,
        "description": weights.digest(kept / "model.json"),
        "role": "teacher",
        "origin": "mean of seed0.safetensors, seed1.safetensors, seed2.safetensors",
    } | nobody_knows(*(f"seed{number}.safetensors" for number in range(3)))
    assert workspace.params().teacher.source == "file"
    assert list(workspace.imports.iterdir()) == [kept]
    assert teacher.use_mean(workspace, "file", [str(path) for path in seeds]) == digest


def test_versions_are_averaged_too(workspace: Workspace, seeds: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from robustdistill.actions import serving

    def registered(_: Workspace, name: str, version: int | str) -> Path:
        folder = seeds[0].parent / f"{name}-{version}"
        folder.mkdir()
        weights.save(weights.load(seeds[0].parent, f"seed{version}"), folder)
        return folder

    monkeypatch.setattr(serving, "registered_folder", registered)
    digest = teacher.use_mean(workspace, "registry", ["digits/1", "digits/2"])
    members = weights.load(workspace.imports / digest).spec.model["members"]
    assert [member["sha256"] for member in members] == [weights.digest(path) for path in seeds[1:]]
    assert json.loads(workspace.pin.read_text())["origin"] == "mean of digits/1, digits/2"
    assert workspace.params().teacher.source == "registry"


def test_the_command_takes_several(workspace: Workspace, seeds: list[Path]) -> None:
    from click.testing import CliRunner

    from robustdistill.cli.root import root

    use = ["--workspace", str(workspace.root), "--json", "teacher", "use", "file"]
    done = CliRunner().invoke(root, [*use, *map(str, seeds[:2])], catch_exceptions=False)
    assert done.exit_code == 0
    digest = json.loads(done.stdout)["sha256"]
    assert len(weights.load(workspace.imports / digest).spec.model["members"]) == 2


def test_teachers_of_other_data_are_not_averaged(workspace: Workspace, own: Path, tmp_path: Path) -> None:
    weights.save(build(replace(SPEC, classes=3), 0, "teacher"), tmp_path, "other")
    with pytest.raises(BadInput, match="classes 10 and 3"):
        teacher.use_mean(workspace, "file", [str(own), str(tmp_path / "other.safetensors")])
    assert not workspace.pin.exists() and not workspace.imports.exists()


@pytest.fixture
def exported(tmp_path: Path) -> Any:
    """exported(seed, ids, unknown=()): a model as `export` writes it."""
    from robustdistill.release import onnx

    def make(seed: int, ids: list[int], unknown: tuple[str, ...] = ()) -> Path:
        source, out = tmp_path / f"trained{seed}", tmp_path / f"export{seed}"
        source.mkdir()
        weights.save(build(SPEC, seed, "teacher"), source)
        seen, names = np.array(ids, dtype=np.int64), [str(number) for number in range(10)]
        onnx.export(source, out, names, torch.zeros(2, 1, 8, 8), seen, unknown)
        return out

    return make


def listed(workspace: Workspace) -> list[int]:
    """The examples that the pinned model saw, as the teacher stage reads them."""
    from robustdistill.stages.teacher import read_pin, seen

    found = seen({"pin": workspace.pin}, read_pin(workspace.pin))
    return [int(number) for number in found.ids]


def test_what_an_exported_model_saw_comes_along(workspace: Workspace, exported: Any) -> None:
    """From a file, from a folder of the registry, and as the teacher of the champion."""
    export = exported(5, [3, 1, 2])
    digest = teacher.use_file(workspace, export / "model.safetensors")
    assert listed(workspace) == [1, 2, 3] and pinned(workspace)["unknown"] == []
    teacher.use_folder(workspace, export, role="start", origin="digits/3")
    assert listed(workspace) == [1, 2, 3] and pinned(workspace)["unknown"] == []
    champion = exported(6, [7, 8, 9], ("theirs.safetensors",))
    assert teacher.begin_from(workspace, digest, champion)
    assert listed(workspace) == [7, 8, 9] and pinned(workspace)["unknown"] == ["theirs.safetensors"]
    assert not teacher.begin_from(workspace, "0" * 64, champion)


def test_an_average_has_seen_what_its_members_saw(workspace: Workspace, exported: Any, foreign: Path) -> None:
    members = [exported(5, [1, 2]) / "model.safetensors", exported(6, [2, 3]) / "model.safetensors"]
    teacher.use_mean(workspace, "file", [str(path) for path in members])
    assert listed(workspace) == [1, 2, 3] and pinned(workspace)["unknown"] == []
    teacher.use_mean(workspace, "file", [str(members[0]), str(foreign)])
    assert listed(workspace) == [1, 2] and pinned(workspace)["unknown"] == [foreign.name]


def test_an_older_export_does_not_vouch_for_its_teacher(workspace: Workspace, exported: Any) -> None:
    export = exported(5, [1, 2])
    record = json.loads((export / "export.json").read_text())
    del record["unknown"]
    (export / "export.json").write_text(json.dumps(record))
    teacher.use_file(workspace, export / "model.safetensors")
    assert listed(workspace) == [1, 2]
    assert pinned(workspace)["unknown"] == ["a model exported before this was recorded"]


def test_an_altered_list_is_refused(workspace: Workspace, exported: Any) -> None:
    export = exported(5, [1, 2])
    digest = teacher.use_file(workspace, export / "model.safetensors")
    [kept] = (workspace.imports / digest).glob("*.npy")
    np.save(kept, np.array([1], dtype=np.int64))
    with pytest.raises(BadInput, match="was changed"):
        listed(workspace)
    np.save(export / "trained_on.npy", np.array([1], dtype=np.int64))
    with pytest.raises(BadInput, match="sha256 differs"):
        teacher.use_file(workspace, export / "model.safetensors")


@pytest.mark.parametrize(
    "given",
    [
        ["registry", "digits/1", "--config", "FILE"],
        ["none", "digits/1"],
        ["none", "--start"],
        ["none", "--config", "FILE"],
    ],
)
def test_what_would_be_ignored_is_refused(workspace: Workspace, own: Path, given: list[str]) -> None:
    from click.testing import CliRunner

    from robustdistill.cli.root import root

    given = [str(own) if word == "FILE" else word for word in given]
    done = CliRunner().invoke(root, ["--workspace", str(workspace.root), "teacher", "use", *given])
    assert done.exit_code == 2 and "Error:" in done.output and not workspace.pin.exists()
