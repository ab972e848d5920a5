"""What is measured: attacks in sequence on a model, the last word to AutoAttack, and whether to trust it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from robustdistill import __version__, attacks
from robustdistill.attacks import Access, Attack
from robustdistill.config import Judge, Params, Spec, dump
from robustdistill.data.prepared import Prepared
from robustdistill.engine.devices import Compute
from robustdistill.engine.twin import Twin
from robustdistill.errors import BadInput
from robustdistill.gate.scorecard import REPLAYED
from robustdistill.judge import autoattack, bounds, scorecard
from robustdistill.judge.agreement import agreement
from robustdistill.judge.around import around
from robustdistill.judge.curve import curve
from robustdistill.judge.health import checks
from robustdistill.judge.progress import Progress
from robustdistill.judge.resume import Pieces
from robustdistill.judge.sample import Sample, draw
from robustdistill.judge.subject import Subject
from robustdistill.judge.transfer import stored
from robustdistill.judge.trial import Trial, kind_of, label
from robustdistill.models import weights
from robustdistill.rng import derive, seeded
from robustdistill.threat import ThreatModel

if TYPE_CHECKING:
    from robustdistill.stages.tools import Tools

__all__ = ["Judgement", "evaluate", "identity", "judge"]

SURROGATE: Spec = {"name": "pgd", "steps": 40, "goal": "margin", "keep": "best"}  # made on another model, replayed
TEACHER = "teacher"  # the surrogate whose answers the model is compared with
ASKED = 16  # examples whose logits are part of what a stored piece depends on


class Judgement(NamedTuple):
    """card: the scorecard as plain data. trial: outcomes and worst inputs of each example."""

    card: dict[str, Any]
    trial: Trial

    @property
    def healthy(self) -> bool:
        """Whether a decision may rest on the figures: no check of level "error" failed."""
        return all(item["ok"] or item["level"] != "error" for item in self.card["health"])


def judge(
    export: Path,
    prepared: Path,
    adversaries: Path | None,
    out: Path,
    params: Params,
    tools: Tools,
    others: Mapping[str, Path] | None = None,
) -> None:
    """Judges the model in `export` on test examples of `prepared` and writes scorecard, outcomes and inputs to `out`.

    adversaries: the stored set of the initial model, for the transfer attack. others: exports of other models, by
    name: examples made for them are replayed, too. Finished pieces are kept in tools.scratch. Raises BadInput if a
    file is damaged, or model and data do not fit together.
    """
    data = Prepared.open(prepared)
    made = data.manifest

    def opened(folder: Path) -> Subject:
        found = Subject.open(folder, tools.compute)
        require_fit(found, folder, shape=made.shape, names=list(made.classes), bounds=(made.low, made.high))
        return found

    subject, surrogates = opened(export), {name: opened(folder).model for name, folder in (others or {}).items()}
    threat = params.threat.model(made.low, made.high)
    test, n = data.split("test"), params.judge.examples
    sample = draw(test, n, params.seed, tools.compute.device, subject.trained_on)
    found = evaluate(
        subject, sample, threat, params.judge, tools,
        seed=params.seed, adversaries=adversaries, surrogates=surrogates,
    )  # fmt: skip
    write(out, found)


def evaluate(
    subject: Subject,
    sample: Sample,
    threat: ThreatModel,
    protocol: Judge,
    tools: Tools,
    *,
    seed: int = 0,
    adversaries: Path | None = None,
    surrogates: Mapping[str, nn.Module] | None = None,
) -> Judgement:
    """Judges any model on these examples; nothing is written but finished pieces in tools.scratch.

    adversaries: a stored set, replayed. surrogates: other models of the same task, in evaluation mode: examples made
    for them are replayed. A subject that gives scores only is attacked by Square and by these. Raises BadInput where
    nothing is left to attack with, or the model answers in the wrong shape.
    """
    if not protocol.attacks and protocol.autoattack == "none" and adversaries is None:
        raise BadInput("without an attack there is nothing to judge", where="params.yaml: judge", fix="name attacks")
    attempts = [attacks.build(spec, f"judge.attacks[{number}]") for number, spec in enumerate(protocol.attacks)]
    key = identity(
        subject, sample, threat, protocol, tools.compute,
        seed=seed, adversaries=adversaries, surrogates=surrogates,
    )  # fmt: skip
    progress, pieces = Progress(tools.journal), Pieces.of(tools.scratch, key)
    trial = Trial(subject, sample, threat, derive(seed, "judge"), protocol.chunk, pieces, progress)
    _attack(trial, protocol, attempts)
    _stored(trial, adversaries)
    if subject.access < Access.GRADIENT:
        _replayed(trial, surrogates or {})  # the strongest there is
        quick = protocol.autoattack == "none"
        trial.black_box(autoattack.black_box(threat, subject.shape, quick=quick))
    else:
        _last_word(trial, protocol)
        _replayed(trial, surrogates or {})  # so that no other row depends on which models there were
    progress.phase("accuracy at other eps")
    found = curve(trial, protocol.curve, protocol.curve_examples)
    progress.phase("health checks")
    bound = bounds.bound(trial)
    health = checks(trial, found) + bounds.check(trial, bound)
    progress.phase("corruptions and other threats")
    card = scorecard.card(trial, found, health, subject.names) | {"bounds": bound.to_json(), "around": around(trial)}
    if TEACHER in (surrogates or {}):
        card["agreement"] = agreement(trial, (surrogates or {})[TEACHER])
    return Judgement(card, trial)


def write(out: Path, found: Judgement) -> None:
    """All files of a score; see scorecard.write."""
    out.mkdir(parents=True, exist_ok=True)
    scorecard.write(out, found.trial, found.card)


def identity(
    subject: Subject,
    sample: Sample,
    threat: ThreatModel,
    protocol: Judge,
    compute: Compute,
    *,
    seed: int = 0,
    adversaries: Path | None = None,
    surrogates: Mapping[str, nn.Module] | None = None,
) -> dict[str, Any]:
    """All that a judgement depends on, as plain data: the same again gives the same figures."""
    manifest = adversaries / "manifest.json" if adversaries else None
    return {
        "version": __version__,
        "model": subject.key,
        "sample": sample.digest(),
        "threat": threat.to_json(),
        "judge": dump(protocol),
        "seed": seed,
        "compute": [compute.device, compute.threads],
        "answers": _answers(subject.logits, sample),
        "adversaries": weights.digest(manifest) if manifest and manifest.exists() else None,
        "surrogates": {name: _answers(Twin(model).logits, sample) for name, model in (surrogates or {}).items()},
    }


def _answers(logits: Callable[[Tensor], Tensor], sample: Sample) -> str:
    """What the model says of the first examples, hashed: code that weights do not tell apart answers otherwise."""
    with seeded("judge", "answers"):
        found = logits(sample.x[:ASKED])
    return hashlib.sha256(found.cpu().numpy().tobytes()).hexdigest()


def _attack(trial: Trial, protocol: Judge, attempts: list[Attack]) -> None:
    """The project's own attacks, cheap ones first: those that need no more than the subject gives."""
    for spec, attack in zip(protocol.attacks, attempts, strict=True):
        if attack.needs <= trial.subject.access:
            trial.own(label(spec, attack, [row.name for row in trial.rows]), attack, kind_of(attack))


def _stored(trial: Trial, adversaries: Path | None) -> None:
    """What was made for the initial model."""
    if adversaries is not None:
        found = stored(adversaries, trial.sample, trial.threat)
        own = found.source_sha256 == trial.subject.about["sha256"]
        note = "stored examples of this very model" if own else "stored examples of the initial model"
        if not found.known.all():
            note += f", for {int(found.known.sum())} of {len(trial.sample)}"
        trial.transfer(found.x_adv, found.known, note)


def _replayed(trial: Trial, surrogates: Mapping[str, nn.Module]) -> None:
    """What is made for other models now, by one attack each."""
    attack = attacks.build(SURROGATE, "judge.surrogates")
    for name, model in surrogates.items():
        row = trial.own(f"{REPLAYED}{name}", attack, "transfer", Twin(model))
        row.note = f"made for {name}"


def _last_word(trial: Trial, protocol: Judge) -> None:
    subject = trial.subject
    if protocol.autoattack != "none":
        suite = autoattack.suite(protocol.autoattack, trial.threat, subject.classes, subject.shape)
        trial.last_word(suite, rand=protocol.autoattack == "rand")


def require_fit(
    subject: Subject,
    where: Path | str,
    *,
    shape: tuple[int, ...],
    names: list[str] | None,
    bounds: tuple[float, float] | None = None,
) -> None:
    """Raises BadInput unless the model is one of data with this shape, these classes in order and this range.

    names, bounds: None where the data do not say.
    """
    classes = subject.classes if names is None else len(names)
    low, high = bounds or (subject.low, subject.high)
    if (subject.shape, subject.classes, subject.low, subject.high) != (shape, classes, low, high):
        raise BadInput(
            f"the model takes inputs {subject.shape} in [{subject.low}, {subject.high}] of {subject.classes} classes, "
            f"the data are {shape} in [{low}, {high}] of {classes}",
            where=str(where),
            fix="judge a model on the data it was made for",
        )
    if names is not None and subject.names != names:
        raise BadInput("the model's classes are not those of the data, or in another order", where=str(where))
