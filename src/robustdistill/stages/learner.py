"""What all stages that end in a model share: from prepared data and a config to a trained model on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustdistill import models, objectives, training
from robustdistill.config import Learner, Params, Spec, dump
from robustdistill.data.files import write_json
from robustdistill.data.prepared import Prepared, Split
from robustdistill.errors import BadInput
from robustdistill.models import Classifier, ModelSpec, weights
from robustdistill.objectives.types import Teacher
from robustdistill.rng import derive
from robustdistill.stages.tools import Tools
from robustdistill.training import Job, Result, held_back
from robustdistill.training.history import to_csv
from robustdistill.training.stored import Stored


def model_spec(prepared: Prepared, model: Spec) -> ModelSpec:
    """The architecture, made for these data: shape, classes, range and normalisation stand in their manifest."""
    manifest = prepared.manifest
    return ModelSpec(
        model=dict(model),
        shape=tuple(manifest.shape),
        classes=len(manifest.classes),
        low=manifest.low,
        high=manifest.high,
        mean=tuple(manifest.mean),
        std=tuple(manifest.std),
    )


def learn(
    role: str,
    params: Params,
    learner: Learner,
    prepare: Path,
    out: Path,
    tools: Tools,
    *,
    objective: Spec | None = None,
    where: str = "",
    teacher: Classifier | None = None,
    clean_teacher: Path | None = None,
    start: Classifier | None = None,
    stored: Stored | None = None,
    news: str = "",
) -> None:
    """Trains and writes model.*, last.*, history.csv, summary.json into `out`.

    role: names the family of random draws; student and control share one. objective: instead of the learner's, found
    at `where`. teacher: to distil from. clean_teacher: folder of an undefended model, opened where the objective asks
    for two. start: first weights, else drawn. stored: adversarial examples to train on.
    news: what has to be known of this training.
    Raises BadInput for a config that cannot be used and for a training that breaks down.
    """
    prepared = Prepared.open(prepare)
    spec = objective or learner.objective
    chosen = objectives.build(spec, where or f"{role}.objective")
    if chosen.needs_teacher and teacher is None:
        raise BadInput(
            f"objective {chosen.name!r} needs a teacher and {where or role} has none",
            where=where or f"{role}.objective",
            fix="choose ce, pgd_at or trades",
        )
    second = None
    if chosen.needs_clean_teacher and clean_teacher is not None:
        second = Teacher(weights.load(clean_teacher))
    seed = derive(params.seed, role)
    model = start or models.build(model_spec(prepared, learner.model), seed, role)
    taught = None if teacher is None else Teacher(teacher)
    job = Job(
        model=model,
        objective=chosen,
        train=_examples(prepared, params.seed, learner.training.held_back, taught, model.spec, tools),
        val=prepared.split("val"),
        threat=params.threat.model(prepared.manifest.low, prepared.manifest.high),
        training=learner.training,
        seed=seed,
        teacher=taught,
        stored=stored,
        clean_teacher=second,
    )
    result = training.fit(job, tools)
    facts = {"objective": {"name": chosen.name, **dump(chosen.config)}, "epochs": learner.training.epochs}
    sha256 = write(out, result, facts | ({"news": news} if news else {}))
    spent = {"epochs": learner.training.epochs, "examples": result.examples, "cpu_seconds": result.cpu_seconds}
    tools.journal.write("trained", sha256=sha256, **spent)
    training.forget(tools.scratch)


def _examples(
    prepared: Prepared, seed: int, share: float, teacher: Teacher | None, spec: ModelSpec, tools: Tools
) -> Split:
    """The training data, with the labels that may be known."""
    train = prepared.split("train")
    if share == 0:
        return train
    hidden = held_back.chosen(train, share, seed)
    if teacher is None:
        tools.journal.write("note", message=f"{hidden.sum()} of {len(train)} examples are left out: labels withheld")
        return held_back.left_out(train, hidden)
    known = held_back.labelled(train, hidden, teacher, spec, tools.compute)
    wrong = int((known.y != train.y).sum())
    told = f"{hidden.sum()} of {len(train)} examples are labelled by the teacher, {wrong} of them wrongly"
    tools.journal.write("note", message=told)
    return known


def write(out: Path, result: Result, facts: Mapping[str, Any]) -> str:
    """The result of a training as files: nothing in them depends on when or where it ran. Returns the model's hash."""
    sha256 = weights.save(result.best, out)
    weights.save(result.last, out, "last")
    (out / "history.csv").write_text(to_csv(result.history), encoding="utf-8")
    row = result.best_row
    summary = {
        "sha256": sha256,
        "parameters": models.parameters(result.best),
        "model": result.best.spec.model,
        "best_epoch": result.best_epoch,
        "val_clean": row["val_clean"],
        "val_pgd": row.get("val_pgd"),
        "alarms": result.alarms,
    }
    write_json(out / "summary.json", summary | dict(facts))
    return sha256
