"""adversaries: adversarial examples of the initial model, stored as 8-bit images, validated as they will be read.

The set is a product: train examples to train on, test examples to judge by, never mixed. What is recorded about an
example (`broke`) is measured on the stored bytes, so rounding cannot make a claim untrue.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from robustdistill import attacks
from robustdistill.attacks import Attack, Batch, TorchTarget
from robustdistill.attacks.ball import ball
from robustdistill.attacks.goals import is_wrong
from robustdistill.config import Params
from robustdistill.data.files import write_json, write_npy
from robustdistill.data.prepared import Prepared, Split, SplitName
from robustdistill.errors import BadInput, RobustDistillError
from robustdistill.inputs.pixels import from_unit, to_unit
from robustdistill.models import weights
from robustdistill.rng import Draws
from robustdistill.threat import ThreatModel

if TYPE_CHECKING:
    from robustdistill.stages.tools import Tools

BATCH = 256
SPLITS: tuple[SplitName, ...] = ("train", "test")


class Made(NamedTuple):
    """x_adv uint8 [N, *shape]. broke: the model errs on x_adv. right: it does not on x. Both bool [N]."""

    x_adv: NDArray[np.uint8]
    broke: NDArray[np.bool_]
    right: NDArray[np.bool_]


def run(params: Params, reads: Mapping[str, Path], out: Path, tools: Tools) -> None:
    """Reads prepare and initial; writes <split>_{x_adv,y,id,broke}.npy and manifest.json. Raises BadInput."""
    data = Prepared.open(reads["prepare"])
    model = weights.load(reads["initial"]).to(device=tools.compute.device).eval()
    threat = params.threat.model(data.manifest.low, data.manifest.high)
    attack = attacks.build(params.adversaries.attack, "adversaries.attack")
    splits = {name: data.split(name) for name in SPLITS}
    _check_disjoint(splits)
    draws = Draws(params.seed).fold("adversaries")
    made: dict[str, Made] = {}
    done, total = 0, sum(len(split) for split in splits.values())
    for name, split in splits.items():
        parts = []
        for begin in range(0, len(split), BATCH):
            positions = np.arange(begin, min(begin + BATCH, len(split)))
            parts.append(_attack(attack, TorchTarget(model), split, positions, threat, draws, tools.compute.device))
            done += len(positions)
            tools.journal.progress(done, total, "images")
        made[name] = Made(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        _write(out, name, split, made[name])
        validate(out, split, threat)
    sha256 = weights.digest(reads["initial"] / "model.safetensors")
    write_json(out / "manifest.json", _manifest(params, threat, sha256, data, splits, made))


def _attack(
    attack: Attack,
    target: TorchTarget,
    split: Split,
    positions: NDArray[np.int64],
    threat: ThreatModel,
    draws: Draws,
    device: str,
) -> Made:
    x, y, index = split.take(positions, device)
    found = attack(target, Batch(x, y, index), threat, draws)
    pixels = from_unit(ball(threat).snap(x, found).cpu().numpy(), threat.low, threat.high)
    stored = torch.from_numpy(to_unit(pixels, threat.low, threat.high)).to(device)
    broke, wrong = (is_wrong(target.logits(point), y).cpu().numpy() for point in (stored, x))
    return Made(pixels, broke, ~wrong)


def _write(out: Path, name: SplitName, split: Split, made: Made) -> None:
    arrays: dict[str, NDArray[Any]] = {
        "x_adv": made.x_adv,
        "y": np.asarray(split.y),
        "id": np.asarray(split.id),
        "broke": made.broke,
    }
    for part, array in arrays.items():
        write_npy(out / f"{name}_{part}.npy", array)


def validate(folder: Path, split: Split, threat: ThreatModel) -> None:
    """Checks a stored split as it will be read. Raises RobustDistillError if an example is not what the set promises:
    uint8, inside the ball and the box, with the label and the content id of its original."""
    x_adv, y, ids = (np.load(folder / f"{split.name}_{part}.npy", mmap_mode="r") for part in ("x_adv", "y", "id"))
    if x_adv.dtype != np.uint8 or x_adv.shape != split.x.shape:
        raise RobustDistillError("stored adversarial examples have another shape than their originals")
    if not (np.array_equal(y, split.y) and np.array_equal(ids, split.id)):
        raise RobustDistillError("stored adversarial examples have other labels or ids than their originals")
    geometry = ball(threat)
    for begin in range(0, len(split), BATCH):
        at = slice(begin, begin + BATCH)
        found, x = (torch.from_numpy(to_unit(np.asarray(a[at]), threat.low, threat.high)) for a in (x_adv, split.x))
        outside = int((~geometry.contains(found, x)).sum())
        if outside:
            raise RobustDistillError(f"{outside} stored adversarial examples lie outside the threat model")


def _check_disjoint(splits: Mapping[SplitName, Split]) -> None:
    shared = np.intersect1d(splits["train"].id, splits["test"].id)
    if len(shared):
        raise BadInput(
            f"{len(shared)} examples are both in train and in test", fix="prepare the data again: robustdistill run"
        )


def _manifest(
    params: Params,
    threat: ThreatModel,
    sha256: str,
    data: Prepared,
    splits: Mapping[SplitName, Split],
    made: Mapping[str, Made],
) -> dict[str, Any]:
    content = hashlib.sha256()
    for name, split in splits.items():
        for array in (made[name].x_adv, np.asarray(split.y), np.asarray(split.id)):
            content.update(np.ascontiguousarray(array).tobytes())
    classes = data.manifest.classes
    return {
        "format": 1,
        "source_sha256": sha256,
        "data_digest": data.manifest.data_digest,
        "threat": threat.to_json(),
        "attack": params.adversaries.attack,
        "seed": params.seed,
        "counts": {name: len(split) for name, split in splits.items()},
        "success": {name: _success(made[name], np.asarray(split.y), classes) for name, split in splits.items()},
        "snapped": True,
        "digest": content.hexdigest(),
    }


def _success(made: Made, y: NDArray[np.int64], classes: list[str]) -> dict[str, float]:
    """Per class: share broken of those that the model classifies rightly without an attack; 0 if there are none."""
    shares = {}
    for number, name in enumerate(classes):
        able = made.right & (y == number)
        shares[name] = round(float(made.broke[able].mean()), 6) if able.any() else 0.0
    return shares
