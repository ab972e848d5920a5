"""`robustdistill judge` in a workspace: its data and threat model by default, its registry by name."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from judge_any import CLASSES, EDGE, images, write_module

from robustdistill import recipes
from robustdistill.actions import rescored as rescoring
from robustdistill.actions.register import register
from robustdistill.cli import main
from robustdistill.data.files import write_json, write_npy
from robustdistill.data.prepared import Manifest
from robustdistill.engine.devices import Compute
from robustdistill.errors import ServiceFailed
from robustdistill.journal import Journal, read
from robustdistill.judge import autoattack
from robustdistill.models import ModelSpec, build, weights
from robustdistill.release import onnx
from robustdistill.services.mlflow_store import Store
from robustdistill.stages import score
from robustdistill.stages.tools import Tools
from robustdistill.workspace import Workspace

NAMES = ["ant", "bee", "cat", "dog"]
SHAPE = (1, EDGE, EDGE)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Prepared data, a stored adversarial set and an exported model, as far as a judge reads them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(autoattack, "ITERATIONS", 5)
    monkeypatch.setattr(autoattack, "QUERIES", 20)
    recipes.write(recipes.load("digits"), tmp_path)
    made = Workspace(tmp_path)
    x, y = images(60)
    pixels, ids = np.rint(x[:, None] * 255).astype(np.uint8), np.arange(60) * 77
    for name in ("prepare", "adversaries"):
        made.out(name).mkdir(parents=True)
    for split in ("train", "val", "test"):
        for part, array in (("x", pixels), ("y", y), ("id", ids)):
            write_npy(made.out("prepare") / f"{split}_{part}.npy", array)
    counts = dict.fromkeys(("train", "val", "test"), [15] * CLASSES)
    Manifest("image", SHAPE, NAMES, 0.0, 1.0, (0.3,), (0.2,), counts, {}, "d").write(made.out("prepare"))
    threat = made.params().threat.model(0.0, 1.0).to_json()
    write_npy(made.out("adversaries") / "test_x_adv.npy", pixels)
    write_npy(made.out("adversaries") / "test_id.npy", ids)
    write_json(made.out("adversaries") / "manifest.json", {"threat": threat, "source_sha256": "0" * 64})
    _export(made, "student", 0)
    return made


def _export(workspace: Workspace, name: str, seed: int) -> Path:
    spec = ModelSpec({"name": "small_cnn", "size": "nano"}, SHAPE, CLASSES, 0.0, 1.0, (0.3,), (0.2,))
    source, out = workspace.root / f"weights-{seed}", workspace.out("export") / name
    source.mkdir()
    weights.save(build(spec, seed, "judge"), source)
    onnx.export(source, out, NAMES, torch.from_numpy(images()[0][:2, None]), np.array([0], dtype=np.int64))
    return out


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def judge(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> Any:
        with pytest.raises(SystemExit) as caught:
            main(["judge", *arguments])
        return int(caught.value.code or 0), *capsys.readouterr()

    return run


def test_an_export_is_judged_as_the_score_stage_does(workspace: Workspace, judge: Run) -> None:
    export = workspace.out("export") / "student"
    code, out, _ = judge(str(export), "--out", "found", "--json")
    reads = {name: workspace.out(name) for name in ("prepare", "adversaries")} | {"export": export}
    tools = Tools(Compute("cpu", 1), Journal(workspace.root / "other.jsonl", "score"), workspace.root / "scratch")
    score.run(workspace.params(), reads, workspace.root / "stage", tools)
    for path in sorted((workspace.root / "stage").rglob("*.*")):
        assert (workspace.root / "found" / path.relative_to(workspace.root / "stage")).read_bytes() == path.read_bytes()
    said = json.loads(out)
    assert code == (0 if said["healthy"] else 3)
    assert {**said, **json.loads((workspace.root / "stage" / "scorecard.json").read_text())} == said
    assert said["sample"] == said["sample"] | {"n": 59, "trained_on": 1}
    assert "1 examples were left out: the model was trained on them" in said["notes"]
    assert {record["stage"] for _, record in read(workspace.journal)} == {"judge"}


def test_harder_is_more_steps_and_other_draws_on_the_same_examples(workspace: Workspace, judge: Run) -> None:
    export = str(workspace.out("export") / "student")
    usual, harder = (
        json.loads(judge(export, "--out", name, "--json", *more)[1])
        for name, more in (("usual", ()), ("harder", ("--harder", "20260131")))
    )
    assert harder["sample"]["digest"] == usual["sample"]["digest"]
    rows = {name: {row["name"]: row for row in said["attacks"]} for name, said in (("u", usual), ("h", harder))}
    own = [spec["steps"] for spec in workspace.params().judge.attacks if "steps" in spec]
    assert own and {f"pgd-{2 * steps}" for steps in own} <= {name.removesuffix("-margin") for name in rows["h"]}
    assert rows["u"].keys() != rows["h"].keys()


def test_own_code_on_the_workspaces_data(workspace: Workspace, judge: Run) -> None:
    write_module(workspace.root, "mine")
    said = json.loads(judge("mine:load", "--json")[1])
    assert said["data"] == "the workspace's test set" and said["sample"]["n"] == 60
    assert [row["class"] for row in said["per_class"]] == NAMES
    assert "transfer" in [attack["name"] for attack in said["attacks"]]
    other = json.loads(judge("mine:load", "--threat", "l2:0.5", "--quick", "--json")[1])
    assert other["threat"]["norm"] == "l2" and "transfer" not in [attack["name"] for attack in other["attacks"]]


def test_a_file_without_weights_is_attacked_from_the_workspaces_models(workspace: Workspace, judge: Run) -> None:
    shutil.copyfile(_export(workspace, "teacher", 1) / "model.onnx", workspace.root / "alone.onnx")
    code, out, _ = judge("alone.onnx", "--json")
    names = [attack["name"] for attack in json.loads(out)["attacks"]]
    assert code == 3 and names == ["transfer", "transfer-student", "transfer-teacher", "square"]


def test_versions_and_runs_are_found_by_name(workspace: Workspace, work: Path, store: Store, judge: Run) -> None:
    export = workspace.out("export") / "student"
    card, _, _ = judge(str(export), "--out", "found", "--quick"), None, None
    run = store.create_run(store.experiment("toy"), "retrain", started=0.0, tags={})
    made = register(
        store, "toy", export=export, scorecard=workspace.root / "found", parent_run=run, tags={}, description="d"
    )
    store.registry.point("toy-candidates", "challenger", made.version)
    store.log_files(run, {"kept": sorted(export.iterdir())})
    assert card[0] in (0, 3)
    wanted = json.loads((workspace.root / "found" / "judgement.json").read_text())["robust_accuracy"]
    for target in (f"models:/toy-candidates/{made.version}", "toy-candidates@challenger", f"runs:/{run}/kept"):
        code, out, err = judge(target, "--quick", "--json")
        assert code == card[0], err
        assert json.loads(out)["robust_accuracy"] == wanted
    for target, said in (
        ("toy-candidates@nobody", "no version or alias 'nobody'"),
        ("models:/toy", "names no version"),
    ):
        code, _, err = judge(target, "--quick")
        assert code == 2 and said in err


@pytest.mark.parametrize(("code", "fine"), [(0, True), (3, True), (1, False)])
def test_an_unhealthy_rescoring_is_for_the_gate_to_refuse(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, code: int, fine: bool
) -> None:
    loaded: list[Path] = []
    export = workspace.out("export") / "student"

    def judged(command: list[str], **_: Any) -> Any:
        out = Path(command[-1])
        out.mkdir(parents=True)
        (out / "scorecard.json").write_text(json.dumps({"subject": {"onnx_sha256": rescoring.sha256(export)}}))
        return type("Done", (), {"returncode": code, "stderr": "died"})

    monkeypatch.setattr(rescoring.subprocess, "run", judged)
    monkeypatch.setattr(rescoring.Evidence, "load", loaded.append)
    if fine:
        rescoring.rescored(workspace, export, "run", up_to_date=False)
        (loaded[0] / "scorecard.json").write_text(json.dumps({"subject": {"onnx_sha256": "0" * 64}}))
        loaded.clear()  # a card of another model in its place is judged anew
        rescoring.rescored(workspace, export, "run", up_to_date=False)
        assert len(loaded) == 1
        return
    with pytest.raises(ServiceFailed, match="died"):
        rescoring.rescored(workspace, export, "run", up_to_date=False)


def test_a_workspace_without_results_says_what_is_missing(workspace: Workspace, judge: Run) -> None:
    shutil.rmtree(workspace.out("adversaries"))
    code, _, err = judge(str(workspace.out("export") / "student"))
    assert code == 2 and "nothing to judge with yet" in err
