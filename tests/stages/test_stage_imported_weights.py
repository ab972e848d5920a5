"""Teachers and first weights from elsewhere: how they come in, what they saw, which are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learner_toys import FILES, NANO, TRAINING, Stage, make_params, pin, summary

from robustdistill import models
from robustdistill.data.seen import IDS, UNKNOWN, Seen
from robustdistill.errors import BadInput
from robustdistill.journal import read
from robustdistill.models import ModelSpec, weights
from robustdistill.stages import student, teacher
from robustdistill.stages.tools import Tools


@pytest.mark.parametrize("source", ["file", "registry"])
def test_a_teacher_from_elsewhere_is_taken_as_it_is(stage: Stage, reads: dict[str, Path], source: str) -> None:
    sha256 = pin(reads, "teacher")
    params = make_params(teacher={"source": source})
    out = stage(teacher, params, "teacher")
    found = summary(out)
    assert sorted(path.name for path in out.iterdir()) == sorted([*FILES, IDS, UNKNOWN])
    assert (found["sha256"], found["origin"], found["epochs"]) == (sha256, "elsewhere", 0)
    assert 0 <= found["val_pgd"] <= found["val_clean"] <= 1
    assert weights.load(out).spec.mean == (0.1,)
    assert summary(stage(student, params, "student"))["epochs"] == 2


def test_the_mean_of_several_teachers_is_distilled_and_exported_like_one(stage: Stage, reads: dict[str, Path]) -> None:
    from robustdistill.models.ensemble import average
    from robustdistill.stages import export

    spec = ModelSpec(NANO, (1, 8, 8), 2, 0.0, 1.0, (0.4,), (0.25,))
    mean = average([(models.build(spec, seed, "member"), f"{seed:064x}") for seed in range(3)])
    folder = reads["pin"].parent / "imports" / "new"
    folder.mkdir(parents=True)
    sha256 = weights.save(mean, folder)
    folder.rename(folder.with_name(sha256))
    reads["pin"].write_text(json.dumps({"sha256": sha256, "role": "teacher", "origin": "mean of three"}))
    params = make_params(teacher={"source": "file"})
    found = summary(stage(teacher, params, "teacher"))
    assert found["sha256"] == sha256 and len(found["model"]["members"]) == 3
    stage(student, params, "student")
    reads["model"] = reads["teacher"]
    assert (stage(export, params, "export") / "model.onnx").is_file()


def test_the_folder_of_imports_may_be_named(stage: Stage, reads: dict[str, Path]) -> None:
    sha256 = pin(reads, "teacher")
    (reads["pin"].parent / "imports").rename(reads["pin"].parent / "elsewhere")
    reads["imports"] = reads["pin"].parent / "elsewhere"
    assert summary(stage(teacher, make_params(teacher={"source": "file"}), "teacher"))["sha256"] == sha256


def corrupt(reads: dict[str, Path]) -> None:
    (path,) = (reads["pin"].parent / "imports").glob("*/model.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def rename_hash(reads: dict[str, Path], sha256: Any) -> None:
    reads["pin"].write_text(json.dumps({"sha256": sha256, "role": "teacher", "origin": None}))


FAULTS: dict[str, tuple[Callable[[dict[str, Path]], object], str]] = {
    "none pinned": (lambda reads: None, "no teacher is pinned"),
    "only a start": (lambda reads: pin(reads, "start"), "no teacher is pinned"),
    "no pin": (lambda reads: reads["pin"].unlink(), "pin cannot be read"),
    "torn pin": (lambda reads: reads["pin"].write_text("{"), "pin cannot be read"),
    "other pin": (lambda reads: reads["pin"].write_text("[]"), "not a pin"),
    "mistyped pin": (lambda reads: rename_hash(reads, 5), "sha256"),
    "path for a hash": (lambda reads: rename_hash(reads, "../../../etc"), "not a SHA-256"),
    "missing": (lambda reads: rename_hash(reads, "0" * 64), "is not here"),
    "changed": (lambda reads: (pin(reads, "teacher"), corrupt(reads)), "was changed"),
    "other classes": (lambda reads: pin(reads, "teacher", classes=3), "has classes 3, the data have 2"),
    "other size": (lambda reads: pin(reads, "teacher", shape=(1, 9, 9)), r"has shape \(1, 9, 9\)"),
    "other range": (lambda reads: pin(reads, "teacher", high=255.0), "has high 255.0"),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_teacher_that_cannot_be_used_is_refused(stage: Stage, reads: dict[str, Path], fault: str) -> None:
    harm, said = FAULTS[fault]
    harm(reads)
    with pytest.raises(BadInput, match=said):
        stage(teacher, make_params(teacher={"source": "file"}), "teacher")


def test_a_warm_start_begins_from_the_pinned_weights(stage: Stage, reads: dict[str, Path]) -> None:
    pin(reads, "start")
    frozen = make_params(
        teacher={"warm_start": "pinned", "training": TRAINING | {"lr": 1e-12, "epochs": 1, "weight_decay": 0.0}}
    )
    out = stage(teacher, frozen, "teacher")
    start = models.build(weights.load(out).spec, 7, "foreign")
    torch.testing.assert_close(weights.load(out, "last").net.head.weight, start.net.head.weight.detach())


def test_a_first_run_has_no_champion_to_begin_from(stage: Stage, tools: Tools) -> None:
    cold = summary(stage(teacher, make_params(), "cold"))["sha256"]
    assert summary(stage(teacher, make_params(teacher={"warm_start": "champion"}), "warm"))["sha256"] == cold
    notes = [record["message"] for _, record in read(tools.journal.path) if record["event"] == "note"]
    assert any("no start weights" in note for note in notes)


def test_a_warm_start_of_another_architecture_is_refused(stage: Stage, reads: dict[str, Path]) -> None:
    pin(reads, "start", model={"name": "small_cnn", "size": "micro"})
    with pytest.raises(BadInput, match="micro"):
        stage(teacher, make_params(teacher={"warm_start": "pinned"}), "teacher")


@pytest.mark.parametrize("change", [{"classes": 3}, {"shape": (1, 9, 9)}, {"high": 255.0}])
def test_a_nightly_run_goes_on_where_the_data_have_outgrown_the_champion(
    stage: Stage, reads: dict[str, Path], tools: Tools, change: dict[str, Any]
) -> None:
    warm = make_params(teacher={"warm_start": "champion"})
    cold = summary(stage(teacher, make_params(), "cold"))
    pin(reads, "start", origin=teacher.CHAMPIONS, saw=[1, 2], **change)
    out = stage(teacher, warm, "warm")
    found = summary(out)
    [key] = change
    assert found["sha256"] == cold["sha256"]
    assert f"trained anew instead of from the champion's teacher: that one has {key}" in found["news"]
    assert Seen.read(out).ids.size == 0  # nothing of it went in
    alarms = [record for _, record in read(tools.journal.path) if record["event"] == "alarm"]
    assert {(alarm["kind"], alarm["message"]) for alarm in alarms} >= {("no warm start", found["news"])}


def test_damaged_or_chosen_weights_are_never_passed_over(stage: Stage, reads: dict[str, Path]) -> None:
    warm = make_params(teacher={"warm_start": "champion"})
    sha256 = pin(reads, "start", origin=teacher.CHAMPIONS, classes=3)
    corrupt(reads)
    with pytest.raises(BadInput, match="was changed"):
        stage(teacher, warm, "teacher")
    shutil.rmtree(reads["pin"].parent / "imports" / sha256)
    with pytest.raises(BadInput, match="is not here"):
        stage(teacher, warm, "teacher")
    pin(reads, "start", classes=3)  # a person named these
    with pytest.raises(BadInput, match="has classes 3, the data have 2"):
        stage(teacher, warm, "teacher")


@pytest.mark.parametrize("role", ["teacher", "start"])
def test_a_student_comes_from_all_that_its_teacher_comes_from(stage: Stage, reads: dict[str, Path], role: str) -> None:
    from robustdistill.stages import export

    pin(reads, role, saw=[2001, 5000])
    chosen = {"source": "registry"} if role == "teacher" else {"warm_start": "champion"}
    params = make_params(teacher=chosen)
    for name, module in (("teacher", teacher), ("student", student)):
        reads["model"] = stage(module, params, name)
        record = json.loads((stage(export, params, "export") / "export.json").read_text())
        ids = np.load(reads["model"].parent / "export" / "trained_on.npy")
        own = [np.load(reads["prepare"] / f"{split}_id.npy") for split in ("train", "val")]
        assert np.array_equal(ids, np.unique(np.concatenate([*own, [2001, 5000]])))
        assert record["unknown"] == []


def test_a_foreign_teacher_leaves_its_student_with_a_question(stage: Stage, reads: dict[str, Path]) -> None:
    from robustdistill.stages import export

    pin(reads, "teacher")
    params = make_params(teacher={"source": "file"})
    stage(teacher, params, "teacher")
    reads["model"] = stage(student, params, "student")
    out = stage(export, params, "export")
    assert json.loads((out / "export.json").read_text())["unknown"] == ["elsewhere"]
