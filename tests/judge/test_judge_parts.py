"""The pieces of the judge on their own: sample, figures, AutoAttack's parts, names."""

from __future__ import annotations

import logging
import sys
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support
from torch import nn

from robustdistill import attacks
from robustdistill.attacks.ball import ball
from robustdistill.data.prepared import Split
from robustdistill.errors import BadInput
from robustdistill.judge import metrics
from robustdistill.judge.autoattack import AutoAttack, RandAutoAttack, square_warning, suite
from robustdistill.judge.sample import draw
from robustdistill.judge.trial import kind_of, label
from robustdistill.models import ModelSpec, build
from robustdistill.threat import ThreatModel


def split_of(ids: np.ndarray) -> Split:
    x = (ids % 250).astype(np.uint8).reshape(-1, 1, 1, 1)
    return Split("test", x, ids % 3, ids)


def test_a_sample_depends_on_content_only_and_stays_as_data_grow() -> None:
    ids = np.arange(1, 400, dtype=np.int64) * 7919
    small = draw(split_of(ids), 50, seed=3)
    shuffled = draw(split_of(np.random.default_rng(1).permutation(ids)), 50, seed=3)
    assert small.digest() == shuffled.digest()
    torch.testing.assert_close(small.x, shuffled.x)
    grown = draw(split_of(np.concatenate([ids, np.arange(1, 41, dtype=np.int64) * 104729])), 50, seed=3)
    kept = np.intersect1d(small.ids, grown.ids)
    assert 35 <= len(kept) < 50
    assert small.digest() not in (grown.digest(), draw(split_of(ids), 50, seed=4).digest())
    assert len(draw(split_of(ids), 10**6, seed=3)) == len(ids)
    twice = draw(split_of(np.concatenate([ids, ids[:7]])), 10**6, seed=3)  # an official test set may do that
    assert len(twice) == len(ids) == len(np.unique(twice.ids))


def test_a_sample_leaves_out_what_the_model_was_trained_on() -> None:
    ids = np.arange(1, 400, dtype=np.int64) * 7919
    fresh = draw(split_of(ids), 50, seed=3)
    seen = np.concatenate([fresh.ids[::2], [5]])
    found = draw(split_of(ids), 50, seed=3, trained_on=seen)
    assert len(found) == 50 and found.known == 25
    assert not np.isin(found.ids, seen).any()
    assert np.isin(fresh.ids[1::2], found.ids).all()  # all others stay, so that two models still share them
    with pytest.raises(BadInput, match="every example"):
        draw(split_of(ids), 50, seed=3, trained_on=ids)


def test_macro_figures_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    labels, predictions = random.integers(0, 5, 200), random.integers(0, 4, 200)
    wanted = precision_recall_fscore_support(labels, predictions, average="macro", zero_division=0)[:3]
    assert list(metrics.macro(labels, predictions, 7).values()) == pytest.approx(list(wanted))


def test_calibration_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    found = metrics.calibration(np.array([0, 1, 1]), probabilities)
    assert found["ece"] == pytest.approx((abs(1 - 1.8) + abs(1 - 0.6)) / 3, abs=1e-6)
    assert found["brier"] == pytest.approx((0.02 + 1.62 + 0.32) / 3, abs=1e-6)


@pytest.mark.parametrize(
    ("classes", "norm", "shape", "version", "name", "second", "square"),
    [
        (10, "linf", (3, 32, 32), "standard", "autoattack", "apgd-t", True),
        (4, "l2", (1, 5, 5), "standard", "autoattack", "apgd-t", True),
        (4, "l2", (1, 4, 9), "standard", "margin_apgd", "apgd-t", False),
        (10, "linf", (12,), "standard", "margin_apgd", "apgd-t", False),
        (3, "linf", (1, 8, 8), "standard", "margin_apgd", "apgd-dlr", True),
        (2, "linf", (1, 8, 8), "standard", "margin_apgd", "apgd-margin", True),
        (10, "linf", (1, 8, 8), "rand", "autoattack_rand", "apgd-dlr", False),
        (2, "linf", (1, 8, 8), "rand", "margin_apgd", "apgd-margin", True),
    ],
)
def test_only_the_official_parts_are_called_autoattack(
    classes: int, norm: Any, shape: tuple[int, ...], version: Any, name: str, second: str, square: bool
) -> None:
    found = suite(version, ThreatModel(norm, 0.1), classes, shape)
    assert (found.name, found.parts[1], "square" in found.parts) == (name, second, square)


class Affine(nn.Module):
    """Logits of x in [low, high], as a function of the unit box the same for each box."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.span = low, high - low
        weight = torch.linspace(-1, 1, 36 * 4).view(4, 36).sin().roll(7)
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((x.flatten(1) - self.low) / self.span - 0.5) @ self.weight.T


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("part", ["apgd-ce", "apgd-dlr", "apgd-margin", "apgd-t", "fab-t", "square"])
def test_parts_attack_any_box_alike_and_stay_inside(part: str, norm: Any) -> None:
    unit = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    y = Affine(0, 1)(unit).argmax(1)
    eps = {"linf": 0.05, "l2": 0.25}[norm]
    broken = []
    for low, high in ((0.0, 1.0), (-4.0, 4.0)):
        threat, x = ThreatModel(norm, eps * (high - low), low, high), low + unit * (high - low)
        model = Affine(low, high)
        x_adv, _ = AutoAttack(model, threat, 4, 5).run(part, x, y, 0)
        assert bool(ball(threat).contains(x_adv, x).all())
        broken.append(model(x_adv).argmax(1) != y)
    assert broken[0].any() and torch.equal(*broken)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_parts_take_colour_images_through_convolutions(norm: Any) -> None:
    """Their gradients come back channels last, which the package's view() does not take."""
    spec = ModelSpec({"name": "small_cnn", "size": "nano"}, (3, 8, 8), 4, 0.0, 1.0, (0.5,) * 3, (0.2,) * 3)
    model = build(spec, 0, "test").eval().requires_grad_(False)
    x, threat = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(2)), ThreatModel(norm, 0.2)
    y = model(x).argmax(1)
    for part in ("apgd-ce", "apgd-t", "fab-t", "square"):
        x_adv, _ = AutoAttack(model, threat, 4, 5).run(part, x, y, 0)
        assert bool(ball(threat).contains(x_adv, x).all())


def test_autoattack_leaves_no_trace_and_repeats_itself() -> None:
    threat, x = ThreatModel("linf", 0.05), torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    model = Affine(0, 1)
    y = model(x).argmax(1)
    before, tracer, loggers = torch.get_rng_state(), sys.gettrace(), set(logging.Logger.manager.loggerDict)
    one, other = (AutoAttack(model, threat, 4, 5).run("apgd-ce", x, y, 0)[0] for _ in range(2))
    AutoAttack(model, threat, 4, 5).warnings(x, y, rand=False)
    assert torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state()) and sys.gettrace() is tracer
    assert set(logging.Logger.manager.loggerDict) == loggers


def test_its_warnings_are_kept() -> None:
    threat, x = ThreatModel("linf", 0.05), torch.rand(4, 1, 6, 6)
    probabilities = nn.Sequential(Affine(0, 1), nn.Softmax(1))
    y = probabilities(x).argmax(1)
    assert "probability" in AutoAttack(probabilities, threat, 4, 5).warnings(x, y, rand=False)[0]
    noisy = nn.Sequential(Affine(0, 1), nn.Dropout(0.9)).train()
    assert "randomized" in AutoAttack(noisy, threat, 4, 5).warnings(x, y, rand=False)[0]
    assert RandAutoAttack(noisy, threat, 4, 5).warnings(x, y, rand=True) == []
    flat = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Threshold(1e9, 0.0))
    heard = AutoAttack(flat, threat, 4, 5).run("apgd-dlr", x, torch.zeros(4, dtype=torch.int64), 0)[1]
    assert "zero gradient" in heard[0]
    assert square_warning(0.5, 0.4) and not square_warning(0.5, 0.4995)


@pytest.mark.parametrize(
    ("spec", "name", "kind"),
    [
        ({"name": "fgsm"}, "fgsm", "single"),
        ({"name": "pgd", "steps": 20}, "pgd-20", "iterative"),
        ({"name": "pgd", "steps": 40, "goal": "margin", "restarts": 5}, "pgd-40x5-margin", "iterative"),
        ({"name": "pgd", "steps": 1}, "pgd-1", "single"),
    ],
)
def test_attacks_have_telling_and_unique_names(spec: dict[str, Any], name: str, kind: str) -> None:
    attack = attacks.build(spec)
    assert (label(spec, attack, []), kind_of(attack)) == (name, kind)
    assert label(spec, attack, [name]) == f"{name}.2" and label(spec, attack, [name, f"{name}.2"]) == f"{name}.3"
