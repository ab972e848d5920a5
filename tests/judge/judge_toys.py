"""Toy models with known robustness, and data and exports for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from robustdistill import recipes
from robustdistill.config import Judge, Params, Strict, Threat
from robustdistill.data.files import write_npy
from robustdistill.data.prepared import Manifest
from robustdistill.engine.devices import Compute
from robustdistill.inputs.pixels import to_unit
from robustdistill.journal import Journal
from robustdistill.judge import judge
from robustdistill.models import Classifier, ModelSpec, weights
from robustdistill.release import onnx
from robustdistill.stages.tools import Tools

EDGE = 6


class Toy(nn.Module):
    """A linear model, plain or with its gradient hidden from attacks."""

    name = "toy"

    class Config(Strict):
        mask: Literal["none", "saturated", "steps", "nan"] = "none"

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.mask = config.mask
        self.linear = nn.Linear(int(np.prod(shape)), classes)

    def forward(self, x: Tensor) -> Tensor:
        if self.mask == "steps":
            x = torch.round(x * 64) / 64
        logits: Tensor = self.linear(x.flatten(1))
        if self.mask == "saturated":
            return logits * 1e6
        if self.mask == "nan":  # at every input but 0, so that it can be exported
            return logits + torch.sqrt(-x.flatten(1).sum(1, keepdim=True))
        return logits


@dataclass
class Case:
    """A model, its data, and the judge's settings. analytic [n]: truly robust, by ids in ascending order."""

    root: Path
    params: Params
    classes: int
    model: Classifier
    analytic: np.ndarray
    margins: np.ndarray

    @property
    def prepared(self) -> Path:
        return self.root / "prepared"

    @property
    def export(self) -> Path:
        return self.root / "export"

    def tools(self, scratch: str = "scratch") -> Tools:
        return Tools(Compute("cpu", 1), Journal(self.root / "journal.jsonl", "score@toy"), self.root / scratch)


def write_prepared(folder: Path, x: np.ndarray, y: np.ndarray, classes: int, low: float, high: float) -> None:
    """x uint8 [N, 1, EDGE, EDGE] as all three splits, with different ids."""
    folder.mkdir(parents=True)
    for number, split in enumerate(("train", "val", "test")):
        ids = np.random.default_rng(number).permutation(10**6)[: len(y)].astype(np.int64) * 3 + number
        for part, array in (("x", x), ("y", y), ("id", ids)):
            write_npy(folder / f"{split}_{part}.npy", array)
    counts = np.bincount(y, minlength=classes).tolist()
    names = [f"class {number}" for number in range(classes)]
    Manifest(
        "image", x.shape[1:], names, low, high, (0.0,), (1.0,), dict.fromkeys(("train", "val", "test"), counts), {}, "d"
    ).write(folder)


def write_export(
    model: Classifier, out: Path, classes: int, trained_on: tuple[int, ...] = (), unknown: tuple[str, ...] = ()
) -> None:
    source = out.with_name(f"{out.name}-weights")
    source.mkdir(exist_ok=True)
    weights.save(model, source)
    names, seen = [f"class {number}" for number in range(classes)], np.array(trained_on, dtype=np.int64)
    onnx.export(source, out, names, torch.zeros(2, 1, EDGE, EDGE), seen, unknown)


def params_for(norm: str, eps: float, **judge: Any) -> Params:
    """The digits recipe with another threat and judge."""
    protocol = {
        "examples": 60,
        "attacks": [{"name": "fgsm"}, {"name": "pgd", "steps": 12}],
        "chunk": 25,
        "curve": [0.5, 1.0],
        "curve_examples": 30,
        "autoattack": "standard",
    }
    base = recipes.load("digits").params
    return base.model_copy(update={"threat": Threat(norm=norm, eps=eps), "judge": Judge(**{**protocol, **judge})})  # type: ignore[arg-type]


def spread(values: np.ndarray, share: float) -> float:
    """An eps in the middle of the widest gap near the given quantile, so that rounding decides nothing."""
    ordered = np.sort(values[values > 0])
    near = range(int(len(ordered) * (share - 0.15)), int(len(ordered) * (share + 0.15)))
    widest = max(near, key=lambda i: ordered[i + 1] - ordered[i])
    return float((ordered[widest] + ordered[widest + 1]) / 2)


def make_case(
    root: Path,
    classes: int = 10,
    norm: str = "linf",
    box: tuple[float, float] = (0.0, 1.0),
    mask: str = "none",
    n: int = 60,
    **judge: Any,
) -> Case:
    """A linear model whose distance to the boundary is known for every example: min_k (z_y − z_k) / ‖w_y − w_k‖_q."""
    (low, high), random = box, np.random.default_rng(classes)
    x = random.integers(100, 156, (n, 1, EDGE, EDGE)).astype(np.uint8)  # far from the box: only the ball binds
    spec = ModelSpec({"name": "toy", "mask": mask}, (1, EDGE, EDGE), classes, low, high, (0.0,), (1.0,))
    model = weights.build(spec, 0, "toy").requires_grad_(False)
    unit = to_unit(x, low, high).reshape(n, -1).astype(np.float64)
    w = random.normal(size=(classes, unit.shape[1]))
    w -= w.mean(1, keepdims=True)
    offset = -(w @ unit.mean(0))
    model.net.linear.weight.copy_(torch.from_numpy(w))  # type: ignore[union-attr]
    model.net.linear.bias.copy_(torch.from_numpy(offset))  # type: ignore[union-attr]
    z = unit @ w.T + offset
    y = z.argmax(1)
    y[:: max(2, n // 6)] = (y[:: max(2, n // 6)] + 1) % classes  # some are wrong from the start
    dual = 1 if norm == "linf" else 2
    distance = np.full(n, np.inf)
    for k in range(classes):
        other = y != k
        size = np.linalg.norm(w[y] - w[k], ord=dual, axis=1)
        distance[other] = np.minimum(distance[other], (z[np.arange(n), y] - z[:, k])[other] / size[other])
    eps = spread(distance, 0.5)
    write_prepared(root / "prepared", x, y, classes, low, high)
    write_export(model, root / "export", classes)
    ids = np.load(root / "prepared" / "test_id.npy")
    order = np.argsort(ids)
    params = params_for(norm, eps, **{"examples": max(20, n), **judge})
    return Case(root, params, classes, model, (distance > eps)[order], distance[order])


def judged(case: Case, out: str = "score", adversaries: Path | None = None, scratch: str = "scratch") -> Any:
    """The scorecard of a case."""
    judge(case.export, case.prepared, adversaries, case.root / out, case.params, case.tools(scratch))
    return json.loads((case.root / out / "scorecard.json").read_text())
