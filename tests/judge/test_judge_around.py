"""What stands beside the robust accuracy: each figure against what is known of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from judge_toys import Case, judged

from robustdistill.attacks import Batch
from robustdistill.judge.around import corruptions, threats
from robustdistill.judge.around.corruptions import KINDS, Kind, corrupt
from robustdistill.rng import Draws, seeded
from robustdistill.threat import ThreatModel


def images(channels: int = 1, height: int = 8, width: int = 8, n: int = 6) -> Batch:
    with seeded("test", "images"):
        x = torch.rand(n, channels, height, width) * 2 - 1
    return Batch(x, torch.zeros(n, dtype=torch.int64), torch.arange(n) + 100)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 14)], ids=["gray", "rgb"])
def test_a_corruption_grows_stays_in_the_box_and_is_drawn_by_example(kind: Kind, shape: tuple[int, int, int]) -> None:
    batch, draws = images(*shape), Draws(3)
    found = [corrupt(kind, level, batch, draws, -1.0, 1.0) for level in range(1, 6)]
    away = [float((x - batch.x).abs().mean()) for x in found]
    assert all(x.shape == batch.x.shape and x.min() >= -1 and x.max() <= 1 for x in found)
    assert 0 < away[0] < away[4]
    assert away == sorted(away) or kind is corruptions.pixelate  # uneven cells: 7 of 8 may lose more than 6 of 8
    one = Batch(batch.x[2:3], batch.y[2:3], batch.index[2:3])
    torch.testing.assert_close(corrupt(kind, 3, one, draws, -1.0, 1.0), found[2][2:3])


def test_corruptions_do_what_they_are_called() -> None:
    wide = Batch(torch.full((4, 1, 64, 64), 0.5), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    noisy = corrupt(corruptions.gaussian_noise, 2, wide, Draws(0), 0.0, 1.0)
    assert float(noisy.std()) == pytest.approx(0.08, rel=0.03)
    shot = corrupt(corruptions.shot_noise, 2, wide, Draws(0), 0.0, 1.0)
    assert float(shot.std()) == pytest.approx(math.sqrt(0.5 / 25), rel=0.03)
    hit = corrupt(corruptions.impulse_noise, 5, wide, Draws(0), 0.0, 1.0)
    assert float((hit != 0.5).float().mean()) == pytest.approx(0.2, rel=0.05)
    for kind in (corruptions.blur, corruptions.pixelate, corruptions.shift, corruptions.contrast):
        torch.testing.assert_close(corrupt(kind, 5, wide, Draws(0), 0.0, 1.0), wide.x)  # nothing to see, nothing lost
    torch.testing.assert_close(corrupt(corruptions.brightness, 3, wide, Draws(0), 0.0, 1.0), wide.x + 0.3)


def test_the_other_norm_gets_an_eps_that_compares() -> None:
    first, second, other = threats.others(ThreatModel("linf", 0.1), 300)
    assert (first.eps, second.eps, other.norm) == pytest.approx((0.15, 0.2, "l2")) and other.eps == pytest.approx(1.0)
    assert threats.others(other, 300)[2].eps == pytest.approx(0.1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_blocks_of_a_linear_model_are_what_is_known_of_it(make: Callable[..., Case], norm: str) -> None:
    case = make(4, norm=norm, autoattack="none", n=40)
    card = judged(case)
    around = card["around"]
    assert around["calibration"]["clean"] == card["calibration"]
    assert around["calibration"]["attacked"]["brier"] > around["calibration"]["clean"]["brier"]
    nearest = around["nearest"]
    assert nearest["n"] == nearest["found"] == 40
    assert nearest["median"] == pytest.approx(np.median(np.maximum(case.margins, 0)), rel=0.02)
    larger, largest, _ = around["threats"]["rows"]
    eps = card["threat"]["eps"]
    for row, factor in ((larger, 1.5), (largest, 2)):
        assert row["eps"] == pytest.approx(factor * eps)
        assert row["accuracy"] >= (case.margins > factor * eps).mean()
    assert largest["accuracy"] <= larger["accuracy"] < around["threats"]["clean"] == card["clean"]["accuracy"]
    kinds = around["corruptions"]["kinds"]
    assert len(kinds) == 8 and around["corruptions"]["mean"] == pytest.approx(np.mean(list(kinds.values())))
    assert judged(case, "again", scratch="again")["around"] == around
