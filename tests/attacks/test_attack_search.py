"""FGSM and PGD: known worst cases, relations between them, and what they must not do."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from robustdistill import attacks
from robustdistill.attacks import Access, Batch, TorchTarget
from robustdistill.attacks.ball import ball
from robustdistill.attacks.goals import GOALS, cross_entropy, margin
from robustdistill.attacks.kl import kl
from robustdistill.errors import BadInput
from robustdistill.rng import Draws, seeded
from robustdistill.threat import NORMS, ThreatModel

DRAWS = Draws(11, epoch=3)


def run(spec: dict[str, Any], model: nn.Module, batch: Batch, threat: ThreatModel, **given: Any) -> Tensor:
    return attacks.build(spec)(TorchTarget(model), batch, threat, DRAWS, **given)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(["fgsm", "pgd"]),
    norm=st.sampled_from(NORMS),
    eps=st.floats(1e-3, 2.0),
    step=st.floats(0.01, 3.0),
    start=st.sampled_from(["uniform", "gaussian", "none"]),
    goal=st.sampled_from(["ce", "margin"]),
    low=st.sampled_from([0.0, -3.0]),
    seed=st.integers(0, 2**31),
)
def test_all_results_lie_in_the_ball_and_the_box(
    name: str, norm: Any, eps: float, step: float, start: str, goal: str, low: float, seed: int
) -> None:
    threat = ThreatModel(norm, eps, low, 1.0)
    with seeded("net", seed):
        net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    index = torch.arange(5) + seed
    x = low + (1 - low) * DRAWS.uniform(torch.empty(5, 3, 4), index, "x").round(decimals=1)  # some on the walls
    x_adv = run({"name": name, "step": step, "start": start, "goal": goal}, net, Batch(x, index % 3, index), threat)
    assert ball(threat).contains(x_adv, x).all()
    assert x_adv.dtype == x.dtype and not x_adv.requires_grad


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("goal", sorted({"ce", "margin"}))
def test_fgsm_is_one_full_step_of_pgd(norm: Any, goal: str, small_net: nn.Module, images: Batch) -> None:
    threat = ThreatModel(norm, 0.1)
    one = run({"name": "fgsm", "goal": goal}, small_net, images, threat)
    other = run({"name": "pgd", "steps": 1, "step": 1.0, "start": "none", "goal": goal}, small_net, images, threat)
    assert torch.equal(one, other)
    assert not torch.equal(one, images.x)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("steps", [1, 3, 10])
def test_the_loss_of_a_linear_model_never_falls_below_its_start(
    norm: Any, steps: int, linear: nn.Module, points: Batch
) -> None:
    threat = ThreatModel(norm, 0.1)
    x_adv = run({"name": "pgd", "steps": steps, "step": 0.2}, linear, points, threat)
    begin = ball(threat).start(points.x, DRAWS, "pgd", points.index)
    assert (cross_entropy(linear(x_adv), points) >= cross_entropy(linear(begin), points) - 1e-6).all()


@pytest.mark.parametrize(
    ("norm", "dual"),
    [("linf", 0.5 + 2 + 0.01 + 1 + 0.3 + 4), ("l2", math.sqrt(0.25 + 4 + 1e-4 + 1 + 0.09 + 16))],
)
@pytest.mark.parametrize(
    "spec",
    [{"name": "fgsm"}, {"name": "pgd", "steps": 20}, {"name": "pgd", "steps": 20, "keep": "best", "goal": "margin"}],
)
def test_a_linear_model_is_attacked_to_its_analytic_optimum(
    norm: Any, dual: float, spec: dict[str, Any], linear: nn.Module, points: Batch
) -> None:
    """max (w_k − w_y)·δ over ‖δ‖ ≤ eps is eps times the dual norm of w_k − w_y = ±2w."""
    x_adv = run(spec, linear, points, ThreatModel(norm, 0.1))
    gain = margin(linear(x_adv), points) - margin(linear(points.x), points)
    assert gain.tolist() == pytest.approx([0.1 * 2 * dual] * len(points.x), rel=1e-3)


@pytest.mark.parametrize(
    ("spec", "forwards"),
    [
        ({"name": "fgsm"}, 1),
        ({"name": "pgd", "steps": 4}, 4),
        ({"name": "pgd", "steps": 4, "keep": "best"}, 5),
        ({"name": "pgd", "steps": 4, "restarts": 2}, 10),
        ({"name": "pgd", "steps": 4, "goal": "kl", "start": "gaussian"}, 5),
    ],
)
def test_no_needless_passes_and_never_a_weight_gradient(
    spec: dict[str, Any], forwards: int, small_net: nn.Module, images: Batch
) -> None:
    seen: list[bool] = []

    def look(module: nn.Module, *_: object) -> None:
        seen.append(any(p.requires_grad for p in module.parameters()) or any(m.training for m in module.modules()))

    small_net.train().register_forward_hook(look)
    run(spec, small_net, images, ThreatModel("linf", 0.1))
    assert seen == [False] * forwards
    assert small_net.training and all(p.requires_grad and p.grad is None for p in small_net.parameters())


@pytest.mark.parametrize("norm", NORMS)
def test_an_example_is_attacked_alike_in_any_batch_and_order(norm: Any, small_net: nn.Module, images: Batch) -> None:
    spec, threat = {"name": "pgd", "restarts": 2, "keep": "best"}, ThreatModel(norm, 0.1)
    whole = run(spec, small_net, images, threat)
    keep = torch.tensor([9, 2, 5])
    part = run(spec, small_net, attacks.select(images, keep), threat)
    assert torch.allclose(part, whole[keep], atol=1e-4)


def test_restarts_and_best_only_ever_help(small_net: nn.Module, images: Batch) -> None:
    threat, spec = ThreatModel("linf", 0.3), {"name": "pgd", "steps": 3, "step": 1.5, "goal": "margin"}

    def worst(**more: Any) -> Tensor:
        return margin(small_net(run(spec | more, small_net, images, threat)), images).detach()

    last, best = worst(), worst(keep="best")
    assert (best >= last - 1e-6).all() and (best > last + 1e-3).any()  # such long steps overshoot
    assert (worst(restarts=4) >= last - 1e-6).all()
    assert (worst(restarts=4, keep="best") >= best - 1e-6).all()


def test_each_restart_begins_elsewhere(small_net: nn.Module, images: Batch) -> None:
    seen: list[Tensor] = []

    def goal(logits: Tensor, batch: Batch) -> Tensor:
        seen.append(batch.x.detach())
        return cross_entropy(logits, batch)

    run({"name": "pgd", "steps": 1, "restarts": 3}, small_net, images, ThreatModel("linf", 0.1), goal=goal)
    first, second, third = seen[0], seen[2], seen[4]  # between them: the weighing of each end
    assert not torch.equal(first, second) and not torch.equal(second, third)


def test_best_keeps_a_wrong_point_before_a_higher_goal() -> None:
    """On its way up the search passes x = 0.5, which the model gets wrong, and ends where it is right again. An
    evaluation that forgot the former would count the example as robust."""

    class Track(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([2 - x, 3 * torch.exp(-(((x - 0.5) / 0.1) ** 2))], dim=1)

    batch = Batch(torch.zeros(1, 1), torch.tensor([0]), torch.tensor([0]))
    spec = {"name": "pgd", "steps": 4, "step": 0.25, "start": "none"}
    found = {
        keep: run(spec | {"keep": keep}, Track(), batch, ThreatModel("linf", 1.0), goal=lambda _, b: b.x[:, 0]).item()
        for keep in ("last", "best")
    }
    assert found == {"last": 1.0, "best": 0.5}


def test_goal_and_start_can_be_given(small_net: nn.Module, images: Batch) -> None:
    threat = ThreatModel("linf", 0.1)
    teacher = small_net(images.x).detach().roll(1, dims=1)
    spec = {"name": "pgd", "steps": 5}
    towards = run(spec, small_net, images, threat, goal=lambda z, _: -kl(teacher, z))
    away = run(spec, small_net, images, threat, goal=lambda z, _: kl(teacher, z))
    assert (kl(teacher, small_net(away)) > kl(teacher, small_net(towards))).all()

    far = images.x + 1.0  # outside: brought inside first
    begun = run({"name": "pgd", "steps": 1, "step": 1e-6}, small_net, images, threat, start=far)
    assert torch.allclose(begun, ball(threat).project(far, images.x), atol=1e-5)


def test_goal_kl_moves_away_from_the_models_own_clean_logits(small_net: nn.Module, images: Batch) -> None:
    threat, spec = ThreatModel("linf", 0.1), {"name": "pgd", "goal": "kl", "start": "gaussian"}
    own = images.with_context(reference=small_net(images.x).detach())
    x_adv = run(spec, small_net.train(), images, threat)
    small_net.eval()
    assert torch.equal(x_adv, run(spec, small_net, own, threat))
    assert (GOALS["kl"](small_net(x_adv), own) > GOALS["kl"](small_net(images.x), own)).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x: x * 2 - 1, "normalisation is a layer"),
        (lambda x: x.masked_fill(x > 0.5, float("nan")), "outside the threat"),
    ],
)
def test_inputs_outside_the_box_are_refused(change: Any, sentence: str, small_net: nn.Module, images: Batch) -> None:
    with pytest.raises(BadInput, match=sentence):
        run({"name": "fgsm"}, small_net, images._replace(x=change(images.x)), ThreatModel("linf", 0.1))


def test_a_search_that_would_stand_still_is_refused(small_net: nn.Module, images: Batch) -> None:
    with pytest.raises(BadInput, match="flat at x"):
        run({"name": "fgsm", "goal": "kl"}, small_net, images, ThreatModel("linf", 0.1))


def test_a_target_that_gives_too_little_access_is_refused(small_net: nn.Module, images: Batch) -> None:
    target = TorchTarget(small_net)
    target.access = Access.SCORES  # type: ignore[misc]
    with pytest.raises(BadInput, match="needs GRADIENT access, the target gives SCORES"):
        attacks.build({"name": "pgd"})(target, images, ThreatModel("linf", 0.1), DRAWS)


@pytest.mark.parametrize("spec", [{"name": "pdg"}, {"name": "pgd", "steps": 0}, {"name": "pgd", "goal": "cee"}])
def test_a_bad_spec_names_its_place(spec: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"judge\.attacks"):
        attacks.build(spec, "judge.attacks")
