"""Figures of a trained model: a screen on validation images for choosing, AutoAttack on test images for claims."""

from __future__ import annotations

from typing import Any

import numpy as np
from benchmarks.study.world import World
from numpy.typing import NDArray

from robustdistill import attacks
from robustdistill.attacks import Attack, TorchTarget
from robustdistill.attacks.goals import is_wrong
from robustdistill.config import Judge, Spec
from robustdistill.engine.twin import Twin
from robustdistill.judge import evaluate
from robustdistill.judge.sample import Sample, draw
from robustdistill.judge.subject import Subject
from robustdistill.models import Classifier
from robustdistill.rng import Draws, derive
from robustdistill.stages.tools import Tools
from robustdistill.threat import ThreatModel

GRADIENT: Spec = {"name": "pgd", "steps": 40, "goal": "margin", "keep": "best"}
BLIND: Spec = {"name": "square", "queries": 500}  # a masked student would be chosen for what only gradients miss
CHUNK = 250


def pack(flags: NDArray[np.bool_]) -> str:
    """Verdicts [n] as a compact string, four images a letter."""
    return np.packbits(flags).tobytes().hex()


def unpack(text: str, n: int) -> NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8), count=n).astype(bool)


def screen(model: Classifier, world: World) -> dict[str, Any]:
    """Margin PGD and Square on validation images, the same images and starts for every model of the study. gradient:
    what survives the first alone."""
    sample = draw(world.prepared.split("val"), world.settings.val, 0)
    clean = ~is_wrong(TorchTarget(model).logits(sample.x), sample.y).numpy()
    left = [clean]
    for spec in (GRADIENT, BLIND):
        left.append(_survivors(model, attacks.build(spec, "screen"), sample, left[-1], world.threat))
    return {**_figures(sample, clean, left[-1]), "gradient": float(left[1].mean())}


def _survivors(
    model: Classifier, attack: Attack, sample: Sample, left: NDArray[np.bool_], threat: ThreatModel
) -> NDArray[np.bool_]:
    twin, target, draws = Twin(model), TorchTarget(model), Draws(derive(0, "study/screen"))
    found = left.copy()
    for positions in np.array_split(np.flatnonzero(left), -(-int(left.sum()) // CHUNK) or 1):
        batch = sample.batch(positions)
        x_adv = attack(twin, batch, threat, draws) if len(positions) else batch.x
        found[positions] = ~is_wrong(target.logits(x_adv), batch.y).numpy()
    return found


def test(model: Classifier, sha256: str, world: World, tools: Tools) -> dict[str, Any]:
    """The judge's whole evaluation on test images; only confirmed methods get here."""
    sample = draw(world.prepared.split("test"), world.settings.n, world.params.seed)
    protocol = Judge(attacks=[GRADIENT], autoattack=world.settings.autoattack, chunk=CHUNK, examples=len(sample))
    subject = Subject.of_classifier(model, sha256, "cpu", names=list(world.prepared.manifest.classes))
    found = evaluate(subject, sample, world.threat, protocol, tools, seed=world.params.seed)
    left = {row.name: int(row.right.sum()) for row in found.trial.rows}
    failed = [check["sentence"] for check in found.card["health"] if not check["ok"]]
    figures = _figures(sample, found.trial.clean, found.trial.standing)
    return {**figures, "left": left, "healthy": found.healthy, "warnings": failed, "autoattack": protocol.autoattack}


def _figures(sample: Sample, clean: NDArray[np.bool_], robust: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "n": len(sample),
        "digest": sample.digest(),
        "clean": float(clean.mean()),
        "robust": float(robust.mean()),
        "clean_bits": pack(clean),
        "robust_bits": pack(robust),
    }
