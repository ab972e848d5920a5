"""The script that judges published weights, on made-up ones: names, refusals, verdicts, and a run on two images."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from robustdistill.data.prepared import Split
from robustdistill.errors import BadInput
from robustdistill.rng import Draws

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "anchors.py"
Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def anchors() -> ModuleType:
    spec = importlib.util.spec_from_file_location("anchors", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = sys.modules["anchors"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Made:
    """Weights under published names, drawn as they are first asked for, by the forward passes below."""

    def __init__(self) -> None:
        self.weights: Weights = {}

    def _get(self, name: str, *shape: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
        if name not in self.weights:
            drawn = Draws(3).normal(torch.empty(1, *shape), torch.zeros(1, dtype=torch.int64), name)[0]
            self.weights[name] = shift + scale * drawn
        return self.weights[name]

    def conv(self, x: Tensor, name: str, channels: int, stride: int = 1, size: int = 3) -> Tensor:
        fan = x.shape[1] * size**2
        weight = self._get(f"{name}.weight", channels, x.shape[1], size, size, scale=(2 / fan) ** 0.5)
        return F.conv2d(x, weight, stride=stride, padding=size // 2)

    def norm(self, x: Tensor, name: str) -> Tensor:
        count = x.shape[1]
        self.weights.setdefault(f"{name}.num_batches_tracked", torch.tensor(7))
        mean, bias = (self._get(f"{name}.{part}", count, scale=0.1) for part in ("running_mean", "bias"))
        variance, weight = (
            self._get(f"{name}.{part}", count, scale=0.1, shift=1.0).abs() for part in ("running_var", "weight")
        )
        self.weights |= {f"{name}.running_var": variance, f"{name}.weight": weight}
        return F.batch_norm(x, mean, variance, weight, bias)

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._get(f"{name}.weight", 10, x.shape[1], scale=0.3), self._get(f"{name}.bias", 10))


def resnet18(made: Made, x: Tensor) -> Tensor:
    """He et al. 2015 with a 3 × 3 stem, under the names of the CIFAR code that RobustBench uses."""
    x = made.norm(made.conv(x, "conv1", 64), "bn1").relu()
    for stage, channels in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = made.norm(made.conv(x, f"{at}.conv1", channels, stride), f"{at}.bn1").relu()
            y = made.norm(made.conv(y, f"{at}.conv2", channels), f"{at}.bn2")
            if stride > 1:
                x = made.norm(made.conv(x, f"{at}.shortcut.0", channels, stride, 1), f"{at}.shortcut.1")
            x = (x + y).relu()
    return made.linear(x.mean((2, 3)), "linear")


def wide(made: Made, x: Tensor, depth: int = 10, width: int = 1) -> Tensor:
    """Zagoruyko and Komodakis 2016, under the names of TRADES' code. A first block projects its activated input."""
    x = made.conv(x, "conv1", 16)
    for stage, channels in enumerate((16 * width, 32 * width, 64 * width), start=1):
        for block in range((depth - 4) // 6):
            at, stride = f"block{stage}.layer.{block}", 2 if stage > 1 and block == 0 else 1
            active = made.norm(x, f"{at}.bn1").relu()
            y = made.conv(active, f"{at}.conv1", channels, stride)
            y = made.conv(made.norm(y, f"{at}.bn2").relu(), f"{at}.conv2", channels)
            x = y + (made.conv(active, f"{at}.convShortcut", channels, stride, 1) if x.shape[1] != channels else x)
    return made.linear(made.norm(x, "bn1").relu().mean((2, 3)), "fc")


def _x(n: int = 4) -> Tensor:
    return Draws(1).uniform(torch.empty(n, 3, 32, 32), torch.arange(n), "x")


@pytest.fixture
def tiny(anchors: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """An anchor that is quick: WRN-16-2, so that a stage has two blocks and a first one that projects."""
    monkeypatch.setitem(anchors.ANCHORS, "Tiny", anchors.Anchor(anchors.wide(16, 2), 50.0, 25.0, mean=0.5, std=0.5))


def test_published_names_end_up_where_they_belong(anchors: ModuleType, tmp_path: Path, tiny: None) -> None:
    """Equal logits to a forward pass that was written from the names."""
    for name, wrapper, forward in (
        ("Sehwag2021Proxy_R18", "", lambda made, x: resnet18(made, x)),
        ("Tiny", "module.", lambda made, x: wide(made, 2 * x - 1, 16, 2)),
    ):
        made = Made()
        expected = forward(made, _x())
        path = tmp_path / f"{name}.safetensors"
        save_file({wrapper + key: value.contiguous() for key, value in made.weights.items()}, path)
        model = anchors.load(name, path)
        with torch.no_grad():
            assert torch.allclose(model(_x()), expected, atol=1e-4, rtol=1e-4) and float(expected.std()) > 0.1
        assert not model.training


def test_unused_and_missing_parts_of_a_file(anchors: ModuleType, tmp_path: Path, tiny: None) -> None:
    made = Made()
    expected = wide(made, 2 * _x() - 1, 16, 2)
    path = tmp_path / "weights.safetensors"
    kept = {key: value for key, value in made.weights.items() if not key.endswith("num_batches_tracked")}
    save_file(kept | {"sub_block1.layer.0.conv1.weight": torch.zeros(2)}, path)
    assert torch.allclose(anchors.load("Tiny", path)(_x()), expected, atol=1e-4, rtol=1e-4)
    for change, words in (
        ({"fc.bias": None}, "head.bias is missing"),
        ({"extra.weight": torch.zeros(1)}, "extra.weight is unknown"),
        ({"fc.bias": torch.zeros(9)}, "head.bias has shape"),
    ):
        save_file({key: value for key, value in (kept | change).items() if value is not None}, path)
        with pytest.raises(BadInput, match=words):
            anchors.load("Tiny", path)


def test_a_pickle_is_refused(anchors: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "weights.pt")
    options = ["--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert anchors.main(["Carmon2019Unlabeled", str(tmp_path / "weights.pt"), *options]) == 2
    assert "safetensors" in capsys.readouterr().err
    with pytest.raises(BadInput, match="CIFAR-10 is not there"):
        anchors.images(tmp_path)


def _card(n: int, clean: float, robust: float, half: float = 0.01) -> dict[str, Any]:
    part = lambda value: {"accuracy": value, "lower": value - half, "upper": value + half}  # noqa: E731
    return {"sample": {"n": n}, "clean": part(clean), "robust": part(robust)}


def test_all_images_decide_to_a_tenth_of_a_point(anchors: ModuleType) -> None:
    """Carmon2019Unlabeled is published with 89.69 and 59.53."""
    for clean, robust, holds in (
        (0.8969, 0.5953, True),
        (0.8979, 0.5943, True),
        (0.8969, 0.5942, False),
        (0.8980, 0.5953, False),
    ):
        found = anchors.compare("Carmon2019Unlabeled", _card(10_000, clean, robust))
        assert (found["holds"], found["anchor"]) == (holds, True)
    assert found["clean"] == {"published": 89.69, "measured": 89.8, "off": 0.11, "interval": [88.8, 90.8]}


def test_fewer_images_are_no_anchor_and_refute_only_by_their_interval(anchors: ModuleType) -> None:
    found = anchors.compare("Carmon2019Unlabeled", _card(1000, 0.90, 0.60))
    assert found["holds"] and not found["anchor"]
    assert not anchors.compare("Carmon2019Unlabeled", _card(1000, 0.90, 0.62))["holds"]


def test_two_images_from_weights_to_verdict(
    anchors: ModuleType, tmp_path: Path, tiny: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from robustdistill.judge import autoattack

    monkeypatch.setattr(autoattack, "ITERATIONS", 3)
    monkeypatch.setattr(autoattack, "QUERIES", 20)
    monkeypatch.setenv("ROBUSTDISTILL_THREADS", "1")
    made, x = Made(), (_x(2) * 255).round().to(torch.uint8)
    y = wide(made, 2 * (x / 255) - 1, 16, 2).argmax(dim=1)
    split = Split("test", x.numpy(), y.numpy(), np.arange(2), 0.0, 1.0)
    monkeypatch.setattr(anchors, "images", lambda root: split)
    save_file(made.weights, tmp_path / "weights.safetensors")
    options = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--n", "2"]
    code = anchors.main(["Tiny", str(tmp_path / "weights.safetensors"), *options])
    printed = json.loads(capsys.readouterr().out)
    assert printed["clean"]["measured"] == 100.0 and printed["images"] == 2 and not printed["anchor"]
    assert code == (0 if printed["holds"] else 1)
    stored = json.loads((tmp_path / "out" / "Tiny.json").read_text(encoding="utf-8"))
    assert [attack["name"] for attack in stored["card"]["attacks"]] == ["autoattack"]
    assert stored["card"]["attacks"][0]["parts"] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert stored["card"]["threat"]["eps"] == pytest.approx(8 / 255)


def test_figures_are_such_as_can_be(anchors: ModuleType) -> None:
    for anchor in anchors.ANCHORS.values():
        assert 0 < anchor.robust < anchor.clean < 100
