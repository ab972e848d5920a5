"""What a flow does on a workspace that has a champion: data put there by hand, other teachers, data of another shape.

One workspace; each test goes on where the one before stopped. Flows run in this process, their stages do not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import scenario
from PIL import Image
from prefect.settings import PREFECT_API_URL

import promote
import retrain
from robustdistill.actions import data, teacher
from robustdistill.actions.decide import TEACHER
from robustdistill.actions.register import SHA
from robustdistill.errors import BadInput
from robustdistill.models import weights
from robustdistill.services import dvc_cli
from robustdistill.services.mlflow_registry import Version
from robustdistill.services.mlflow_store import Store
from robustdistill.workspace import Workspace

pytestmark = pytest.mark.slow
STUDENT = {"student", "export@student", "score@student"}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Iterator[Workspace]:
    """A small workspace whose first champion has just been promoted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        root = scenario.make(tmp_path_factory.mktemp("second") / "digits")
        scenario.finish(root)
        assert flow(Workspace(root))["outcome"] == "promoted"
        yield Workspace(root)


def flow(here: Workspace) -> dict[str, Any]:
    result: dict[str, Any] = retrain.retrain(str(here.root))
    return result


def ran(result: dict[str, Any]) -> set[str]:
    return {stage["name"] for stage in result["stages"] if stage["ran"]}


def rules(result: dict[str, Any]) -> dict[str, str]:
    return {rule["rule"]: rule["status"] for rule in result["verdict"]["rules"]}


def record(*parts: str | Path) -> dict[str, Any]:
    return dict(json.loads(Path(*parts).read_text()))


def aliases(here: Workspace, name: str = "digits") -> dict[str, int]:
    return Store.open(None, here.work).registry.aliases(name)


def version(here: Workspace, name: str, number: int) -> Version:
    return Store.open(None, here.work).registry.version(name, number)


def test_spoilt_files_are_refused_and_nothing_is_lost(here: Workspace) -> None:
    path = here.data / "train_y.npy"
    whole, before = path.read_bytes(), scenario.hashes(here.root)
    digest = dvc_cli.digest(here.root)
    np.save(path, np.load(path)[:-1])
    with pytest.raises(BadInput, match="images but"):
        flow(here)
    assert dvc_cli.digest(here.root) == digest and scenario.hashes(here.root) == before
    assert aliases(here) == {"champion": 1}
    path.write_bytes(whole)


@pytest.fixture(scope="module")
def by_hand(here: Workspace) -> dict[str, Any]:
    """A flow after somebody took images out, put some in twice and made the rest brighter; it may start warm."""
    for split, fewer in (("train", 20), ("test", 10)):
        x, y = (np.load(here.data / f"{split}_{part}.npy") for part in "xy")
        x = np.minimum(x[fewer:].astype(int) + 60, 255).astype(np.uint8)
        twice = 5 if split == "train" else 0
        np.save(here.data / f"{split}_x.npy", np.concatenate([x, x[:twice]]))
        np.save(here.data / f"{split}_y.npy", np.concatenate([y[fewer:], y[fewer : fewer + twice]]))
    scenario.edit(here.root / "params.yaml", {"teacher.warm_start": "champion"})
    before = record(here.artifacts, "prepare", "manifest.json")
    return flow(here) | {"before": before}


def test_files_put_there_by_hand_are_versioned_as_a_step_of_its_own(here: Workspace, by_hand: dict[str, Any]) -> None:
    digest = data.tree_digest(here.data)
    assert dvc_cli.digest(here.root) == digest
    assert digest in scenario.call("git", "show", "HEAD:data.dvc", cwd=here.root).stdout
    assert scenario.call("git", "status", "--porcelain", cwd=here.root).stdout == ""
    api = PREFECT_API_URL.value()
    artifact = httpx.get(f"{api}/artifacts/data-changes/latest").json()
    task = httpx.get(f"{api}/task_runs/{artifact['task_run_id']}").json()
    assert task["name"].startswith("version data") and task["state_type"] == "COMPLETED"


def test_its_report_says_what_changed(here: Workspace, by_hand: dict[str, Any]) -> None:
    text = httpx.get(f"{PREFECT_API_URL.value()}/artifacts/data-changes/latest").json()["data"]
    before, after = by_hand["before"]["counts"], record(here.artifacts, "prepare", "manifest.json")["counts"]
    for label, name in enumerate(str(digit) for digit in range(10)):
        [row] = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
        for split, cell in zip(("train", "val", "test"), row.strip("| ").split("|")[1:], strict=True):
            was, now = before[split][label], after[split][label]
            assert cell.strip() == (str(now) if was == now else f"{now} ({now - was:+d})")
    assert sum(after["test"]) == sum(before["test"]) - 10
    assert "5 duplicates" in text and "(notable)" in text


def test_what_reads_the_data_is_retrained_and_judged_against_the_champion_of_today(
    here: Workspace, by_hand: dict[str, Any]
) -> None:
    assert by_hand["outcome"] == "promoted"
    assert ran(by_hand) == {stage["name"] for stage in by_hand["stages"]}
    assert rules(by_hand)["champion_robust"] == rules(by_hand)["champion_clean"] == "pass"
    today = record(here.artifacts, "score", "student", "scorecard.json")
    [again] = [record(path) for path in (here.work / "rescored").glob("*/scorecard.json")]
    assert again["subject"]["onnx_sha256"] == version(here, "digits", 1).tags[SHA]
    assert again["sample"]["digest"] == today["sample"]["digest"]
    assert aliases(here) == {"champion": 2, "previous": 1}


def test_a_warm_start_begins_from_the_teacher_of_the_champion(
    here: Workspace, by_hand: dict[str, Any], tmp_path: Path
) -> None:
    first = version(here, "digits", 1).tags[TEACHER]
    assert record(here.pin) == {"sha256": first, "role": "start", "origin": "the champion's teacher"}
    told = [line["message"] for line in map(json.loads, here.journal.read_text().splitlines()) if "message" in line]
    assert f"the teacher begins from the champion's teacher, {first[:12]}" in told
    trained = weights.digest(here.artifacts / "teacher" / "model.safetensors")
    warm = here.params()
    cold = warm.model_copy(update={"teacher": warm.teacher.model_copy(update={"warm_start": "none"})})
    made = {
        name: weights.digest(scenario.compute(here, "teacher", tmp_path / name, params) / "model.safetensors")
        for name, params in (("warm", warm), ("cold", cold))
    }
    assert trained == made["warm"] != made["cold"]
    assert version(here, "digits", 2).tags[TEACHER] == trained != first


def test_a_registered_model_that_does_not_qualify_is_not_distilled(here: Workspace) -> None:
    told = scenario.robustdistill(here.root, "teacher", "use", "registry", "digits/1")
    assert told["sha256"] == version(here, "digits", 1).tags["robustdistill.safetensors_sha256"]
    scenario.edit(here.root / "policy.yaml", {"teacher.robust": 1.0})
    result = flow(here)
    assert (result["outcome"], result["exit_code"]) == ("refused", 1)
    assert "not worth distilling" in result["sentence"]
    assert ran(result) == {"teacher", "export@teacher", "score@teacher"}
    assert record(here.artifacts, "teacher", "summary.json")["origin"] == "digits/1"
    assert aliases(here) == {"champion": 2, "previous": 1}


def test_a_registered_model_that_qualifies_is_the_teacher_of_the_next_student(here: Workspace) -> None:
    scenario.edit(here.root / "policy.yaml", {"teacher.robust": 0.0})
    result = flow(here)
    assert result["outcome"] == "promoted"
    assert ran(result) == STUDENT
    given = version(here, "digits", 1).tags["robustdistill.safetensors_sha256"]
    for name in ("digits", "digits-candidates"):
        assert version(here, name, 3).tags[TEACHER] == given


@pytest.fixture(scope="module")
def other_shape(here: Workspace) -> dict[str, Any]:
    """A flow after data/ was replaced by a folder of larger images in colour, of other classes."""
    shutil.rmtree(here.data)
    pixels = np.random.default_rng(0)
    for split, count in (("train", 90), ("test", 12)):
        for label, name in enumerate(("blue", "green", "red")):
            folder = here.data / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                image = pixels.integers(0, 120, (10, 10, 3)).astype(np.uint8)
                image[..., 2 - label] += 100
                Image.fromarray(image).save(folder / f"{number}.png")
    scenario.edit(here.root / "params.yaml", {"data.val": 0.3})
    teacher.use_none(here)
    dvc_cli.add_data(here.root)
    scenario.finish(here.root)  # that a flow sees and retrains what changed has been tested above
    return flow(here)


def test_a_champion_of_another_shape_leaves_the_decision_to_a_person(
    here: Workspace, other_shape: dict[str, Any]
) -> None:
    assert (other_shape["outcome"], other_shape["exit_code"]) == ("challenger", 0)
    assert "waits as `challenger`" in other_shape["sentence"]
    assert "its shape differ, [1, 8, 8] and [3, 10, 10]" in other_shape["sentence"]
    assert rules(other_shape)["champion_robust"] == "not_applicable"
    assert aliases(here) == {"champion": 3, "previous": 2}
    assert aliases(here, "digits-candidates") == {"challenger": 4}
    assert scenario.call("git", "status", "--porcelain", cwd=here.root).stdout == ""


def test_the_challenger_is_promoted_by_a_person(here: Workspace, other_shape: dict[str, Any]) -> None:
    result = promote.promote(by="a test", why="other data now", workspace=str(here.root), version=4)
    assert result["outcome"] == "promoted"
    assert aliases(here) == {"champion": 4, "previous": 3}
    assert aliases(here, "digits-candidates") == {}
    assert (here.root / ".work" / "models" / version(here, "digits", 3).tags[SHA]).is_dir()
