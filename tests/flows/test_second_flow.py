"""What a flow does where there is a champion: spoilt data, a teacher from the registry, data of another shape.

One workspace; each test goes on where the one before stopped. Flows run in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scenario
from PIL import Image

import promote
import retrain
from robustdistill.actions import teacher
from robustdistill.actions.decide import TEACHER
from robustdistill.actions.register import SHA
from robustdistill.errors import BadInput
from robustdistill.services import dvc_cli
from robustdistill.stages.catalog import STAGES
from robustdistill.workspace import Workspace

pytestmark = pytest.mark.slow
STUDENT = {"student", "export@student", "score@student"}


@pytest.fixture(scope="module")
def here(finished: Path, copied: Callable[[Path], Path], prefect_server: None) -> Iterator[Workspace]:
    """A small workspace whose first champion has just been promoted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        workspace = Workspace.find(copied(finished))
        assert flow(workspace)["outcome"] == "promoted"
        yield workspace


def flow(here: Workspace) -> dict[str, Any]:
    result: dict[str, Any] = retrain.retrain(str(here.root))
    return result


def aliases(here: Workspace, name: str = "digits") -> dict[str, int]:
    return scenario.registry(here.root).aliases(name)


def tags(here: Workspace, name: str, number: int) -> Mapping[str, str]:
    return scenario.registry(here.root).version(name, number).tags


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


def test_a_registered_model_that_does_not_qualify_is_not_distilled(here: Workspace) -> None:
    told = scenario.robustdistill(here.root, "teacher", "use", "registry", "digits/1")
    assert told["sha256"] == tags(here, "digits", 1)["robustdistill.safetensors_sha256"]
    scenario.edit(here.root / "policy.yaml", {"teacher.robust": 1.0})
    result = flow(here)
    assert (result["outcome"], result["exit_code"]) == ("refused", 1)
    assert "not worth distilling" in result["sentence"]
    assert scenario.ran(result) == {"teacher", "export@teacher", "score@teacher"}
    assert scenario.read(here.artifacts, "teacher", "summary.json")["origin"] == "digits/1"
    assert aliases(here) == {"champion": 1}


def test_a_registered_model_that_qualifies_is_the_teacher_of_the_next_student(here: Workspace) -> None:
    scenario.edit(here.root / "policy.yaml", {"teacher.robust": 0.0})
    result = flow(here)
    assert result["outcome"] == "promoted"
    assert scenario.ran(result) == STUDENT
    given = tags(here, "digits", 1)["robustdistill.safetensors_sha256"]
    for name in ("digits", "digits-candidates"):
        assert tags(here, name, 2)[TEACHER] == given


def images(folder: Path) -> Path:
    """Larger images than digits, in colour, of three classes: noise with more of one colour."""
    pixels = np.random.default_rng(0)
    for split, count in (("train", 90), ("test", 12)):
        for channel, name in enumerate(("red", "green", "blue")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                image = pixels.integers(0, 120, (10, 10, 3)).astype(np.uint8)
                image[..., channel] += 100
                Image.fromarray(image).save(folder / split / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def other_shape(here: Workspace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A flow after images of another size and other classes were added in place of the digits."""
    scenario.edit(here.root / "params.yaml", {"data.val": 0.3})
    teacher.use_none(here)
    added = scenario.robustdistill(here.root, "data", "add", images(tmp_path_factory.mktemp("images") / "colours"))
    assert added["changed"] and added["changes"]["shape_after"] == [3, 10, 10]
    assert dvc_cli.changed(here.root) == list(STAGES)
    scenario.finish(here.root)
    return flow(here)


def test_a_champion_of_another_shape_leaves_the_decision_to_a_person(
    here: Workspace, other_shape: dict[str, Any]
) -> None:
    assert (other_shape["outcome"], other_shape["exit_code"]) == ("challenger", 0)
    assert "waits as `challenger`" in other_shape["sentence"]
    assert "it takes inputs of shape [1, 8, 8], the data have [3, 10, 10]" in other_shape["sentence"]
    assert scenario.rules(other_shape)["champion_robust"] == "not_applicable"
    assert aliases(here) == {"champion": 2, "previous": 1}
    assert aliases(here, "digits-candidates") == {"challenger": 3}
    assert scenario.call("git", "status", "--porcelain", cwd=here.root).stdout == ""


def test_the_challenger_is_promoted_by_a_person(here: Workspace, other_shape: dict[str, Any]) -> None:
    result = promote.promote(by="a test", why="other data now", workspace=str(here.root), version=3)
    assert result["outcome"] == "promoted"
    assert aliases(here) == {"champion": 3, "previous": 2}
    assert aliases(here, "digits-candidates") == {}
    assert (here.root / ".work" / "models" / tags(here, "digits", 2)[SHA]).is_dir()
