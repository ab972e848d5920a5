"""teacher: the hardened model that is worth copying. Trained here, or made elsewhere and pinned by its hash.

Trained here it may begin from earlier weights (warm_start) and use the stored adversarial examples (adversaries).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from robustdistill import objectives
from robustdistill.config import Params, Strict, options
from robustdistill.data.prepared import Prepared
from robustdistill.data.seen import Seen, read_ids
from robustdistill.engine import devices
from robustdistill.errors import BadInput
from robustdistill.models import Classifier, ModelSpec, weights
from robustdistill.stages.learner import learn, model_spec, write
from robustdistill.stages.tools import Tools
from robustdistill.training import measured
from robustdistill.training.stored import Stored

USE = "robustdistill teacher use"
CHAMPIONS = "the champion's teacher"  # origin of weights that the flow pinned, not a person


class Pin(Strict):
    """teacher.pin.json: which model from elsewhere is in use, and as what.

    description: sha256 of its model.json. trained_on: sha256 of the list of examples that it saw, kept beside it.
    unknown: models it comes from, itself included, of which there is no such list; None in a pin that does not say.
    """

    sha256: str | None
    role: str | None
    description: str | None = None
    origin: str | None
    trained_on: str | None = None
    unknown: list[str] | None = None


def run(params: Params, reads: Mapping[str, Path], out: Path, tools: Tools) -> None:
    """Reads prepare, adversaries, pin and the folder of imports; writes the model into `out`. Raises BadInput."""
    if params.teacher.source == "train":
        _train(params, reads, out, tools)
    else:
        _adopt(params, reads, out, tools)


def _train(params: Params, reads: Mapping[str, Path], out: Path, tools: Tools) -> None:
    stored = None
    if params.teacher.adversaries == "start" and not objectives.build(params.teacher.objective).adversarial:
        raise BadInput(
            f"objective {params.teacher.objective['name']!r} has no attack that could begin at stored examples",
            where="teacher.adversaries",
            fix="replay or none, or an objective that attacks, such as pgd_at",
        )
    if params.teacher.adversaries != "none":
        stored = Stored.open(reads["adversaries"], params.teacher.adversaries, params.teacher.replay_share)
    start, news = _start(params, reads, tools)
    pinned = Seen() if start is None else seen(reads, read_pin(reads["pin"]))
    learn("teacher", params, params.teacher, reads["prepare"], out, tools, start=start, stored=stored, news=news)
    pinned.write(out)


def _start(params: Params, reads: Mapping[str, Path], tools: Tools) -> tuple[Classifier | None, str]:
    """The first weights, or None to draw them, and what has to be known of that.

    They are drawn where nothing is pinned yet, as in the first run ever, and where the data have outgrown the
    champion's teacher: nobody asked for those very weights, and a nightly run has to go on.
    """
    if params.teacher.warm_start == "none":
        return None, ""
    pin = read_pin(reads["pin"])
    if pin.sha256 is None or pin.role != "start":
        tools.journal.write("note", message="no start weights are pinned: the teacher begins from drawn ones")
        return None, ""
    spec = model_spec(Prepared.open(reads["prepare"]), params.teacher.model)
    model = imported(reads, pin.sha256, pin.description)
    if pin.origin == CHAMPIONS and (fault := _misfit(model.spec, spec)):
        news = f"trained anew instead of from {CHAMPIONS}: that one {fault}"
        tools.journal.write("alarm", kind="no warm start", message=news)
        return None, news
    _require_fit(model.spec, spec)
    if model.spec.model != spec.model:
        raise BadInput(
            f"the start weights are of {model.spec.architecture}, the teacher is to be {spec.architecture}",
            where="teacher.warm_start",
            fix="set teacher.model to that architecture, or warm_start to none",
        )
    tools.journal.write("note", message=f"the teacher begins from {pin.origin}, {pin.sha256[:12]}")
    # Weights go on under their own normalisation: that of new data would shift every activation.
    return model.requires_grad_(True), ""


def _adopt(params: Params, reads: Mapping[str, Path], out: Path, tools: Tools) -> None:
    """The pinned model as it is, measured on our validation data."""
    pin = read_pin(reads["pin"])
    if pin.sha256 is None or pin.role != "teacher":
        raise BadInput("no teacher is pinned", where=str(reads["pin"]), fix=f"{USE} WEIGHTS, or teacher.source: train")
    model = imported(reads, pin.sha256, pin.description)
    prepared = Prepared.open(reads["prepare"])
    _require_fit(model.spec, model_spec(prepared, model.spec.model))
    devices.apply(tools.compute)
    threat = params.threat.model(prepared.manifest.low, prepared.manifest.high)
    val, examples = prepared.split("val"), params.teacher.training.select_examples
    result = measured(model, val, threat, examples, params.seed, tools.compute)
    write(out, result, {"objective": None, "epochs": 0, "origin": pin.origin})
    seen(reads, pin).write(out)


def read_pin(path: Path) -> Pin:
    """Raises BadInput if the pin is missing or is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"the pin cannot be read: {error}", where=str(path), fix=f"{USE} none") from error
    if not isinstance(record, dict):
        raise BadInput("not a pin", where=str(path), fix=f"{USE} none")
    return options(Pin, record, where=str(path))


def seen(reads: Mapping[str, Path], pin: Pin) -> Seen:
    """What the pinned model was trained on, if known. Raises BadInput if its list is missing or changed."""
    unknown = pin.unknown if pin.unknown is not None else [str(pin.origin)]
    if pin.trained_on is None:
        return Seen(unknown=tuple(unknown))
    path = _folder(reads, str(pin.sha256)) / f"{pin.trained_on}.npy"
    if not path.is_file() or weights.digest(path) != pin.trained_on:
        cause = "the list of what the pinned model was trained on is missing or was changed"
        raise BadInput(cause, where=str(path), fix=f"{USE} WEIGHTS")
    return Seen(read_ids(path), tuple(unknown))


def _folder(reads: Mapping[str, Path], sha256: str) -> Path:
    return reads.get("imports", reads["pin"].parent / "imports") / sha256


def imported(reads: Mapping[str, Path], sha256: str, description: str | None = None) -> Classifier:
    """The imported model of this hash. Raises BadInput if it is missing, damaged or another one."""
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise BadInput(f"{sha256!r} is not a SHA-256", where=str(reads["pin"]), fix=f"{USE} WEIGHTS")
    folder = _folder(reads, sha256)
    if not (folder / "model.safetensors").is_file():
        raise BadInput("the pinned model is not here", where=str(folder), fix=f"{USE} WEIGHTS, which copies it here")
    found = weights.digest(folder / "model.safetensors")
    if found != sha256:
        raise BadInput(f"the pinned model was changed: its hash is {found}", where=str(folder), fix=f"{USE} WEIGHTS")
    if description is not None and weights.digest(folder / "model.json") != description:
        cause = "the description of the pinned model was changed"
        raise BadInput(cause, where=str(folder / "model.json"), fix=f"{USE} WEIGHTS")
    return weights.load(folder)


def _misfit(theirs: ModelSpec, ours: ModelSpec) -> str:
    """Normalisation may differ, since each model carries its own; shape, classes and range may not. "" if they fit."""
    for what in ("shape", "classes", "low", "high"):
        if getattr(theirs, what) != getattr(ours, what):
            return f"has {what} {getattr(theirs, what)}, the data have {getattr(ours, what)}"
    return ""


def _require_fit(theirs: ModelSpec, ours: ModelSpec) -> None:
    if fault := _misfit(theirs, ours):
        fix = f"{USE} with a model made for such data"
        raise BadInput(f"the pinned model {fault}", where="teacher", fix=fix)
