"""`robustdistill judge`: any model, any labelled images, one answer. It needs no workspace."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from robustdistill.config import Judge, Params, Spec, dump
from robustdistill.errors import BadInput
from robustdistill.journal import RUN_VARIABLE, Journal
from robustdistill.services import leash
from robustdistill.threat import ThreatModel
from robustdistill.workspace import Workspace, write_atomically

if TYPE_CHECKING:
    from torch import nn

    from robustdistill.actions.follow import Listener
    from robustdistill.data.examples import Examples
    from robustdistill.engine.devices import Compute
    from robustdistill.judge import Judgement
    from robustdistill.judge.subject import Subject

Attacks = Literal["standard", "rand", "quick"]
OWN: list[Spec] = [{"name": "fgsm"}, {"name": "pgd", "steps": 20}, {"name": "pgd", "steps": 40, "goal": "margin"}]
LEAST = 20  # examples that a protocol asks for at least; fewer data are judged all the same
JSON, HTML = "judgement.json", "report.html"


@dataclass(frozen=True)
class Request:
    """What was asked for. data, threat: default, those of the workspace. n: examples, default all."""

    target: str
    data: Path | None = None
    threat: str | None = None
    config: Path | None = None
    twin: str | None = None
    n: int | None = None
    seed: int | None = None
    attacks: Attacks | None = None
    device: str | None = None
    out: Path | None = None

    @property
    def as_workspace(self) -> bool:
        """Whether the workspace's own data and threat model are meant."""
        return self.data is None and self.threat is None


@dataclass(frozen=True)
class Case:
    """Everything that a judgement depends on."""

    subject: Subject
    examples: Examples
    threat: ThreatModel
    protocol: Judge
    seed: int
    adversaries: Path | None
    surrogates: dict[str, nn.Module]


@dataclass(frozen=True)
class Result:
    """folder: where everything was written. content: judgement.json."""

    folder: Path
    content: dict[str, Any]

    @property
    def healthy(self) -> bool:
        return bool(self.content["healthy"])


def run(
    workspace: Workspace | None, request: Request, *, listeners: Sequence[Listener] = (), debug: bool = False
) -> Result:
    """Judges, and writes scorecard, outcomes, judgement.json and report.html into a new folder.

    workspace: for whatever the request leaves open, and for its registry. Finished pieces are kept beside the folder
    until the end: the same request goes on where it was. What the user's code prints goes to stderr. Raises BadInput.
    """
    from robustdistill.engine import devices

    if request.out is not None and request.out.exists():
        raise BadInput("the folder exists", where=str(request.out), fix="name a new one")
    if os.environ.get(RUN_VARIABLE):
        leash.watch()  # judged for a flow: not to outlive it
    compute = devices.choose()
    if request.device:
        compute = replace(compute, device=devices.require_device(request.device))
    devices.apply(compute)
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory(prefix="robustdistill-") as downloads:
        return _run(workspace, request, compute, listeners, Path(downloads), debug=debug)


def _run(
    workspace: Workspace | None,
    request: Request,
    compute: Compute,
    listeners: Sequence[Listener],
    downloads: Path,
    *,
    debug: bool,
) -> Result:
    from robustdistill.actions.follow import Follower
    from robustdistill.judge import evaluate, write
    from robustdistill.judge.sample import draw
    from robustdistill.stages.tools import Tools

    case = _case(workspace, request, compute, downloads)
    subject, judge = case.subject, case.protocol
    sample = draw(
        case.examples.split(subject.low, subject.high), judge.examples, case.seed, compute.device, subject.trained_on
    )
    out = request.out or _default(request, case, sample.digest())
    scratch = out.with_name(f".{out.name}.work")
    scratch.mkdir(parents=True, exist_ok=True)
    journal = Journal(workspace.journal if workspace and request.as_workspace else scratch / "journal.jsonl", "judge")
    tools = Tools(compute=compute, journal=journal, scratch=scratch, debug=debug)
    mine = [lambda record, tell=tell: tell(record) if record["stage"] == "judge" else None for tell in listeners]
    with Follower(journal.path, mine):
        found = evaluate(
            subject, sample, case.threat, judge, tools,
            seed=case.seed, adversaries=case.adversaries, surrogates=case.surrogates,
        )  # fmt: skip
    out = out if request.out else _unused(out)
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        write(part, found)
        content = _content(request, case, found)
        write_atomically(part / JSON, json.dumps(content, indent=2, sort_keys=True) + "\n")
        write_atomically(part / HTML, _page(request, case, found, content))
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(scratch, ignore_errors=True)
    return Result(out, content)


def _case(workspace: Workspace | None, request: Request, compute: Compute, downloads: Path) -> Case:
    from robustdistill.actions.judge_target import Place, find
    from robustdistill.data.examples import read
    from robustdistill.judge import require_fit

    params = _params(workspace, request)
    prepared = workspace.artifacts / "prepare" if workspace and request.data is None else None
    place = Place(workspace, downloads, compute, request.config)
    ThreatModel.parse(request.threat, where="--threat") if request.threat else None  # before anything is opened
    open_subject = find(request.target, place, request.twin)
    for path in [prepared, workspace.artifacts / "adversaries"] if workspace and request.as_workspace else []:
        if path and not path.exists():
            raise BadInput("there is nothing to judge with yet", where=str(path), fix="run the flow first")
    source = request.data or prepared
    assert source is not None  # _params has seen to it
    examples = read(source)
    subject = open_subject(examples)
    require_fit(subject, request.target, shape=examples.shape, names=examples.names, bounds=examples.bounds)
    _check_labels(examples, subject, source)
    seed = request.seed
    if seed is None:
        seed = params.seed if params and request.data is None else 0
    return Case(
        subject,
        examples,
        _threat(params, request, subject),
        _protocol(params, request, len(examples)),
        seed,
        workspace.artifacts / "adversaries" if workspace and request.as_workspace else None,
        _surrogates(workspace, request, subject, compute),
    )


def _params(workspace: Workspace | None, request: Request) -> Params | None:
    if request.data is not None and request.threat is not None:
        return None
    if workspace is None:
        lacking = " and ".join(
            name for name, value in (("--data", request.data), ("--threat", request.threat)) if value is None
        )
        raise BadInput(
            f"{lacking} must be given, since this is not a workspace that could say",
            fix="--data FILE.npz --threat linf:8/255, or name a workspace with --workspace DIR",
        )
    return workspace.params()


def _threat(params: Params | None, request: Request, subject: Subject) -> ThreatModel:
    if request.threat is not None:
        return ThreatModel.parse(request.threat, subject.low, subject.high, where="--threat")
    assert params is not None
    return params.threat.model(subject.low, subject.high)


def _protocol(params: Params | None, request: Request, count: int) -> Judge:
    """The workspace's own for its own data, else that of a promotion, on all examples."""
    if params is not None and request.data is None:
        judge = params.judge
    else:
        judge = Judge(attacks=OWN, examples=max(LEAST, count))
    changes: dict[str, Any] = {}
    if request.n is not None:
        changes["examples"] = request.n
    if request.attacks is not None:
        changes["autoattack"] = "none" if request.attacks == "quick" else request.attacks
    return judge.model_copy(update=changes)


def _surrogates(
    workspace: Workspace | None, request: Request, subject: Subject, compute: Compute
) -> dict[str, nn.Module]:
    """The workspace's models of the same task, for a subject that gives no gradients."""
    from robustdistill.attacks import Access
    from robustdistill.judge.subject import Subject as Opened

    if workspace is None or request.data is not None or subject.access == Access.GRADIENT:
        return {}
    found: dict[str, nn.Module] = {}
    for folder in sorted(path.parent for path in (workspace.artifacts / "export").glob("*/export.json")):
        other = Opened.open(folder, compute)
        if (other.shape, other.names) == (subject.shape, subject.names):
            found[folder.name] = other.model
    return found


def _check_labels(examples: Examples, subject: Subject, source: Path) -> None:
    if int(examples.y.max()) >= subject.classes:
        raise BadInput(
            f"label {int(examples.y.max())} is none of the model's {subject.classes} classes",
            where=str(source),
            fix="labels are counted from 0; judge a model on the data it was made for",
        )


def _default(request: Request, case: Case, sample: str) -> Path:
    from robustdistill.actions.judge_target import short_name

    parts = [case.subject.key, sample, case.threat.to_json(), dump(case.protocol), case.seed]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
    return Path("judged") / f"{short_name(request.target)}-{digest}"


def _unused(out: Path) -> Path:
    """The folder itself, or a numbered one beside it if it is there already."""
    number = 1
    found = out
    while found.exists():
        number += 1
        found = out.with_name(f"{out.name}-{number}")
    return found


def _content(request: Request, case: Case, found: Judgement) -> dict[str, Any]:
    card = found.card
    return {
        **card,
        "healthy": found.healthy,
        "robust_accuracy": card["robust"]["accuracy"],
        "clean_accuracy": card["clean"]["accuracy"],
        "checks": card["health"],
        "target": request.target,
        "data": str(request.data) if request.data else "the workspace's test set",
        "notes": _notes(request, case, found),
    }


def _notes(request: Request, case: Case, found: Judgement) -> list[str]:
    """What a reader of the figures has to know."""
    from robustdistill.attacks import Access

    notes = []
    if case.subject.access < Access.GRADIENT:
        notes.append("an ONNX file without weights: black-box attacks only; --twin takes its weights")
    elif case.protocol.autoattack == "none":
        notes.append("PGD only, not AutoAttack: the robust accuracy may be too high")
    judged, there = len(found.trial.sample), len(case.examples)
    if judged < there:
        notes.append(f"{judged} of {there} examples were judged")
    if found.trial.sample.known:
        notes.append(f"{found.trial.sample.known} examples were left out: the model was trained on them")
    absent = sum(row["n"] == 0 for row in found.card["per_class"])
    if absent:
        notes.append(f"{absent} of the model's {case.subject.classes} classes have no example here")
    return notes


def _page(request: Request, case: Case, found: Judgement, content: dict[str, Any]) -> str:
    from robustdistill.release.judgement import Shown, render

    trial = found.trial
    x, x_adv = (tensor.cpu().numpy() for tensor in (trial.sample.x, trial.worst))
    shown = Shown(x, x_adv, trial.sample.labels, trial.subject.served(trial.worst), trial.clean, trial.standing)
    facts = {"target": request.target, "data": content["data"], "seed": str(case.seed)}
    return render(found.card, shown, title=request.target, healthy=found.healthy, notes=content["notes"], facts=facts)
