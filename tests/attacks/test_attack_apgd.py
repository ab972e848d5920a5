"""APGD: its walk, its schedule, and what more steps buy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustdistill import attacks
from robustdistill.attacks import Batch, TorchTarget
from robustdistill.attacks.apgd import checkpoints
from robustdistill.attacks.goals import cross_entropy
from robustdistill.rng import Draws
from robustdistill.threat import ThreatModel

DRAWS = Draws(5)


def test_more_steps_of_apgd_climb_higher(small_net: nn.Module, images: Batch) -> None:
    """Its schedule depends on the number of steps, so this holds on the whole, not for each example."""
    threat, y = ThreatModel("linf", 0.02), small_net(images.x).argmax(1)
    batch = images._replace(y=y)

    def loss(steps: int) -> float:
        attack = attacks.build({"name": "apgd", "steps": steps, "start": "none"})
        x_adv = attack(TorchTarget(small_net), batch, threat, DRAWS)
        still = small_net(x_adv).argmax(1) == y
        assert still.any()
        return float(cross_entropy(small_net(x_adv), batch)[still].mean().detach())

    few, some, many = loss(2), loss(10), loss(60)
    assert few < some <= many + 1e-4


def test_apgd_halves_its_step_where_a_fixed_one_would_jump_to_and_fro() -> None:
    """The peak lies 0.0137 from x. Steps begin at 2 eps = 1; without halving they would stay that far off."""

    class Peak(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([torch.full_like(x, 5.0), -((x - 0.5137) ** 2)], dim=1)

    batch = Batch(torch.full((1, 1), 0.5), torch.tensor([0]), torch.tensor([0]))
    attack = attacks.build({"name": "apgd", "steps": 100, "goal": "margin"})
    x_adv = attack(TorchTarget(Peak()), batch, ThreatModel("linf", 0.5), DRAWS)
    assert float(x_adv) == pytest.approx(0.5137, abs=1e-3)


@pytest.mark.parametrize("steps", [7, 30, 100])
def test_apgd_walks_as_algorithm_1_of_the_paper_says(steps: int) -> None:
    """Written anew in plain numbers, for a model of three inputs that never errs."""
    eps, a, b = 0.3, np.array([9.0, 17.0, 5.0]), np.array([0.3, 1.1, 2.0])

    class Waves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            height = torch.sin(x * torch.from_numpy(a) + torch.from_numpy(b)).sum(1, keepdim=True)
            return torch.cat([torch.full_like(height, 100.0), height], dim=1)

    def f(x: np.ndarray) -> float:
        return float(np.sin(a * x + b).sum() - 100.0)

    def project(point: np.ndarray) -> np.ndarray:
        return np.clip(np.clip(point, x - eps, x + eps), 0.0, 1.0)

    def ascend(point: np.ndarray) -> np.ndarray:
        return project(point + step * np.sign(a * np.cos(a * point + b)))

    rng = np.random.default_rng(0)
    marks = [0, *checkpoints(steps)]
    for x, start in zip(rng.uniform(0.1, 0.9, (12, 3)), rng.uniform(-eps, eps, (12, 3)), strict=True):
        step, points = 2 * eps, [project(x + start)]
        points.append(ascend(points[0]))
        values = [f(point) for point in points]
        best, cut = [values[0], max(values)], [False]
        top = points[int(np.argmax(values))]
        for k in range(1, steps):
            if k in marks:
                last = marks[marks.index(k) - 1]
                rises = sum(values[i + 1] > values[i] for i in range(last, k))
                cut.append(rises < 0.75 * (k - last) or (not cut[-1] and best[k] == best[last]))
                if cut[-1]:
                    step, points[k] = step / 2, top
            z = ascend(points[k])
            points.append(project(points[k] + 0.75 * (z - points[k]) + 0.25 * (points[k] - points[k - 1])))
            values.append(f(points[-1]))
            if values[-1] > best[-1]:
                top = points[-1]
            best.append(max(best[-1], values[-1]))
        batch = Batch(torch.from_numpy(x)[None], torch.tensor([0]), torch.tensor([0]))
        attack = attacks.build({"name": "apgd", "steps": steps, "goal": "margin"})
        first = torch.from_numpy(project(x + start))[None]
        found = attack(TorchTarget(Waves()), batch, ThreatModel("linf", eps), DRAWS, start=first)
        assert found[0].tolist() == pytest.approx(top.tolist(), abs=1e-9)


def test_checkpoints_by_hand() -> None:
    """Gaps of 0.22, 0.19, 0.16, 0.13, 0.10, 0.07, then 0.06."""
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1) == [] and checkpoints(3) == [1, 2]
