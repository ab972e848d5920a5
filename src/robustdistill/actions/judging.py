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
from typing import TYPE_CHECKING, Any

from robustdistill.actions import looks
from robustdistill.actions.judge_case import Case, Request, named, prepare
from robustdistill.errors import BadInput
from robustdistill.journal import RUN_VARIABLE, Journal
from robustdistill.machine import cores
from robustdistill.release.around import line
from robustdistill.services import leash
from robustdistill.workspace import Workspace, write_atomically

if TYPE_CHECKING:
    from robustdistill.actions.follow import Listener
    from robustdistill.engine.devices import Compute
    from robustdistill.judge import Judgement

JSON, HTML = "judgement.json", "report.html"


@dataclass(frozen=True)
class Result:
    """folder: where everything was written. content: judgement.json. known: it was there already."""

    folder: Path
    content: dict[str, Any]
    known: bool = False

    @property
    def healthy(self) -> bool:
        return bool(self.content["healthy"])


def run(
    workspace: Workspace | None, request: Request, *, listeners: Sequence[Listener] = (), debug: bool = False
) -> Result:
    """Judges, and writes scorecard, outcomes, judgement.json and report.html into a new folder.

    workspace: for whatever the request leaves open, and for its registry. Finished pieces are kept beside the folder
    until the end: the same request goes on where it was. What was judged already, in everything that the figures depend
    on, is not judged again unless asked to. What the user's code prints goes to stderr. Raises BadInput.
    """
    from robustdistill.engine import devices

    if request.out is not None and request.out.exists():
        raise BadInput("the folder exists", where=str(request.out), fix="name a new one")
    if os.environ.get(RUN_VARIABLE):
        leash.watch()  # judged for a flow: not to outlive it
    compute = devices.choose()
    if not request.as_workspace and not os.environ.get(devices.THREADS_VARIABLE):
        compute = replace(compute, threads=cores())  # no other stage runs beside it
    if request.device:
        compute = replace(compute, device=devices.require_device(request.device, "--device"))
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
    from robustdistill.judge import evaluate, identity, write
    from robustdistill.judge.resume import Pieces
    from robustdistill.judge.sample import draw
    from robustdistill.stages.tools import Tools

    case = prepare(workspace, request, compute, downloads)
    subject, judge = case.subject, case.protocol
    sample = draw(
        case.examples.split(subject.low, subject.high), judge.examples, case.seed, compute.device, subject.trained_on
    )
    given: dict[str, Any] = {"seed": case.attack_seed, "adversaries": case.adversaries, "surrogates": case.surrogates}
    with named(request.target):
        key = identity(subject, sample, case.threat, judge, compute, **given)
    out = request.out or _default(request, key)
    if request.out is None and not request.again and (known := _known(out)):
        return known
    scratch = out.with_name(f".{out.name}.work")
    stored = len(list(Pieces.of(scratch, key).folder.glob("*.npz")))
    journal = Journal(workspace.journal if workspace and request.as_workspace else scratch / "journal.jsonl", "judge")
    tools = Tools(compute=compute, journal=journal, scratch=scratch, debug=debug)
    mine = [lambda record, tell=tell: tell(record) if record["stage"] == "judge" else None for tell in listeners]
    with Follower(journal.path, mine), named(request.target):  # its code also runs under attack
        if stored:
            journal.write("note", message=f"going on from {scratch}: {stored} finished pieces of attacks")
        elif out.exists():
            journal.write("note", message=f"this was judged before, see {out}; it is judged anew")
        found = evaluate(subject, sample, case.threat, judge, tools, **given)
    if workspace:
        looks.note(workspace, found.card, "judge")
    out = out if request.out else _unused(out)
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        write(part, found)
        content = _content(request, case, found)
        if workspace:
            content["looks"] = looks.at(workspace, found.card["sample"]["digest"]).to_json()
        write_atomically(part / JSON, json.dumps(content, indent=2, sort_keys=True) + "\n")
        write_atomically(part / HTML, _page(request, case, found, content))
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(scratch, ignore_errors=True)
    return Result(out, content)


def _default(request: Request, key: object) -> Path:
    """key: all that the judgement depends on."""
    from robustdistill.actions.judge_target import short_name

    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:8]
    return Path("judged") / f"{short_name(request.target)}-{digest}"


def _known(out: Path) -> Result | None:
    """What was judged into this folder, if it is all there: the folder appears as a whole."""
    try:
        content = json.loads((out / JSON).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return Result(out, content, known=True) if isinstance(content, dict) and "healthy" in content else None


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
        "in_short": line(card),
        "target": request.target,
        "data": str(request.data) if request.data else "the workspace's test set",
        "notes": _notes(request, case, found),
    }


def _notes(request: Request, case: Case, found: Judgement) -> list[str]:
    """What a reader of the figures has to know."""
    from robustdistill.attacks import Access
    from robustdistill.judge.autoattack import QUERIES, QUICK_QUERIES

    notes = []
    if case.subject.access < Access.GRADIENT:
        notes.append("an ONNX file without weights: black-box attacks only; --twin takes its weights")
        if case.protocol.autoattack == "none":
            notes.append(f"a quick look: Square with {QUICK_QUERIES} queries, not {QUERIES}: it breaks fewer examples")
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
    facts |= {"test set": content["looks"]["sentence"]} if "looks" in content else {}
    return render(found.card, shown, title=request.target, healthy=found.healthy, notes=content["notes"], facts=facts)
