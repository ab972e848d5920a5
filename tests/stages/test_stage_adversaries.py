"""The adversarial set: inside the threat model, labelled as its originals, and it breaks what it says it breaks."""

from __future__ import annotations

import json
from pathlib import Path

import judged_workspace as made
import numpy as np
import pytest
import torch

from robustdistill.attacks.ball import ball
from robustdistill.config import Params, Threat
from robustdistill.data.files import write_npy
from robustdistill.data.prepared import Prepared
from robustdistill.errors import BadInput, RobustDistillError
from robustdistill.inputs.pixels import to_unit
from robustdistill.models import weights
from robustdistill.stages import adversaries


def run(root: Path, params: Params | None = None, out: str = "out") -> Path:
    reads = {
        "prepare": root / "prepare" if (root / "prepare").exists() else made.prepared(root / "prepare"),
        "initial": root / "initial" if (root / "initial").exists() else made.model(root / "initial"),
    }
    (root / out).mkdir()
    adversaries.run(params or made.params(), reads, root / out, made.tools(root, "adversaries"))
    return root / out


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 1.0), ("linf", "8/255"), ("linf", 0.0039)])
def test_what_is_stored_keeps_every_promise(tmp_path: Path, norm: str, eps: float | str) -> None:
    params = made.params().model_copy(update={"threat": Threat(norm=norm, eps=eps)})  # type: ignore[arg-type]
    out = run(tmp_path, params)
    data, model = Prepared.open(tmp_path / "prepare"), weights.load(tmp_path / "initial")
    threat = params.threat.model(0.0, 1.0)
    for name in ("train", "test"):
        split = data.split(name)  # type: ignore[arg-type]
        x_adv, y, ids, broke = (np.load(out / f"{name}_{part}.npy") for part in ("x_adv", "y", "id", "broke"))
        np.testing.assert_array_equal(y, split.y)
        np.testing.assert_array_equal(ids, split.id)
        found, x = torch.from_numpy(to_unit(x_adv)), torch.from_numpy(to_unit(np.asarray(split.x)))
        assert bool(ball(threat).contains(found, x).all()) and x_adv.dtype == np.uint8
        np.testing.assert_array_equal(model(found).argmax(1).numpy() != y, broke)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["source_sha256"] == weights.digest(tmp_path / "initial" / "model.safetensors")
    assert manifest["threat"] == threat.to_json() and manifest["counts"] == {"train": 30, "test": 30}
    assert set(manifest["success"]["test"]) == set(made.CLASSES)


def test_the_set_is_the_same_bytes_each_time_and_follows_its_source(tmp_path: Path) -> None:
    one, two = run(tmp_path), run(tmp_path, out="again")
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()
    other = made.params().model_copy(update={"seed": 5})
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (one, run(tmp_path, other, "other"))]
    assert manifests[0]["digest"] != manifests[1]["digest"]


def test_an_example_in_train_and_test_is_refused(tmp_path: Path) -> None:
    folder = made.prepared(tmp_path / "prepare")
    ids = np.load(folder / "test_id.npy")
    ids[3] = np.load(folder / "train_id.npy")[0]
    write_npy(folder / "test_id.npy", ids)
    with pytest.raises(BadInput, match="both in train and in test"):
        run(tmp_path)


@pytest.mark.parametrize(("part", "cause"), [("y", "labels"), ("id", "labels or ids"), ("x_adv", "outside")])
def test_validation_finds_a_changed_file(tmp_path: Path, part: str, cause: str) -> None:
    out = run(tmp_path)
    array = np.load(out / f"test_{part}.npy")
    write_npy(out / f"test_{part}.npy", array[::-1])
    split = Prepared.open(tmp_path / "prepare").split("test")
    with pytest.raises(RobustDistillError, match=cause):
        adversaries.validate(out, split, made.params().threat.model(0.0, 1.0))
