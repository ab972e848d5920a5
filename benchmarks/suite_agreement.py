"""Our attack suite beside pyautoattack's: the same models, the same images, several seeds on each side.

    python benchmarks/suite_agreement.py --data digits --n 360 --seeds 3 --out FOLDER
    python benchmarks/suite_agreement.py --data fashion_mnist --n 1000 --epochs 15 --out FOLDER

Prints the net excess: the share of images that our suite leaves standing and theirs breaks, less the reverse, averaged
over models and pairs of seeds, with the upper end of its one-sided 95 % interval (bootstrap over images: all verdicts
on one image go together). Every image that any seed of theirs broke and none of ours is listed.

Each finished part is one JSON in FOLDER (a model's one side with one seed), so a run that was stopped goes on; the
result is FOLDER/agreement.json. Another setting needs another folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robustdistill import data, models, objectives, recipes, training
from robustdistill.attacks import TorchTarget
from robustdistill.attacks.goals import is_wrong
from robustdistill.attacks.suite import Own, parts
from robustdistill.config import Params
from robustdistill.data.files import write_json
from robustdistill.data.prepared import Prepared
from robustdistill.engine.devices import Compute, apply
from robustdistill.engine.twin import Twin
from robustdistill.errors import RobustDistillError
from robustdistill.journal import Journal
from robustdistill.judge import autoattack
from robustdistill.judge.sample import Sample, draw
from robustdistill.models import Classifier, ModelSpec, weights
from robustdistill.objectives.types import Teacher
from robustdistill.rng import Draws, derive
from robustdistill.threat import ThreatModel

INNER = {"name": "pgd", "steps": 4, "step": 0.4}
# name -> (size, objective, teacher): trained differently, so that what one suite misses on one kind can be seen
MODELS: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "pgd_at": ("micro", {"name": "pgd_at", "attack": INNER}, None),
    "trades": ("nano", {"name": "trades"}, None),
    "ard": ("nano", {"name": "ard", "attack": INNER}, "pgd_at"),
}
RESAMPLES = 10_000
CHUNK = 250
SIDES = ("ours", "theirs")


def net_excess(ours: NDArray[np.bool_], theirs: NDArray[np.bool_], seed: int = 0) -> dict[str, float]:
    """ours, theirs: robust or not, [models, seeds, images]. In points of a hundred, positive where ours is weaker."""
    by_image = (ours.mean(axis=1) - theirs.mean(axis=1)).mean(axis=0) * 100
    index, n = torch.arange(RESAMPLES), len(by_image)
    drawn = Draws(seed).uniform(torch.empty(RESAMPLES, n, dtype=torch.float32), index, "bootstrap").numpy()
    means = by_image[(drawn * n).astype(np.int64)].mean(axis=1)
    one_way = (ours[:, :, None] & ~theirs[:, None]).mean() * 100
    other_way = (~ours[:, :, None] & theirs[:, None]).mean() * 100
    return {
        "net_excess": round(float(by_image.mean()), 4),
        "upper_95": round(float(np.quantile(means, 0.95)), 4),
        "they_broke_we_missed": round(float(one_way), 4),
        "we_broke_they_missed": round(float(other_way), 4),
    }


def missed(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """(model, image) for each image that a seed of theirs broke and none of ours."""
    for model, image in np.argwhere(ours.all(axis=1) & ~theirs.all(axis=1)):
        yield int(model), int(image)


def attack_ours(model: Classifier, sample: Sample, threat: ThreatModel, seed: int, arguments: Any) -> dict[str, Any]:
    """Our parts in sequence on the survivors."""
    twin, draws = Twin(model), Draws(derive(seed, "ours"))
    config = Own.Config(steps=arguments.steps, queries=arguments.queries)
    found = parts(config, model.spec.classes, tuple(model.spec.shape))

    def attacked(name: str, positions: NDArray[np.int64], piece: int) -> torch.Tensor:
        return found[name](twin, sample.batch(positions), threat, draws.fold(name))

    return _sequence(list(found), attacked, model, sample)


def attack_theirs(model: Classifier, sample: Sample, threat: ThreatModel, seed: int, arguments: Any) -> dict[str, Any]:
    """The package's parts in sequence on the survivors, as the judge runs them."""
    autoattack.ITERATIONS, autoattack.QUERIES = arguments.steps, arguments.queries
    suite = autoattack.suite("standard", threat, model.spec.classes, tuple(model.spec.shape))
    package = autoattack.AutoAttack(Twin(model).model, threat, model.spec.classes, derive(seed, "theirs"))

    def attacked(name: str, positions: NDArray[np.int64], piece: int) -> torch.Tensor:
        batch = sample.batch(positions)
        return package.run(name, batch.x, batch.y, piece)[0]

    return _sequence(list(suite.parts), attacked, model, sample)


def _sequence(
    names: list[str], attacked: Callable[..., torch.Tensor], model: Classifier, sample: Sample
) -> dict[str, Any]:
    """Verdicts come from the model itself, whatever was attacked. seconds: CPU time of each part."""
    target, robust = TorchTarget(model), np.zeros(len(sample), dtype=bool)
    robust[:] = ~is_wrong(target.logits(sample.x), sample.y).numpy()
    clean, left, seconds = float(robust.mean()), {}, {}
    for name in names:
        begun = time.process_time()
        standing = np.flatnonzero(robust)
        for piece, begin in enumerate(range(0, len(standing), CHUNK)):
            positions = standing[begin : begin + CHUNK]
            logits = target.logits(attacked(name, positions, piece))
            robust[positions] = ~is_wrong(logits, sample.batch(positions).y).numpy()
        seconds[name], left[name] = round(time.process_time() - begun, 2), int(robust.sum())
    return {"clean": clean, "left": left, "seconds": seconds, "robust": robust.tolist()}


def prepared(folder: Path, params: Params) -> Prepared:
    """The recipe's data, made once."""
    if not (folder / "prepared" / "manifest.json").is_file():
        data.materialise(params.data.source, folder / "raw")
        data.prepare(folder / "raw", folder / "prepared", params.data)
    return Prepared.open(folder / "prepared")


def trained(name: str, folder: Path, found: Prepared, params: Params, arguments: Any) -> Classifier:
    """One of MODELS, trained once."""
    size, objective, teacher = MODELS[name]
    seed, plan = derive(params.seed, name), params.student.training.model_copy(update={"epochs": arguments.epochs})

    def job() -> training.Job:
        taught = None if teacher is None else Teacher(trained(teacher, folder, found, params, arguments))
        return training.Job(
            models.build(small(found, size), seed, name), objectives.build(objective, name),
            found.split("train"), found.split("val"), threat_of(found, params), plan, seed, taught,
        )  # fmt: skip

    return train(folder / "models" / name, job, Compute("cpu", arguments.threads))


def small(found: Prepared, size: str) -> ModelSpec:
    """A small CNN for these data."""
    made = found.manifest
    config = {"name": "small_cnn", "size": size}
    return ModelSpec(config, made.shape, len(made.classes), made.low, made.high, made.mean, made.std)


def train(home: Path, job: Callable[[], training.Job], compute: Compute) -> Classifier:
    """What comes of `job`, kept in `home` (FOLDER/models/NAME) and trained once."""
    folder, name = home.parents[1], home.name
    if not (home / "model.json").is_file():
        scratch, journal = folder / "scratch" / name, Journal(folder / "journal.jsonl", name)
        tools = SimpleNamespace(compute=compute, journal=journal, scratch=scratch, debug=False)
        result = training.fit(job(), tools)
        home.mkdir(parents=True, exist_ok=True)
        weights.save(result.best, home)
        training.forget(scratch)
    return weights.load(home).requires_grad_(False)


def threat_of(found: Prepared, params: Params) -> ThreatModel:
    return params.threat.model(found.manifest.low, found.manifest.high)


def run(arguments: Any) -> dict[str, Any]:
    """All parts that are not there yet, then the comparison."""
    folder: Path = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    names = ("data", "n", "norm", "eps", "steps", "queries", "epochs")
    same_settings(folder / "settings.json", {name: getattr(arguments, name) for name in names})
    apply(Compute("cpu", arguments.threads))
    params = recipes.load(arguments.data).params
    changes = {key: value for key in ("norm", "eps") if (value := getattr(arguments, key)) is not None}
    found = prepared(folder, params)
    threat = params.model_copy(update={"threat": params.threat.model_copy(update=changes)})
    sample = draw(found.split("test"), arguments.n, params.seed)
    results: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for name in arguments.models:
        model = trained(name, folder, found, params, arguments)
        for side, attack in zip(SIDES, (attack_ours, attack_theirs), strict=True):
            for seed in range(arguments.seeds):
                path = folder / f"{name}-{side}-{seed}.json"
                if not path.is_file():
                    made = attack(model, sample, threat_of(found, threat), seed, arguments)
                    write_json(path, {"model": name, "side": side, "seed": seed, **made})
                results[side].append(json.loads(path.read_text(encoding="utf-8")))
                clean, left, seconds = (results[side][-1][key] for key in ("clean", "left", "seconds"))
                print(f"{name:8} {side:6} seed {seed}  clean {clean:.4f}  left {left}  CPU s {seconds}", flush=True)
    return compare(results, arguments, sample.ids.tolist())


def compare(results: dict[str, list[dict[str, Any]]], arguments: Any, ids: list[int]) -> dict[str, Any]:
    shape = (len(arguments.models), arguments.seeds, len(ids))
    ours, theirs = (np.array([part["robust"] for part in results[side]]).reshape(shape) for side in SIDES)
    listed = [{"model": arguments.models[m], "position": i, "id": ids[i]} for m, i in missed(ours, theirs)]
    reverse = [{"model": arguments.models[m], "position": i, "id": ids[i]} for m, i in missed(theirs, ours)]
    robust = {
        side: {name: np.round(verdicts[m].mean(axis=1) * 100, 3).tolist() for m, name in enumerate(arguments.models)}
        for side, verdicts in zip(SIDES, (ours, theirs), strict=True)
    }
    seconds = {side: round(sum(sum(part["seconds"].values()) for part in results[side]), 1) for side in SIDES}
    return {
        "images": len(ids), "models": arguments.models, "seeds": arguments.seeds, "robust": robust,
        **net_excess(ours, theirs), "cpu_seconds": seconds, "missed": listed, "missed_by_them": reverse,
    }  # fmt: skip


def same_settings(path: Path, settings: dict[str, Any]) -> None:
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != settings:
        sys.exit(f"{path} is of a run with other settings: give another --out")
    write_json(path, settings)


def arguments_of(given: list[str] | None = None) -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", default="digits", choices=["digits", "fashion_mnist"], help="recipe whose data and threat are used"
    )
    parser.add_argument(
        "--models", nargs="+", default=list(MODELS), choices=list(MODELS), help="which ones are trained and attacked"
    )
    parser.add_argument("--seeds", type=int, default=3, help="of the attacks, on each side")
    parser.add_argument("--n", type=int, default=360, help="test images, the same for all")
    parser.add_argument("--norm", default=None, choices=["linf", "l2"], help="of the attack; default: the recipe's")
    parser.add_argument("--eps", default=None, type=float, help="of the attack; default: the recipe's")
    parser.add_argument("--steps", type=int, default=100, help="of APGD and FAB, on both sides")
    parser.add_argument("--queries", type=int, default=5000, help="of Square, on both sides")
    parser.add_argument("--epochs", type=int, default=40, help="of each training")
    parser.add_argument("--threads", type=int, default=1, help="of this process")
    parser.add_argument("--out", type=Path, required=True, help="folder of parts, models and result")
    return parser.parse_args(given)


def main() -> None:
    arguments = arguments_of()
    try:
        result = run(arguments)
    except RobustDistillError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    write_json(arguments.out / "agreement.json", result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
