"""Suspicious models made of honest digits models, judged; and an adaptive attack that shows what PGD-20 overclaims.

    python -m benchmarks.zoo --out FOLDER --quick
    python -m benchmarks.zoo --out FOLDER --seeds 1 2 3 4 5

One JSON a model in FOLDER, so that a run that was stopped goes on; FOLDER/results.json holds them all. Copied to
benchmarks/zoo/results.json, `python -m benchmarks.zoo.table` makes the table of docs/judging.md of them.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.suite_agreement import prepared, small, train
from benchmarks.zoo.masks import MASKS, RANDOM, SCALES, Mask
from torch import nn

from robustdistill import models, objectives, recipes, training
from robustdistill.attacks import TorchTarget, build
from robustdistill.attacks.adaptive import ExpectedTarget
from robustdistill.data.files import write_json
from robustdistill.data.prepared import Prepared
from robustdistill.engine.devices import Compute, apply
from robustdistill.journal import Journal
from robustdistill.judge import evaluate
from robustdistill.judge.sample import Sample, draw
from robustdistill.judge.subject import Subject
from robustdistill.models import Classifier
from robustdistill.rng import Draws, derive
from robustdistill.stages.tools import Tools
from robustdistill.threat import ThreatModel

INNER = {"name": "pgd", "steps": 4, "step": 0.4}
HONEST: dict[str, tuple[dict[str, Any], float]] = {  # objective, eps that it is trained at
    "plain": ({"name": "ce"}, 0.2),
    "pgd_at": ({"name": "pgd_at", "attack": INNER}, 0.2),
    "pgd_at-half": ({"name": "pgd_at", "attack": INNER}, 0.1),
    "trades": ({"name": "trades"}, 0.2),
}
ORIGINALS = ("plain", "pgd_at")  # behind masks; behind other scales
EOT = 8  # forward passes of an expectation


def honest(name: str, seed: int, found: Prepared, arguments: Any) -> Classifier:
    """One of HONEST, trained once."""
    objective, eps = HONEST[name]
    plan = recipes.load("digits").params.student.training.model_copy(update={"epochs": arguments.epochs})
    threat = ThreatModel("linf", eps, found.manifest.low, found.manifest.high)

    def job() -> training.Job:
        return training.Job(
            models.build(small(found, "nano"), seed, name), objectives.build(objective, name),
            found.split("train"), found.split("val"), threat, plan, derive(seed, name), None,
        )  # fmt: skip

    return train(arguments.out / "models" / f"{name}-{seed}", job, Compute("cpu", 1))


def judged(name: str, model: nn.Module, sample: Sample, threat: ThreatModel, arguments: Any) -> dict[str, Any]:
    subject = Subject.of_module(model, shape=sample.x.shape[1:], classes=10)
    steps, queries, targets = (25, 300, 3) if arguments.quick else (100, 5000, 9)
    changes = {
        "attacks": [
            {"name": "pgd", "steps": 20},
            {"name": "own", "steps": steps, "queries": queries, "targets": targets},
            {"name": "square", "queries": queries},
        ],
        "autoattack": "none",
        "curve": [0.5, 1.0, 2.0],
        "curve_examples": 50,
    }
    protocol = recipes.load("digits").params.judge.model_copy(update=changes)
    tools = Tools(Compute("cpu", 1), Journal(arguments.out / "journal.jsonl", name), arguments.out / "scratch" / name)
    found = evaluate(subject, sample, threat, protocol, tools)
    failed = [check["name"] for check in found.card["health"] if not check["ok"] and check["level"] == "error"]
    return {
        "claimed": float(found.trial.rows[0].right.mean()),
        "judged": float(found.trial.standing.mean()),
        "standing": np.flatnonzero(found.trial.standing).tolist(),
        "failed": failed,
    }


def adaptive(name: str, model: Mask, sample: Sample, threat: ThreatModel) -> float:
    """What stands of the masked model when the net behind it is attacked, and an expectation of a random one."""
    attack = build({"name": "pgd", "steps": 40, "goal": "margin", "keep": "best"}, "zoo")
    batch = sample.batch(np.arange(len(sample)))
    targets: list[Any] = [TorchTarget(model.net)]
    if name in RANDOM:
        targets.append(ExpectedTarget(TorchTarget(model), EOT))
    subject = Subject.of_module(model, shape=sample.x.shape[1:], classes=10)
    standing = subject.reply(sample.x, sample.y).right
    for number, target in enumerate(targets):
        x_adv = attack(target, batch, threat, Draws(derive(number, "adaptive")))
        standing &= subject.reply(x_adv, sample.y).right
    return float(standing.mean())


def run(arguments: Any) -> list[dict[str, Any]]:
    arguments.out.mkdir(parents=True, exist_ok=True)
    apply(Compute("cpu", 1))
    params = recipes.load("digits").params
    found = prepared(arguments.out, params)
    threat = ThreatModel("linf", 0.2, found.manifest.low, found.manifest.high)
    sample = draw(found.split("test"), arguments.n, params.seed)
    results: list[dict[str, Any]] = []

    def once(name: str, make: Any) -> dict[str, Any]:
        path = arguments.out / f"{name}.json"
        if not path.is_file():
            write_json(path, {"model": name, "n": len(sample), "quick": arguments.quick, **make()})
        results.append(json.loads(path.read_text(encoding="utf-8")))
        print(results[-1]["model"], {k: v for k, v in results[-1].items() if k != "standing"}, flush=True)
        write_json(arguments.out / "results.json", [{k: v for k, v in r.items() if k != "standing"} for r in results])
        return results[-1]

    def masked(name: str, kind: str, seed: int) -> dict[str, Any]:
        behind = ORIGINALS[name in SCALES]
        base = honest(behind, seed, found, arguments)
        original = json.loads((arguments.out / f"{behind}-{seed}.json").read_text(encoding="utf-8"))
        # Attacked and judged as a fresh model each: some change with what they are asked.
        part = judged(kind, Mask(base, MASKS[name]), sample, threat, arguments)
        moved = len(set(part["standing"]) ^ set(original["standing"]))
        shown = adaptive(name, Mask(base, MASKS[name]), sample, threat)
        return {**part, "kind": "scale" if name in SCALES else "mask", "adaptive": shown, "moved": moved}

    def fair(name: str, seed: int) -> dict[str, Any]:
        model = honest(name, seed, found, arguments)
        return {"kind": "honest", **judged(f"{name}-{seed}", model, sample, threat, arguments)}

    first = arguments.seeds[0]
    for name in ORIGINALS:
        once(f"{name}-{first}", partial(fair, name, first))
    for name in MASKS:
        once(f"{name}-{first}", partial(masked, name, f"{name}-{first}", first))
    for seed in arguments.seeds:
        for name in HONEST:
            if seed != first or name not in ORIGINALS:
                once(f"{name}-{seed}", partial(fair, name, seed))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of models, parts and results.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="masks use the first")
    parser.add_argument("--n", type=int, default=360, help="test images")
    parser.add_argument("--epochs", type=int, default=20, help="of each training")
    parser.add_argument("--quick", action="store_true", help="fewer steps and queries")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
