"""What a student is compared with: today's champion and the best version so far, all judged on today's data.

A version is left out only if it cannot take today's data: another input shape, class list or input range, as its own
files show. Nobody is left out silently.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robustdistill.actions import champion, package
from robustdistill.actions.intent import HELD
from robustdistill.actions.register import THREAT, threat_tag
from robustdistill.actions.rescored import rescored
from robustdistill.actions.session import Session
from robustdistill.errors import RobustDistillError, ServiceFailed
from robustdistill.gate.scorecard import Evidence
from robustdistill.gate.verdict import Rule, Verdict
from robustdistill.services.mlflow_store import Store
from robustdistill.threat import ThreatModel
from robustdistill.workspace import Workspace

RIVALS = 3  # promoted versions that are judged again to find the best ever; each costs one evaluation
SHOWN = 10  # class names in a sentence


@dataclass(frozen=True)
class References:
    """judged: "champion" and "best", as far as there are such. left_out: versions that were not compared, and why."""

    judged: dict[str, Evidence]
    left_out: list[str]

    def named(self, result: Verdict) -> Verdict:
        """The verdict with a line on what was left out of it."""
        lines = [Rule("left_out", "not_applicable", sentence) for sentence in self.left_out]
        return replace(result, rules=[*result.rules, *lines])


def gather(current: Session) -> References:
    """Today's champion and the best version so far, judged today; none before the first promotion.

    A champion that cannot take today's data is noted in the session: then a person has to decide. Another version that
    cannot is left out, and takes none of the RIVALS places. A champion that was promoted under another threat model is
    judged under today's, and a person has to decide, too.
    Raises ServiceFailed if a version's description is not that of its model.
    """
    workspace, store, models = current.workspace, current.store, current.workspace.work / "models"
    judged, best, left_out = dict[str, Evidence](), list[Evidence](), dict[str, list[int]]()

    def evidence(export: Path) -> Evidence:
        return rescored(workspace, export, current.run, up_to_date=current.up_to_date)

    held = champion.fetch(store, workspace.name, "champion", models)
    why = misfit(workspace, held) if held else ""
    threat = _threat(workspace)
    other = _other_threat(store, workspace.name, threat) if held else ""
    other = other or _lost(workspace, store)
    current.incomparable = f"the champion cannot be judged on today's data: it {why}" if why else other
    if held and not why:
        judged["champion"] = evidence(held)
    for number in champion.rivals(store, workspace.name, threat):
        export = champion.require(store, workspace.name, number, models)
        if why := misfit(workspace, export):
            if export != held:
                left_out.setdefault(why, []).append(number)
        elif len(best) < RIVALS:
            best.append(evidence(export))
        if len(best) == RIVALS:
            break
    if best:
        judged["best"] = max(best, key=lambda one: one.robust.mean())
    return References(judged, [_left_out(numbers, why) for why, numbers in left_out.items()])


def _threat(workspace: Workspace) -> str | None:
    """Today's threat model, as the student was judged under it."""
    card = workspace.artifacts / "score" / "student" / "scorecard.json"
    return threat_tag(json.loads(card.read_text(encoding="utf-8"))) if card.exists() else None


def _other_threat(store: Store, name: str, today: str | None) -> str:
    """In words, if the champion was promoted under another threat model: what is demanded is a person's to change."""
    number, _ = champion.current(store, name)
    before = store.registry.version(name, number).tags.get(THREAT) if number is not None else None
    then, now = _model(before), _model(today)
    if then is None or now is None or then == now:
        return ""
    return f"the champion was promoted under {then.label()}, today's threat model is {now.label()}"


def _lost(workspace: Workspace, store: Store) -> str:
    """In words, if a champion was made here and the registry knows of none: an emptied one is not a first run."""
    path = workspace.work / HELD
    if not path.exists() or store.registry.versions(workspace.name):
        return ""
    return f"the registry holds no version of {workspace.name}, though {path} names a champion"


def _model(tag: str | None) -> ThreatModel | None:
    """None for a tag that does not say it in full, as those of earlier versions of this program."""
    try:
        return ThreatModel.from_json(json.loads(tag or ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _left_out(numbers: list[int], why: str) -> str:
    """In words; why: as `misfit` says it."""
    *first, last = sorted(numbers)
    who = f"versions {', '.join(map(str, first))} and {last}: each" if first else f"version {last}"
    return f"{who} {why}, and was not compared"


def misfit(workspace: Workspace, export: Path) -> str:
    """Why a model cannot take today's data: "takes inputs of …"; "" if it can.

    Raises ServiceFailed where the model's own files contradict the description that says so.
    """
    theirs = json.loads((export / "export.json").read_text(encoding="utf-8"))
    ours = json.loads((workspace.artifacts / "prepare" / "manifest.json").read_text(encoding="utf-8"))
    differs = _difference(theirs, ours)
    if differs:
        _require_own(export, theirs)
    return differs


def _difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    if theirs["shape"] != ours["shape"]:
        return f"takes inputs of shape {theirs['shape']}, the data have {ours['shape']}"
    if theirs["classes"] != ours["classes"]:
        return f"was made for the classes {_names(theirs['classes'])}, the data have {_names(ours['classes'])}"
    ranges = [[record["low"], record["high"]] for record in (theirs, ours)]
    return "" if ranges[0] == ranges[1] else f"takes inputs in {ranges[0]}, the data lie in {ranges[1]}"


def _names(classes: list[str]) -> str:
    rest = len(classes) - SHOWN
    return ", ".join(classes[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _require_own(export: Path, record: Mapping[str, Any]) -> None:
    """export.json is bound by no hash, so what it says is held against the model: its ONNX file run on an input of
    that shape, the description of its weights, and the classes of the scorecard it was registered with."""
    fault = ServiceFailed(
        "the version's description is not that of its model, so it cannot be left out of the comparison",
        where=str(export / "export.json"),
        fix="remove the folder, so that it is fetched again; if that does not help, the registry's copy was altered",
    )
    try:
        answer = package.logits(export / "model.onnx", package.example(record))
        described = json.loads((export / "model.json").read_text(encoding="utf-8"))
        card = json.loads((export / "scorecard.json").read_text(encoding="utf-8"))
        own = [described["sha256"], *(described["spec"][key] for key in ("shape", "classes", "low", "high"))]
        names = [row["class"] for row in card["per_class"]]
    except (RobustDistillError, OSError, ValueError, KeyError, TypeError) as error:
        raise fault from error
    count = len(record["classes"])
    told = [record["sha256"]["safetensors"], record["shape"], count, record["low"], record["high"]]
    if answer.shape[1:] != (count,) or own != told or names != record["classes"]:
        raise fault
