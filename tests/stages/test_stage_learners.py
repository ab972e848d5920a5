"""The stages that end in a model: what they write, how teachers from elsewhere come in, what they refuse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robustdistill import models
from robustdistill.config import Params, options
from robustdistill.data.prepared import Manifest
from robustdistill.data.seen import IDS, UNKNOWN, Seen
from robustdistill.engine.devices import Compute
from robustdistill.errors import BadInput
from robustdistill.journal import Journal, read
from robustdistill.models import ModelSpec, weights
from robustdistill.rng import Draws
from robustdistill.stages import control, initial, student, teacher
from robustdistill.stages.tools import Tools

NANO = {"name": "small_cnn", "size": "nano"}
TRAINING = {"epochs": 2, "batch": 16, "lr": 0.05, "select_examples": 32}
ATTACK = {"name": "pgd", "steps": 2}
FILES = ["history.csv", "last.json", "last.safetensors", "model.json", "model.safetensors", "summary.json"]
Stage = Callable[..., Path]


def make_params(**changes: dict[str, Any]) -> Params:
    record: dict[str, Any] = {
        "name": "toy",
        "seed": 0,
        "threat": {"norm": "linf", "eps": 0.1},
        "data": {"source": "digits"},
        "initial": {"model": NANO, "objective": {"name": "ce"}, "training": TRAINING},
        "adversaries": {"attack": ATTACK},
        "teacher": {"model": NANO, "objective": {"name": "pgd_at", "attack": ATTACK}, "training": TRAINING},
        "student": {"model": NANO, "objective": {"name": "rslad", "attack": ATTACK}, "training": TRAINING},
        "control": {"objective": {"name": "pgd_at", "attack": ATTACK}},
        "judge": {"attacks": []},
    }
    for key, change in changes.items():
        record[key] = record[key] | change
    return options(Params, record, where="params.yaml")


def write_prepared(folder: Path, shape: tuple[int, ...] = (1, 8, 8), n: int = 60) -> None:
    folder.mkdir(parents=True)
    counts = {}
    for start, split in enumerate(("train", "val", "test")):
        size = n if split == "train" else 24
        y = np.arange(size, dtype=np.int64) % 2
        noise = np.stack(
            [Draws(start).permutation(int(np.prod(shape)), str(k)).reshape(shape) % 100 for k in range(size)]
        )
        np.save(folder / f"{split}_x.npy", (noise + 120 * y.reshape(-1, *[1] * len(shape))).astype(np.uint8))
        np.save(folder / f"{split}_y.npy", y)
        np.save(folder / f"{split}_id.npy", np.arange(size, dtype=np.int64) + 1000 * start)
        counts[split] = [int((y == 0).sum()), int((y == 1).sum())]
    flat = (0.4,) * shape[0], (0.25,) * shape[0]
    Manifest("image", shape, ["dark", "light"], 0.0, 1.0, *flat, counts, {}, "0" * 64).write(folder)


@pytest.fixture
def reads(tmp_path: Path) -> dict[str, Path]:
    write_prepared(tmp_path / "prepare")
    folder = tmp_path / "adversaries"
    folder.mkdir()
    np.save(folder / "train_x_adv.npy", np.load(tmp_path / "prepare/train_x.npy") ^ 8)
    np.save(folder / "train_id.npy", np.load(tmp_path / "prepare/train_id.npy"))
    (tmp_path / "teacher.pin.json").write_text(json.dumps({"sha256": None, "role": None, "origin": None}))
    pin = tmp_path / "teacher.pin.json"
    made = {name: tmp_path / name for name in ("prepare", "initial", "teacher")}
    return {**made, "adversaries": folder, "pin": pin}


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return Tools(Compute("cpu", 1), Journal(tmp_path / "journal.jsonl", "test"), tmp_path / "scratch")


@pytest.fixture
def stage(reads: dict[str, Path], tools: Tools, tmp_path: Path) -> Stage:
    """Runs a stage from a clean folder, as the command does."""

    def run(module: Any, params: Params, name: str) -> Path:
        out = tmp_path / name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        module.run(params, reads, out, tools)
        return out

    return run


def summary(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "summary.json").read_text()))


def test_the_chain_of_learners(stage: Stage, tools: Tools) -> None:
    params = make_params()
    outs = {name: stage(module, params, name) for name, module in
            (("initial", initial), ("teacher", teacher), ("student", student), ("control", control))}  # fmt: skip
    for name, out in outs.items():
        assert sorted(path.name for path in out.iterdir()) == FILES, name
        found = summary(out)
        assert found["sha256"] == weights.digest(out / "model.safetensors")
        assert found["parameters"] == models.parameters(weights.load(out))
        assert len((out / "history.csv").read_text().splitlines()) == 3
        assert (found["val_pgd"] is None) == (name == "initial")
        weights.load(out, "last")
    assert summary(outs["student"])["objective"]["name"] == "rslad"
    assert summary(outs["control"])["objective"]["name"] == "pgd_at"
    assert not list(tools.scratch.glob("*"))


def test_a_stage_writes_the_same_bytes_again(stage: Stage) -> None:
    one = {path.name: path.read_bytes() for path in stage(initial, make_params(), "initial").iterdir()}
    assert one == {path.name: path.read_bytes() for path in stage(initial, make_params(), "initial").iterdir()}
    other = stage(initial, make_params().model_copy(update={"seed": 1}), "initial")
    assert one["model.safetensors"] != (other / "model.safetensors").read_bytes()


def test_student_and_control_differ_in_the_objective_alone(stage: Stage) -> None:
    objective = {"objective": {"name": "pgd_at", "attack": ATTACK}}
    params = make_params(student=objective)
    stage(teacher, params, "teacher")
    one, other = stage(student, params, "student"), stage(control, params, "control")
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_a_control_with_a_teacher_is_refused(stage: Stage) -> None:
    with pytest.raises(BadInput, match="needs a teacher") as caught:
        stage(control, make_params(control={"objective": {"name": "rslad"}}), "control")
    assert caught.value.where == "control.objective"


def test_the_student_has_the_undefended_model_as_its_second_teacher(stage: Stage, reads: dict[str, Path]) -> None:
    params = make_params(student={"objective": {"name": "mtard", "attack": ATTACK}})
    stage(teacher, params, "teacher")
    with pytest.raises(BadInput, match="no description"):
        stage(student, params, "student")
    sums = []
    for seed in (0, 1):  # another undefended model, another student
        stage(initial, params.model_copy(update={"seed": seed}), "initial")
        sums.append(summary(stage(student, params, "student"))["sha256"])
    assert sums[0] != sums[1]


def test_a_student_with_one_teacher_does_not_look_at_the_undefended_model(stage: Stage) -> None:
    stage(teacher, make_params(), "teacher")
    assert summary(stage(student, make_params(), "student"))["objective"]["name"] == "rslad"


@pytest.mark.parametrize(("name", "learner"), [("peeraid", control), ("adr", teacher), ("lbgat", student)])
def test_objectives_that_bring_their_own_teacher_serve_every_stage(stage: Stage, name: str, learner: Any) -> None:
    role = {control: "control", teacher: "teacher", student: "student"}[learner]
    params = make_params(**{role: {"objective": {"name": name, "attack": ATTACK}}})
    if learner is student:
        stage(teacher, params, "teacher")
    out = stage(learner, params, role)
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert models.parameters(weights.load(out)) == summary(out)["parameters"]


@pytest.mark.parametrize("use", ["start", "replay"])
def test_the_teacher_trains_on_stored_examples(stage: Stage, use: str) -> None:
    plain = stage(teacher, make_params(), "plain")
    changed = stage(teacher, make_params(teacher={"adversaries": use}), "changed")
    assert summary(plain)["sha256"] != summary(changed)["sha256"]


def pin(
    reads: dict[str, Path], role: str, *, origin: str = "elsewhere", saw: list[int] | None = None, **changes: Any
) -> str:
    """Imports a model with a normalisation of its own, as `robustdistill teacher use` does. saw: content ids."""
    record = {"model": NANO, "shape": (1, 8, 8), "classes": 2, "low": 0.0, "high": 1.0, "mean": (0.1,), "std": (0.9,)}
    model = models.build(ModelSpec(**(record | changes)), 7, "foreign").eval()
    part = reads["pin"].parent / "part"
    part.mkdir()
    sha256 = weights.save(model, part)
    folder = reads["pin"].parent / "imports" / sha256
    folder.parent.mkdir(exist_ok=True)
    part.rename(folder)
    record = {"sha256": sha256, "role": role, "origin": origin}
    if saw is not None:
        np.save(folder / "ids.npy", np.array(saw, dtype=np.int64))
        digest = weights.digest(folder / "ids.npy")
        (folder / "ids.npy").rename(folder / f"{digest}.npy")
        record |= {"trained_on": digest, "unknown": []}
    reads["pin"].write_text(json.dumps(record))
    return sha256


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
        teacher={"warm_start": "champion", "training": TRAINING | {"lr": 1e-12, "epochs": 1, "weight_decay": 0.0}}
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
        stage(teacher, make_params(teacher={"warm_start": "champion"}), "teacher")


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


@pytest.mark.slow
def test_resnet50_teaches_mobilenet(tmp_path: Path, tools: Tools) -> None:
    write_prepared(tmp_path / "colour", shape=(3, 8, 8), n=8)
    reads = {"prepare": tmp_path / "colour", "initial": tmp_path / "none", "teacher": tmp_path / "teacher"}
    reads["teacher"].mkdir()
    spec = ModelSpec({"name": "resnet50", "stride": 2}, (3, 8, 8), 2, 0.0, 1.0, (0.5,) * 3, (0.2,) * 3)
    weights.save(models.build(spec, 0, "teacher"), reads["teacher"])
    two_steps = {"epochs": 2, "batch": 8, "lr": 0.01, "select_examples": 8, "ema": 0.9}
    params = make_params(student={"model": {"name": "mobilenet_v2"}, "training": two_steps})
    out = tmp_path / "student"
    out.mkdir()
    student.run(params, reads, out, tools)
    assert summary(out)["parameters"] > 2e6
    assert (out / "history.csv").read_text().splitlines()[-1].startswith("2,2,")


def trained_on(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The training examples of each job that is started."""
    from robustdistill import training

    seen: list[Any] = []
    fit = training.fit
    monkeypatch.setattr(training, "fit", lambda job, tools: seen.append(job.train) or fit(job, tools))
    return seen


def test_withheld_labels_are_the_teachers_or_left_out(
    stage: Stage, reads: dict[str, Path], tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher that takes everything for class 1: whatever label the student is given by it shows."""
    spec = ModelSpec(NANO, (1, 8, 8), 2, 0.0, 1.0, (0.4,), (0.25,))
    stubborn = models.build(spec, 0, "teacher")
    with torch.no_grad():
        stubborn.net.head.bias.copy_(torch.tensor([-99.0, 99.0]))
    reads["teacher"].mkdir()
    weights.save(stubborn.eval(), reads["teacher"])
    seen = trained_on(monkeypatch)
    few = make_params(student={"training": TRAINING | {"held_back": 0.4}})
    stage(student, few, "student")
    stage(control, few, "control")
    stage(student, make_params(), "whole")
    student_on, control_on, everything = seen
    assert np.array_equal(student_on.id, everything.id) and np.array_equal(student_on.x, everything.x)
    known = np.isin(everything.id, control_on.id)
    assert 0.4 < known.mean() < 0.8
    assert np.array_equal(control_on.y, everything.y[known]) and np.array_equal(control_on.x, everything.x[known])
    assert np.array_equal(student_on.y[known], everything.y[known])
    assert (student_on.y[~known] == 1).all()
    wrong = int((everything.y[~known] == 0).sum())
    notes = [record["message"] for _, record in read(tools.journal.path) if record["event"] == "note"]
    told = f"{(~known).sum()} of 60 examples"
    assert notes == [
        f"{told} are labelled by the teacher, {wrong} of them wrongly",
        f"{told} are left out: labels withheld",
    ]


def test_a_larger_share_withholds_more_of_the_same(reads: dict[str, Path]) -> None:
    from robustdistill.data.prepared import Prepared
    from robustdistill.training import held_back

    train = Prepared.open(reads["prepare"]).split("train")
    few, many = held_back.chosen(train, 0.2, 0), held_back.chosen(train, 0.7, 0)
    assert 0 < few.sum() < many.sum() and not (few & ~many).any()
    assert not np.array_equal(many, held_back.chosen(train, 0.7, 1))
    part = held_back.left_out(train, train.id % 2 == 0)
    assert np.array_equal(held_back.chosen(part, 0.7, 0), many[train.id % 2 == 1])


def test_the_teacher_itself_may_go_without_them(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = trained_on(monkeypatch)
    few = {"training": TRAINING | {"held_back": 0.4}}
    params = make_params(teacher=few, student=few)
    stage(teacher, params, "teacher")
    stage(control, params, "control")
    assert np.array_equal(seen[0].id, seen[1].id)
