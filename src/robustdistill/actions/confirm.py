"""`robustdistill confirm`: does the student gain from its teacher, or was it the luck of one seed?

Student and control are trained anew with fresh seeds and judged by the same protocol on the same test images. The
answer's interval is over both samples, of trainings and of images (gate/two_way.py).
"""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robustdistill.actions import looks, stage
from robustdistill.config import Params, dump
from robustdistill.errors import BadInput
from robustdistill.journal import Journal
from robustdistill.services import dvc_cli
from robustdistill.stages import catalog
from robustdistill.workspace import Workspace, write_atomically

if TYPE_CHECKING:
    from robustdistill.actions.follow import Listener
    from robustdistill.engine.devices import Compute
    from robustdistill.judge.sample import Sample
    from robustdistill.stages.tools import Tools

ROLES = ("control", "student")
NEEDED = ("prepare", "initial", "teacher")
RESULT = "confirmation.json"


def run(workspace: Workspace, seeds: int, *, listeners: Sequence[Listener] = (), debug: bool = False) -> dict[str, Any]:
    """Trains and judges `seeds` pairs, with the workspace's lock and a run of its own in MLflow; says what was found.

    The same is kept in .work/confirm/KEY/confirmation.json. A pair that is done is not done again, a training that
    was killed goes on from its checkpoint. Raises BadInput if the teacher is not that of today's data and params.
    """
    from robustdistill.actions import serving

    with workspace.lock():  # before there is a record: what cannot begin leaves none
        params = _params(workspace)
    with serving.by_hand(workspace, f"confirm {seeds} seeds", "does the student gain from its teacher?") as current:
        found = _run(workspace, params, seeds, listeners, debug=debug)
        current.figures = {f"confirm/{key}": found[key] for key in ("difference", "lower", "upper", "p")}
        current.files = {"confirm": [Path(found["file"])]}
    return found


def _run(
    workspace: Workspace, params: Params, seeds: int, listeners: Sequence[Listener], *, debug: bool
) -> dict[str, Any]:
    from robustdistill.actions.follow import Follower
    from robustdistill.engine import devices

    home = workspace.work / "confirm" / _key(workspace, params)
    compute = devices.choose()
    devices.apply(compute)
    with Follower(home / "journal.jsonl", listeners):
        pairs = [_pair(workspace, params, number, home, compute, debug=debug) for number in range(1, seeds + 1)]
    found = _found(workspace, params, pairs) | {"file": str(home / RESULT)}
    write_atomically(home / RESULT, json.dumps(found, indent=2, sort_keys=True) + "\n")
    return found


def _params(workspace: Workspace) -> Params:
    changed = set(NEEDED) & set(dvc_cli.changed(workspace.root))
    if changed:
        raise BadInput(
            f"{', '.join(sorted(changed))} would run: this is not the teacher of today's data and params",
            where=str(workspace.root),
            fix=f"python flows/retrain.py --workspace {workspace.root}",
        )
    return workspace.params()


def _key(workspace: Workspace, params: Params) -> str:
    """Names exactly what the pairs are made from and judged by."""
    made = [stage.input_key(workspace, catalog.get(role), params) for role in ROLES]
    judged = catalog.get("score@student").revision
    parts = [made, judged, params.seed, params.threat.norm, params.threat.eps, dump(params.judge)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _pair(
    workspace: Workspace, params: Params, number: int, home: Path, compute: Compute, *, debug: bool
) -> dict[str, dict[str, Any]]:
    from robustdistill.stages.tools import Tools

    pair = {}
    for role in ROLES:
        folder, journal = home / str(number) / role, Journal(home / "journal.jsonl", f"{role} {number}")
        if not (folder / "judged.json").exists():
            began = time.monotonic()
            journal.write("start")
            tools = Tools(compute=compute, journal=journal, scratch=folder / "scratch", debug=debug)
            write_atomically(
                folder / "judged.json", json.dumps(_judged(workspace, params, number, role, folder, tools))
            )
            shutil.rmtree(tools.scratch, ignore_errors=True)
            journal.write("end", seconds=round(time.monotonic() - began, 3))
        pair[role] = json.loads((folder / "judged.json").read_text(encoding="utf-8"))
    return pair


def _judged(workspace: Workspace, params: Params, number: int, role: str, folder: Path, tools: Tools) -> dict[str, Any]:
    """Trains one model and judges it. robust: a flag for each image, as 0 and 1."""
    from robustdistill.judge import evaluate
    from robustdistill.judge.subject import Subject
    from robustdistill.models import weights

    if not (folder / "trained.json").exists():
        _train(workspace, params, number, role, folder, tools)
    trained = json.loads((folder / "trained.json").read_text(encoding="utf-8"))
    sample, model = _sample(workspace, params, tools.compute), weights.load(folder / "model")
    sha256 = weights.digest(folder / "model" / "model.safetensors")
    subject = Subject.of_classifier(model, sha256, tools.compute.device)
    threat = params.threat.model(model.spec.low, model.spec.high)
    found = evaluate(subject, sample, threat, params.judge, tools, seed=params.seed)
    if role == "student":  # the control is a yardstick
        looks.note(workspace, found.card, "confirm")
    return {
        **trained,
        "images": sample.digest(),
        "clean": float(found.trial.clean.mean()),
        "robust": "".join("01"[int(flag)] for flag in found.trial.standing),
        "healthy": found.healthy,
    }


def _train(workspace: Workspace, params: Params, number: int, role: str, folder: Path, tools: Tools) -> None:
    from robustdistill.rng import derive

    fresh = params.model_copy(update={"seed": derive(params.seed, "confirm", number)})
    reads = {name: workspace.root / path for name, path in catalog.get(role).reads.items()}
    tools.scratch.mkdir(parents=True, exist_ok=True)
    (folder / "model").mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    importlib.import_module(catalog.get(role).module).run(fresh, reads, folder / "model", tools)
    record = {"seed": fresh.seed, "core_seconds": round(time.process_time() - began, 1)}
    write_atomically(folder / "trained.json", json.dumps(record))


def _sample(workspace: Workspace, params: Params, compute: Compute) -> Sample:
    """The test images of every pair: those of the flow, less what the teacher has seen."""
    from robustdistill.data.prepared import Prepared
    from robustdistill.data.seen import Seen
    from robustdistill.judge.sample import draw

    data = Prepared.open(workspace.artifacts / "prepare")
    known = np.union1d(data.split("train").id, data.split("val").id)
    known = np.union1d(known, Seen.read(workspace.artifacts / "teacher").ids)
    return draw(data.split("test"), params.judge.examples, params.seed, compute.device, known)


def _found(workspace: Workspace, params: Params, pairs: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    from robustdistill.gate import two_way

    flags = {role: np.array([[flag == "1" for flag in pair[role]["robust"]] for pair in pairs]) for role in ROLES}
    compared = two_way.compare(flags["student"], flags["control"])
    told = two_way.word(compared, compared.p, compared.inferior)
    apart = two_way.discordance(list(zip(flags["student"], flags["control"], strict=True)))
    rows = [
        {
            "seed": pair["student"]["seed"],
            **{f"{role}_{figure}": float(np.mean(value)) for role in ROLES for figure, value in (
                ("clean", pair[role]["clean"]), ("robust", flags[role][number]))},
            **{f"{role}_core_seconds": pair[role]["core_seconds"] for role in ROLES},
        }
        for number, pair in enumerate(pairs)
    ]  # fmt: skip
    lower, upper = compared.interval
    return {
        "workspace": str(workspace.root),
        "model": params.name,
        "threat": f"{params.threat.norm} {params.threat.eps}",
        "autoattack": params.judge.autoattack,
        "seeds": rows,
        "images": compared.n,
        "epochs": params.student.training.epochs,
        "difference": compared.difference,
        "lower": lower,
        "upper": upper,
        "p": compared.p,
        "says": told,
        "power": two_way.power_note(apart, compared.n),
        "healthy": all(pair[role]["healthy"] for pair in pairs for role in ROLES),
    }
