"""Suspicious models made of honest digits models, judged; and an adaptive attack that shows what PGD-20 overclaims.

    python -m benchmarks.zoo --out FOLDER                    # one process, one thread
    python -m benchmarks.zoo --out FOLDER --only trades-31   # one of them
    python -m benchmarks.zoo --out FOLDER2 --quick --n 120

The judge is that of the recipe `digits`, AutoAttack's version "standard" included; --quick puts a short suite of our
own in its place. Seeds 11 and 12 are for setting thresholds and for trying masks: the table is of others.

One JSON a model in FOLDER, written when it is done: what is there is not done again, and a judgement that was stopped
goes on from its finished pieces. FOLDER/results.json holds them all. Copied to benchmarks/zoo/results.json,
`python -m benchmarks.zoo.table` makes the table of docs/judging.md of them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.suite_agreement import prepared, same_settings
from benchmarks.zoo import adaptive
from benchmarks.zoo.animals import Animal, animals
from benchmarks.zoo.nets import threat_of, trained
from torch import nn

from robustdistill import recipes
from robustdistill.data.files import write_json
from robustdistill.data.prepared import Prepared
from robustdistill.engine.devices import Compute, apply
from robustdistill.errors import BadInput
from robustdistill.journal import Journal
from robustdistill.judge import evaluate
from robustdistill.judge.sample import Sample, draw
from robustdistill.judge.subject import Subject
from robustdistill.stages.tools import Tools
from robustdistill.threat import ThreatModel

QUICK: dict[str, Any] = {
    "attacks": [
        {"name": "fgsm"},
        {"name": "pgd", "steps": 20},
        {"name": "own", "steps": 25, "queries": 300, "targets": 3},
    ],
    "autoattack": "none",
    "curve": [0.5, 1.0, 2.0],
    "curve_examples": 50,
}


def judged(animal: Animal, model: nn.Module, sample: Sample, threat: ThreatModel, arguments: Any) -> dict[str, Any]:
    """What the judge says. refused: its sentence where it cannot begin; failed: the checks of level "error"."""
    subject = Subject.of_module(model, shape=sample.x.shape[1:], classes=animal.classes)
    protocol = recipes.load("digits").params.judge.model_copy(update=QUICK if arguments.quick else {})
    tools = Tools(
        Compute("cpu", 1),
        Journal(arguments.out / "journal.jsonl", animal.name),
        arguments.out / "scratch" / animal.name,
    )
    try:
        found = evaluate(subject, sample, threat, protocol, tools)
    except BadInput as error:
        return {"judged": None, "standing": [], "failed": [], "refused": error.cause}
    failed = [check["name"] for check in found.card["health"] if not check["ok"] and check["level"] == "error"]
    return {
        "judged": float(found.trial.standing.mean()),
        "standing": found.trial.standing.nonzero()[0].tolist(),
        "failed": failed,
    }


def measured(animal: Animal, found: Prepared, sample: Sample, arguments: Any) -> dict[str, Any]:
    """One animal: trained, judged, and attacked by one who knows it."""
    begun = time.process_time()
    net, threat = trained(animal.net, animal.seed, found, arguments), threat_of(animal.net, found)
    part = judged(animal, animal.judged(net), sample, threat, arguments)
    if animal.suspicious:
        mask, classes = animal.attacked(net)
        part["left"] = adaptive.left(mask, sample, threat, classes, random=animal.kind == "random")
        part["adaptive"] = part["left"]["all"]
    if animal.kind == "detector":
        part["claimed"] = adaptive.claimed_by_detector(net, sample, threat)
    elif animal.suspicious:
        part["claimed"] = adaptive.claimed(animal.judged(net), sample, threat)
    if animal.kind == "overfitted":
        part["one_step"] = adaptive.claimed(net, sample, threat, adaptive.ONE_STEP)
    return {"kind": animal.kind, "eps": threat.eps, **part, "cpu_seconds": round(time.process_time() - begun, 1)}


def run(arguments: Any) -> list[dict[str, Any]]:
    """All that are asked for and not there yet; then all that are there."""
    folder: Path = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    same_settings(
        folder / "settings.json", {name: getattr(arguments, name) for name in ("n", "epochs", "quick", "seeds")}
    )
    apply(Compute("cpu", 1))
    params = recipes.load("digits").params
    found = prepared(folder, params)
    sample = draw(found.split("test"), arguments.n, params.seed)
    everybody = {animal.name: animal for animal in animals(arguments.seeds)}

    def once(name: str) -> dict[str, Any]:
        path, animal = folder / "done" / f"{name}.json", everybody[name]
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            part = measured(animal, found, sample, arguments)
            if animal.original:
                part["moved"] = len(set(part["standing"]) ^ set(once(animal.original)["standing"]))
            write_json(path, {"model": name, "n": len(sample), "quick": arguments.quick, **part})
            print(name, {key: value for key, value in part.items() if key != "standing"}, flush=True)
        part = json.loads(path.read_text(encoding="utf-8"))
        return dict(part)

    for name in arguments.only or everybody:
        once(name)
    done = [once(name) for name in everybody if (folder / "done" / f"{name}.json").is_file()]
    write_json(folder / "results.json", [{k: v for k, v in part.items() if k != "standing"} for part in done])
    print(f"{len(done)} of {len(everybody)} models are done", flush=True)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of models, parts and results.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[31, 32, 33], help="suspicious ones are of the first")
    parser.add_argument("--only", nargs="+", default=[], metavar="MODEL", help="these, such as noise-31")
    parser.add_argument("--n", type=int, default=200, help="test images, at most 256")
    parser.add_argument("--epochs", type=int, default=20, help="of each training")
    parser.add_argument("--quick", action="store_true", help="fewer steps and queries, without AutoAttack")
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - {animal.name for animal in animals(arguments.seeds)}:
        parser.error(f"there is no {', '.join(sorted(unknown))}: {', '.join(a.name for a in animals(arguments.seeds))}")
    run(arguments)


if __name__ == "__main__":
    main()
