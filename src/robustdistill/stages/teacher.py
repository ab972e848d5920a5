"""teacher: the hardened model that is worth copying. Trained here, or made elsewhere and pinned by its hash.

Trained here it may begin from earlier weights (warm_start) and use the stored adversarial examples (adversaries).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from robustdistill.config import Params, Strict, options
from robustdistill.data.prepared import Prepared
from robustdistill.engine import devices
from robustdistill.errors import BadInput
from robustdistill.models import Classifier, ModelSpec, weights
from robustdistill.stages.learner import learn, model_spec, write
from robustdistill.stages.tools import Tools
from robustdistill.training import measured
from robustdistill.training.stored import Stored

USE = "robustdistill teacher use"


class Pin(Strict):
    """teacher.pin.json: which model from elsewhere is in use, and as what."""

    sha256: str | None
    role: str | None
    origin: str | None


def run(params: Params, reads: Mapping[str, Path], out: Path, tools: Tools) -> None:
    """Reads prepare, adversaries, pin and the folder of imports; writes the model into `out`. Raises BadInput."""
    if params.teacher.source == "train":
        _train(params, reads, out, tools)
    else:
        _adopt(params, reads, out, tools)


def _train(params: Params, reads: Mapping[str, Path], out: Path, tools: Tools) -> None:
    stored = None
    if params.teacher.adversaries != "none":
        stored = Stored.open(reads["adversaries"], params.teacher.adversaries, params.teacher.replay_share)
    start = _start(params, reads, tools)
    learn("teacher", params, params.teacher, reads["prepare"], out, tools, start=start, stored=stored)


def _start(params: Params, reads: Mapping[str, Path], tools: Tools) -> Classifier | None:
    """The first weights, or None to draw them: also where nothing is pinned yet, as in the first run ever."""
    if params.teacher.warm_start == "none":
        return None
    pin = read_pin(reads["pin"])
    if pin.sha256 is None or pin.role != "start":
        tools.journal.write("note", message="no start weights are pinned: the teacher begins from drawn ones")
        return None
    spec = model_spec(Prepared.open(reads["prepare"]), params.teacher.model)
    model = imported(reads, pin.sha256)
    _require_fit(model.spec, spec)
    if model.spec.model != spec.model:
        raise BadInput(
            f"the start weights are of {model.spec.architecture}, the teacher is to be {spec.architecture}",
            where="teacher.warm_start",
            fix="set teacher.model to that architecture, or warm_start to none",
        )
    tools.journal.write("note", message=f"the teacher begins from {pin.origin}, {pin.sha256[:12]}")
    # Weights go on under their own normalisation: that of new data would shift every activation.
    return model.requires_grad_(True)


def _adopt(params: Params, reads: Mapping[str, Path], out: Path, tools: Tools) -> None:
    """The pinned model as it is, measured on our validation data."""
    pin = read_pin(reads["pin"])
    if pin.sha256 is None or pin.role != "teacher":
        raise BadInput("no teacher is pinned", where=str(reads["pin"]), fix=f"{USE} WEIGHTS, or teacher.source: train")
    model = imported(reads, pin.sha256)
    prepared = Prepared.open(reads["prepare"])
    _require_fit(model.spec, model_spec(prepared, model.spec.model))
    devices.apply(tools.compute)
    threat = params.threat.model(prepared.manifest.low, prepared.manifest.high)
    val, examples = prepared.split("val"), params.teacher.training.select_examples
    result = measured(model, val, threat, examples, params.seed, tools.compute)
    write(out, result, {"objective": None, "epochs": 0, "origin": pin.origin})


def read_pin(path: Path) -> Pin:
    """Raises BadInput if the pin is missing or is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"the pin cannot be read: {error}", where=str(path), fix=f"{USE} none") from error
    if not isinstance(record, dict):
        raise BadInput("not a pin", where=str(path), fix=f"{USE} none")
    return options(Pin, record, where=str(path))


def imported(reads: Mapping[str, Path], sha256: str) -> Classifier:
    """The imported model of this hash. Raises BadInput if it is missing, damaged or another one."""
    imports = reads.get("imports", reads["pin"].parent / "imports")
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise BadInput(f"{sha256!r} is not a SHA-256", where=str(reads["pin"]), fix=f"{USE} WEIGHTS")
    folder = imports / sha256
    if not (folder / "model.safetensors").is_file():
        raise BadInput("the pinned model is not here", where=str(folder), fix=f"{USE} WEIGHTS, which copies it here")
    found = weights.digest(folder / "model.safetensors")
    if found != sha256:
        raise BadInput(f"the pinned model was changed: its hash is {found}", where=str(folder), fix=f"{USE} WEIGHTS")
    return weights.load(folder)


def _require_fit(theirs: ModelSpec, ours: ModelSpec) -> None:
    """Normalisation may differ, since each model carries its own; shape, classes and range may not."""
    for what in ("shape", "classes", "low", "high"):
        if getattr(theirs, what) != getattr(ours, what):
            raise BadInput(
                f"the pinned model has {what} {getattr(theirs, what)}, the data have {getattr(ours, what)}",
                where="teacher",
                fix=f"{USE} with a model made for such data",
            )
