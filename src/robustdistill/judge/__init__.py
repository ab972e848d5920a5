"""What is measured: attacks in sequence on the exported model, the last word to AutoAttack, and whether to trust it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from robustdistill import attacks
from robustdistill.attacks import Attack
from robustdistill.config import Judge, Params, dump
from robustdistill.data.prepared import Prepared
from robustdistill.errors import BadInput
from robustdistill.judge import autoattack, scorecard
from robustdistill.judge.curve import curve
from robustdistill.judge.health import checks
from robustdistill.judge.resume import Pieces
from robustdistill.judge.sample import Sample, draw
from robustdistill.judge.subject import Subject
from robustdistill.judge.transfer import stored
from robustdistill.judge.trial import Trial, kind_of, label
from robustdistill.rng import derive
from robustdistill.threat import ThreatModel

if TYPE_CHECKING:
    from robustdistill.stages.tools import Tools

__all__ = ["judge"]


def judge(export: Path, prepared: Path, adversaries: Path | None, out: Path, params: Params, tools: Tools) -> None:
    """Judges the model in `export` on test examples of `prepared` and writes scorecard, outcomes and inputs to `out`.

    adversaries: the stored set of the initial model, for the transfer attack. Finished pieces are kept in
    tools.scratch. Raises BadInput if a file is damaged, or model and data do not fit together.
    """
    if not params.judge.attacks and params.judge.autoattack == "none" and adversaries is None:
        raise BadInput("without an attack there is nothing to judge", where="params.yaml: judge", fix="name attacks")
    attempts = [attacks.build(spec, f"judge.attacks[{number}]") for number, spec in enumerate(params.judge.attacks)]
    subject, data = Subject.open(export, tools.compute), Prepared.open(prepared)
    _check_fit(subject, data, export)
    threat = params.threat.model(data.manifest.low, data.manifest.high)
    test, n = data.split("test"), params.judge.examples
    sample = draw(test, n, params.seed, tools.compute.device, subject.trained_on)
    trial = _trial(subject, sample, threat, params, tools)
    _attack(trial, params.judge, attempts, adversaries)
    factors, examples = params.judge.curve, params.judge.curve_examples
    found = curve(subject, sample, threat, factors, examples, derive(params.seed, "judge"))
    card = scorecard.card(trial, found, checks(trial, found), data.manifest.classes)
    out.mkdir(parents=True, exist_ok=True)
    scorecard.write(out, trial, card)


def _trial(subject: Subject, sample: Sample, threat: ThreatModel, params: Params, tools: Tools) -> Trial:
    key = {
        "model": subject.record["sha256"],
        "sample": sample.digest(),
        "threat": threat.to_json(),
        "judge": dump(params.judge),
        "seed": params.seed,
        "compute": [tools.compute.device, tools.compute.threads],
    }

    def report(name: str, done: int, total: int, robust: int) -> None:
        tools.journal.write("attack", name=name, done=done, total=total, robust=robust)

    pieces = Pieces.of(tools.scratch, key)
    return Trial(subject, sample, threat, derive(params.seed, "judge"), params.judge.chunk, pieces, report)


def _attack(trial: Trial, protocol: Judge, attempts: list[Attack], adversaries: Path | None) -> None:
    """Cheap attacks first, the last word last."""
    for spec, attack in zip(protocol.attacks, attempts, strict=True):
        trial.own(label(spec, attack, [row.name for row in trial.rows]), attack, kind_of(attack))
    if adversaries is not None:
        found = stored(adversaries, trial.sample, trial.threat)
        own = found.source_sha256 == trial.subject.record["sha256"]["safetensors"]
        note = "stored examples of this very model" if own else "stored examples of the initial model"
        if not found.known.all():
            note += f", for {int(found.known.sum())} of {len(trial.sample)}"
        trial.transfer(found.x_adv, found.known, note)
    if protocol.autoattack != "none":
        made = trial.subject.model.spec
        suite = autoattack.suite(protocol.autoattack, trial.threat, made.classes, made.shape)
        trial.last_word(suite, rand=protocol.autoattack == "rand")


def _check_fit(subject: Subject, data: Prepared, export: Path) -> None:
    spec, manifest = subject.model.spec, data.manifest
    ours = (spec.shape, spec.classes, spec.low, spec.high)
    theirs = (manifest.shape, len(manifest.classes), manifest.low, manifest.high)
    if ours != theirs:
        raise BadInput(
            f"the model takes inputs {ours[0]} in [{ours[2]}, {ours[3]}] of {ours[1]} classes, the data are "
            f"{theirs[0]} in [{theirs[2]}, {theirs[3]}] of {theirs[1]}",
            where=str(export),
            fix="judge a model on the data it was made for",
        )
    if list(subject.record.get("classes", [])) != list(manifest.classes):
        raise BadInput("the model's classes are not those of the data, or in another order", where=str(export))
