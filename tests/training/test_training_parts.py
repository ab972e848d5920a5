"""The parts of the loop, each against its definition."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_bench import SPEC, THREAT, toy

from robustdistill import models
from robustdistill.config import Training, options
from robustdistill.errors import BadInput
from robustdistill.inputs.pixels import to_unit
from robustdistill.rng import Draws
from robustdistill.training import alarms, history
from robustdistill.training.augment import augment, shift
from robustdistill.training.averaging import EMA, SWA, average_of
from robustdistill.training.feed import Feed
from robustdistill.training.optimizer import Optimizer
from robustdistill.training.schedule import gamma_at, learning_rate, threat_at
from robustdistill.training.stored import Stored


def settings(**given: Any) -> Training:
    return Training(**({"epochs": 1, "lr": 0.1} | given))


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
@pytest.mark.parametrize("warmup", [0.0, 0.15, 0.5, 0.99])
@pytest.mark.parametrize("total", [1, 7, 100])
def test_learning_rate_rises_then_falls_and_is_never_zero(schedule: str, warmup: float, total: int) -> None:
    rates = [learning_rate(settings(schedule=schedule, warmup=warmup), step, total) for step in range(total)]
    top = rates.index(max(rates))
    assert all(0 < rate <= 0.1 for rate in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert abs(top - warmup * total) <= 1


def test_schedules_fall_as_they_are_named() -> None:
    line, cosine = (learning_rate(settings(schedule=s, warmup=0.0), 25, 100) for s in ("one_cycle", "cosine"))
    assert line == pytest.approx(0.075)
    assert cosine == pytest.approx(0.1 * 0.5 * (1 + math.cos(math.pi * 0.25)))


def test_eps_rises_to_the_full_threat() -> None:
    rising = [threat_at(settings(eps_warmup=0.5), THREAT, step, 10).eps for step in range(10)]
    assert rising == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    assert threat_at(settings(), THREAT, 0, 10) == THREAT


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "momentum": 0.0},
        {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.1},
    ],
)
def test_the_optimiser_is_that_of_torch(options: dict[str, Any]) -> None:
    training = settings(**options, clip=0.5)
    ours, theirs = models.build(SPEC, 0, "test").train(), models.build(SPEC, 0, "test").train()
    groups = [
        {"params": [p for p in theirs.parameters() if p.dim() > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in theirs.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if training.optimizer == "sgd":
        reference: Any = torch.optim.SGD(groups, 0.1, training.momentum, nesterov=training.momentum > 0)
    else:
        reference = torch.optim.AdamW(groups, 0.01)
    optimizer = Optimizer(training, [ours])
    for step in range(4):
        x = torch.from_numpy(to_unit(toy(16, seed=step).x))
        norm = optimizer.backward(ours(x).square().mean())
        optimizer.update(training.lr, step)
        reference.zero_grad()
        theirs(x).square().mean().backward()
        assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)), rel=1e-4)
        reference.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_each_module_is_clipped_for_itself() -> None:
    one, other = models.build(SPEC, 0, "test").train(), models.build(SPEC, 1, "test").train()
    optimizer = Optimizer(settings(clip=0.5), [one, other])
    x = torch.from_numpy(to_unit(toy(16).x))
    optimizer.backward(one(x).square().mean() + 1e4 * other(x).square().mean())
    norms = [
        torch.linalg.vector_norm(torch.stack([w.grad.norm() for w in module.parameters()])) for module in (one, other)
    ]
    fresh = models.build(SPEC, 0, "test").train()
    fresh(x).square().mean().backward()
    free = torch.linalg.vector_norm(torch.stack([w.grad.norm() for w in fresh.parameters()]))
    assert float(norms[0]) == pytest.approx(min(0.5, float(free)), rel=1e-4)
    assert float(norms[1]) == pytest.approx(0.5, rel=1e-4)


def test_average_follows_weights_and_statistics() -> None:
    model = models.build(SPEC, 0, "test").train()
    average = EMA(model, 0.99)
    before = {name: tensor.clone() for name, tensor in average.model.state_dict().items()}
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor += 1
    average.update(0)
    for name, tensor in average.model.state_dict().items():
        moved = 0.9 if tensor.is_floating_point() else 1  # d = min(0.99, 1 / 10)
        torch.testing.assert_close(tensor, before[name] + moved)
    average.update(10**6)
    after = average.model.state_dict()["net.head.bias"]
    torch.testing.assert_close(after, before["net.head.bias"] + 0.9 + 0.01 * 0.1)
    assert not average.model.training


def test_swa_is_the_arithmetic_mean_of_the_weights_after_each_step() -> None:
    """Batch-norm statistics included; before the first of them it is the model itself."""
    model = models.build(SPEC, 0, "test").train()
    average = average_of(model, settings(swa=0.4), 10)
    assert isinstance(average, SWA) and not average.model.training
    snapshots: list[dict[str, torch.Tensor]] = []
    for step in range(10):
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                tensor += len(name) * (step + 1) ** 2 / 7 if tensor.is_floating_point() else 1
        average.update(step)
        snapshots.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        for name, tensor in average.model.state_dict().items():
            taken = torch.stack([snapshot[name].double() for snapshot in snapshots[4:] or snapshots[-1:]])
            if step <= 4 or not tensor.is_floating_point():
                assert torch.equal(tensor, snapshots[-1][name])
            else:
                torch.testing.assert_close(tensor.double(), taken.mean(0), rtol=1e-6, atol=1e-6)
    assert len([name for name in average.model.state_dict() if name.endswith("running_var")]) == 3


def test_one_average_or_none() -> None:
    model = models.build(SPEC, 0, "test")
    assert average_of(model, settings(), 10) is None
    assert isinstance(average_of(model, settings(ema=0.9), 10), EMA)
    assert isinstance(average_of(model, settings(swa=0.0), 10), SWA)
    with pytest.raises(BadInput, match="only one average is kept") as caught:
        options(Training, {"epochs": 1, "lr": 0.1, "ema": 0.9, "swa": 0.5}, where="params.yaml")
    assert "'swa': only one average is kept" in caught.value.cause


def test_weights_are_perturbed_after_the_warm_up() -> None:
    assert [gamma_at(settings(awp=0.01, awp_warmup=0.5), step, 4) for step in range(4)] == [0.0, 0.0, 0.01, 0.01]
    assert gamma_at(settings(awp=0.01), 0, 4) == 0.01
    assert gamma_at(settings(), 3, 4) == 0.0


def test_feed_gives_what_prepared_data_give() -> None:
    data = toy(20)
    for low, high in ((0.0, 1.0), (-1.0, 1.0)):
        spec = dataclasses.replace(SPEC, low=low, high=high)
        x, y, index = Feed(data, spec, "cpu").take(torch.tensor([3, 0, 19]))
        assert np.array_equal(x.numpy(), to_unit(data.x[[3, 0, 19]], low, high))
        assert y.tolist() == [1, 0, 1]
        assert index.tolist() == [3, 0, 19]


def test_shift_moves_by_whole_pixels_each_example_its_own_way() -> None:
    x, index = torch.rand(64, 2, 8, 8), torch.arange(64)
    moved = shift(x, index, Draws(0), fill=-1.0)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1), value=-1.0)
    seen = set()
    for n in range(64):
        for down in range(3):
            for right in range(3):
                if torch.equal(moved[n], padded[n, :, down : down + 8, right : right + 8]):
                    seen.add((down, right))
                    break
            else:
                continue
            break
        else:
            raise AssertionError(f"example {n} is no shift of itself")
    assert len(seen) == 9


@pytest.mark.parametrize("kinds", [["shift"], ["flip"], ["shift", "flip"]])
def test_augmentation_depends_on_epoch_and_example_alone(kinds: list[str]) -> None:
    x, index = torch.rand(16, 1, 28, 28), torch.arange(16)
    whole = augment(x, index, Draws(0, epoch=2), kinds, 0.0)
    order = torch.from_numpy(Draws(5).permutation(16, "order"))[:7]
    assert torch.equal(whole[order], augment(x[order], index[order], Draws(0, epoch=2), kinds, 0.0))
    assert not torch.equal(whole, augment(x, index, Draws(0, epoch=3), kinds, 0.0))
    assert not torch.equal(whole, x)


def test_stored_examples_find_their_own() -> None:
    data = toy(5)
    stored = Stored(np.stack([np.full((1, 8, 8), k, np.uint8) for k in (7, 4, 9)]), np.array([3, 0, 77]), "start")
    x, known = stored.aligned(data.id, data.x)
    assert known.tolist() == [True, False, False, True, False]
    assert (x[0] == 4).all()
    assert (x[3] == 7).all()
    assert np.array_equal(x[1], data.x[1])


def test_a_stored_set_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        Stored.open(tmp_path, "replay", 0.5)
    np.save(tmp_path / "train_x_adv.npy", np.zeros((2, 1, 8, 8), np.float32))
    np.save(tmp_path / "train_id.npy", np.zeros(2, np.int64))
    with pytest.raises(BadInput, match="damaged"):
        Stored.open(tmp_path, "replay", 0.5)


def row(epoch: int = 1, loss: float = 0.5, clean: float = 0.9, pgd: float | None = 0.6) -> dict[str, Any]:
    return {"epoch": epoch, "step": epoch, "lr": 0.1, "loss": loss, "val_clean": clean, "val_pgd": pgd}


FALLING = [row(1, 0.9, pgd=0.5), row(2, 0.8, pgd=0.6), row(3, 0.4, pgd=0.4)]


@pytest.mark.parametrize(
    ("rows", "fgsm", "rising", "kinds"),
    [
        ([row()], 0.7, False, []),
        ([row(clean=0.92, pgd=0.0)], 0.96, False, ["catastrophic overfitting"]),
        ([row(clean=0.92, pgd=0.7)], 0.905, False, ["catastrophic overfitting"]),
        ([row(clean=0.92, pgd=0.8)], 0.92, False, []),  # simply robust
        ([row(clean=0.92, pgd=0.3)], 0.6, False, []),  # weak, but FGSM says so too
        ([row(loss=2.3, clean=0.1, pgd=0.1)], 0.1, False, ["collapse"]),
        ([row(loss=2.3, clean=0.1, pgd=0.1)], 0.1, True, []),
        ([row(loss=2.303, clean=0.5, pgd=0.11)], 0.2, False, ["collapse"]),
        ([row(loss=2.303, clean=0.9, pgd=0.6)], 0.7, False, []),  # a loss of another kind
        (FALLING, 0.7, False, ["robust overfitting"]),
        ([*FALLING[:2], row(3, 0.85, pgd=0.4)], 0.7, False, []),  # the loss rises: not overfitting
        ([*FALLING[:2], row(3, 0.4, pgd=0.57)], 0.7, False, []),
        (FALLING[1:], 0.7, False, []),
        ([{"epoch": 1, "step": 1, "lr": 0.1, "loss": 2.303}], None, False, []),
    ],
)
def test_alarms_know_the_ways_to_go_wrong(
    rows: list[dict[str, Any]], fgsm: float | None, rising: bool, kinds: list[str]
) -> None:
    found = alarms.check(rows, fgsm, classes=10, chance=0.1, examples=1000, rising=rising)
    assert [alarm.kind for alarm in found] == kinds
    assert all(alarm.advice and alarm.message for alarm in found)


def test_where_nothing_attacks_the_advice_is_not_of_eps() -> None:
    (plain,) = alarms.check(
        [row(loss=1.1, clean=0.33, pgd=None)], None, classes=3, chance=0.34, examples=99, rising=False
    )
    assert plain.kind == "collapse" and "eps" not in plain.advice


def test_history_as_a_table() -> None:
    rows = [
        {"epoch": 1, "step": 5, "lr": 0.1, "loss": 0.5, "kl": 1 / 3},
        {"epoch": 2, "step": 10, "lr": 0.05, "loss": 0.25, "kl": 0.1, "val_clean": 0.75, "val_pgd": None},
    ]
    assert history.to_csv(rows).splitlines() == [
        "epoch,step,lr,loss,kl,val_clean,val_pgd",
        "1,5,0.1,0.5,0.333333,,",
        "2,10,0.05,0.25,0.1,0.75,",
    ]
