"""APGD, FAB, Square and the suite of them: known worst cases, what more work buys, and who may run where."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from attack_toys import Linear
from torch import Tensor, nn

from robustdistill import attacks
from robustdistill.attacks import Access, Batch, TorchTarget
from robustdistill.attacks.ball import ball
from robustdistill.attacks.fab import FAB
from robustdistill.attacks.goals import cross_entropy, margin
from robustdistill.attacks.square import share
from robustdistill.attacks.suite import Own, parts
from robustdistill.errors import BadInput
from robustdistill.rng import Draws
from robustdistill.threat import NORMS, ThreatModel

DRAWS = Draws(5)


class Case(NamedTuple):
    """A linear model and the distance of each example to its boundary, min_k (z_y − z_k) / ‖w_y − w_k‖_q."""

    net: nn.Module
    batch: Batch
    distance: Tensor
    threat: ThreatModel

    @property
    def robust(self) -> list[bool]:
        return (self.distance > self.threat.eps).tolist()

    def standing(self, spec: dict[str, Any]) -> list[bool]:
        x_adv = attacks.build(spec)(TorchTarget(self.net), self.batch, self.threat, DRAWS)
        assert ball(self.threat).contains(x_adv, self.batch.x).all()
        return (self.net(x_adv).argmax(1) == self.batch.y).tolist()


def linear_case(classes: int, norm: Any, n: int = 40, edge: int = 6) -> Case:
    """Images of [1, edge, edge] far from the walls; eps in the widest gap near the median, so that rounding decides
    nothing; every seventh label is wrong from the start."""
    index = torch.arange(n)
    x = 0.4 + 0.2 * Draws(classes).uniform(torch.empty(n, 1, edge, edge), index, "x")
    weight = 0.3 * Draws(classes).normal(torch.empty(edge * edge, classes), torch.arange(edge * edge), "w")
    net = Linear(weight - weight.mean(1, keepdim=True))
    z, w = net(x).detach(), net.weight.detach()
    y = z.argmax(1)
    y[::7] = (y[::7] + 1) % classes
    size = torch.stack([(w[:, y] - w[:, [k]]).norm(p={"linf": 1, "l2": 2}[norm], dim=0) for k in range(classes)], 1)
    gaps = (z.gather(1, y[:, None]) - z) / size
    distance = gaps.scatter(1, y[:, None], torch.inf).amin(1)
    ordered = distance[distance > 0].sort().values
    middle = ordered[len(ordered) // 4 : 3 * len(ordered) // 4]
    widest = int(middle.diff().argmax())
    threat = ThreatModel(norm, float(middle[widest : widest + 2].mean()))
    return Case(net, Batch(x, y, index), distance, threat)


EXACT: list[dict[str, Any]] = [
    {"name": "apgd", "steps": 40, "goal": "ce"},
    {"name": "apgd", "steps": 40, "goal": "margin"},
    {"name": "apgd", "steps": 40, "goal": "dlr"},
    {"name": "apgd", "steps": 25, "goal": "targeted-dlr"},
    {"name": "apgd", "steps": 25, "goal": "targeted-margin"},
    {"name": "fab", "steps": 20},
    {"name": "own", "steps": 25, "queries": 20},
]
LEAST = {"dlr": 3, "targeted-dlr": 4}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("spec", EXACT, ids=lambda spec: f"{spec['name']}-{spec.get('goal', '')}")
def test_exactly_the_examples_within_eps_of_the_boundary_break(spec: dict[str, Any], classes: int, norm: Any) -> None:
    case = linear_case(classes, norm)
    assert 0.2 < np.mean(case.robust) < 0.8
    if classes < LEAST.get(spec.get("goal", ""), 2):
        with pytest.raises(BadInput, match="margin"):
            case.standing(spec)
        return
    standing = case.standing(spec)
    assert not any(truth and not found for truth, found in zip(case.robust, standing, strict=True))
    if spec.get("goal") in ("ce", "margin", "dlr") and classes > 2:  # climbs towards one class or a blend, not each
        assert np.mean(standing) <= np.mean(case.robust) + (0.4 if spec["goal"] == "ce" else 0.15)
        return
    assert standing == case.robust


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_square_breaks_nothing_robust_and_much_of_the_rest(classes: int, norm: Any) -> None:
    case = linear_case(classes, norm)
    standing = case.standing({"name": "square", "queries": 1500})
    assert not any(truth and not found for truth, found in zip(case.robust, standing, strict=True))
    clean = np.mean((case.distance > 0).numpy())
    # Its l2 pyramids suit smooth weights, and these are white noise.
    assert np.mean(standing) <= np.mean(case.robust) + (0.1 if norm == "linf" else 0.7 * (clean - np.mean(case.robust)))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [2, 10])
def test_fab_measures_the_distance_to_the_boundary(classes: int, norm: Any) -> None:
    case = linear_case(classes, norm)
    attack = attacks.build({"name": "fab", "steps": 20})
    assert isinstance(attack, FAB)
    x_adv, found = attack.nearest(TorchTarget(case.net), case.batch, ball(case.threat), DRAWS)
    right = case.distance > 0
    assert found[right].tolist() == pytest.approx(case.distance[right].tolist(), rel=0.01)
    assert (found[~right] == 0).all() and torch.equal(x_adv[~right], case.batch.x[~right])
    assert (case.net(x_adv).argmax(1) != case.batch.y).all()
    constant = Linear(torch.zeros(36, 2))
    batch = case.batch._replace(y=torch.zeros_like(case.batch.y))
    assert attack.nearest(TorchTarget(constant), batch, ball(case.threat), DRAWS)[1].isinf().all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("spec", "more"),
    [
        ({"name": "square", "queries": 40}, {"queries": 400}),
        ({"name": "square", "queries": 40}, {"restarts": 3}),
        ({"name": "fab", "steps": 2}, {"steps": 12}),
        ({"name": "fab", "steps": 2, "targets": 1}, {"targets": 2}),
        ({"name": "fab", "steps": 2}, {"restarts": 4}),
        ({"name": "apgd", "steps": 2}, {"restarts": 5}),
        ({"name": "apgd", "steps": 2, "goal": "targeted-margin", "targets": 1}, {"targets": 2}),
    ],
)
def test_more_work_never_loses_an_example(
    spec: dict[str, Any], more: dict[str, Any], norm: Any, small_net: nn.Module, images: Batch
) -> None:
    batch = images._replace(y=small_net(images.x).argmax(1))
    threat = ThreatModel(norm, {"linf": 0.03, "l2": 0.12}[norm])
    little, much = (
        small_net(attacks.build(each)(TorchTarget(small_net), batch, threat, DRAWS)).argmax(1) != batch.y
        for each in (spec, spec | more)
    )
    assert (much | ~little).all()


def test_a_broken_example_costs_nothing_more(small_net: nn.Module, images: Batch) -> None:
    """Half of the labels are wrong from the start; each pass after the first holds the others alone."""
    y = small_net(images.x).argmax(1)
    y[:8] = (y[:8] + 1) % 3
    sizes: list[int] = []
    small_net.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    threat = ThreatModel("linf", 1e-5)
    for spec, passes in (
        ({"name": "apgd", "steps": 7}, 1 + 7 + 1),
        ({"name": "apgd", "steps": 7, "goal": "targeted-margin"}, 1 + 2 * (7 + 1 + 1)),  # and the margin at the end
        ({"name": "fab", "steps": 7, "targets": 1}, 1 + 7 * 2),
        ({"name": "square", "queries": 7}, 1 + 7),
    ):
        sizes.clear()
        attacks.build(spec)(TorchTarget(small_net), images._replace(y=y), threat, DRAWS)
        assert len(sizes) in (passes, passes + 1)  # fab may ask once more, about points outside eps
        assert sizes[0] == 16 and max(sizes[1:]) == 8


def test_the_window_of_square_shrinks_as_published() -> None:
    marks = (1, 10, 11, 50, 51, 201, 501, 1001, 2001, 4001, 6001, 8001)
    assert [round(0.8 / share(0.8, query)) for query in marks] == [1, 1, 2, 2, 4, 8, 16, 32, 64, 128, 256, 512]


def test_square_takes_scores_alone_and_images_only(small_net: nn.Module, images: Batch, points: Batch) -> None:
    target = TorchTarget(small_net)
    target.access = Access.SCORES  # type: ignore[misc]
    target.gradient = None  # type: ignore[assignment, method-assign]
    attacks.build({"name": "square", "queries": 3})(target, images, ThreatModel("linf", 0.1), DRAWS)
    with pytest.raises(BadInput, match=r"needs images \[C, H, W\]"):
        attacks.build({"name": "square"})(TorchTarget(Linear(torch.ones(6, 2))), points, ThreatModel("l2", 0.1), DRAWS)


@pytest.mark.parametrize(
    ("classes", "shape", "names", "goal"),
    [
        (10, (1, 8, 8), ["apgd-ce", "apgd-t", "fab-t", "square"], "targeted-dlr"),
        (4, (3, 8, 8), ["apgd-ce", "apgd-t", "fab-t", "square"], "targeted-dlr"),
        (3, (1, 8, 8), ["apgd-ce", "apgd-t", "fab-t", "square"], "targeted-margin"),
        (2, (20,), ["apgd-ce", "apgd-t", "fab-t"], "targeted-margin"),
    ],
)
def test_the_parts_of_the_suite(classes: int, shape: tuple[int, ...], names: list[str], goal: str) -> None:
    found = parts(Own.Config(), classes, shape)
    assert list(found) == names and found["apgd-t"].config.goal == goal
    assert "square" not in parts(Own.Config(queries=0), classes, shape)


def test_the_suite_keeps_for_each_example_the_worst_of_its_parts(small_net: nn.Module, images: Batch) -> None:
    batch = images._replace(y=small_net(images.x).argmax(1))
    threat, config = ThreatModel("linf", 0.04), Own.Config(steps=10, queries=50)
    worst = margin(small_net(Own(config)(TorchTarget(small_net), batch, threat, DRAWS)), batch).detach()
    standing = worst <= 0
    assert standing.any() and not standing.all()
    for name, part in parts(config, 3, (1, 6, 6)).items():
        alone = margin(small_net(part(TorchTarget(small_net), batch, threat, DRAWS.fold(name))), batch).detach()
        assert (alone[standing] <= worst[standing] + 1e-5).all()


@pytest.mark.parametrize("name", ["fab", "own"])
def test_an_attack_with_a_goal_of_its_own_takes_no_other(name: str, small_net: nn.Module, images: Batch) -> None:
    with pytest.raises(BadInput, match="use pgd or apgd"):
        attacks.build({"name": name})(
            TorchTarget(small_net), images, ThreatModel("linf", 0.1), DRAWS, goal=cross_entropy
        )


@pytest.mark.parametrize(
    "spec", [{"name": "apgd", "steps": 1}, {"name": "fab", "steps": 1}, {"name": "square", "queries": 1}]
)
def test_a_search_can_be_given_its_first_point(spec: dict[str, Any], small_net: nn.Module, images: Batch) -> None:
    """A first point that is already wrong ends the search there."""
    batch = images._replace(y=small_net(images.x).argmax(1))
    threat = ThreatModel("linf", 0.3)
    found = attacks.build({"name": "own", "steps": 20, "queries": 0})(TorchTarget(small_net), batch, threat, DRAWS)
    wrong = small_net(found).argmax(1) != batch.y
    assert wrong.sum() > 8
    x_adv = attacks.build(spec)(TorchTarget(small_net), batch, threat, DRAWS, start=found)
    if spec["name"] == "fab":  # it asks after its first step
        assert not torch.equal(x_adv, attacks.build(spec)(TorchTarget(small_net), batch, threat, DRAWS))
    else:
        assert torch.equal(x_adv[wrong], ball(threat).project(found, batch.x)[wrong])
