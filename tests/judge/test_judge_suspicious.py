"""Models that only seem robust, or answer oddly: noticed by a check, or judged as the honest one behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from judge_toys import EDGE, Case
from torch import Tensor, nn

from robustdistill.config import Judge
from robustdistill.data.prepared import Prepared
from robustdistill.judge import Judgement, evaluate
from robustdistill.judge.rescaled import scale_of
from robustdistill.judge.sample import draw
from robustdistill.judge.subject import Subject

Make = Callable[..., Case]
QUICK: dict[str, Any] = {"attacks": [{"name": "apgd", "steps": 25, "goal": "margin"}], "autoattack": "none"}


class Odd(nn.Module):
    """Logits z of an honest net, changed by `how(self, x, z)`."""

    def __init__(self, net: nn.Module, how: Callable[[Odd, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.how, self.asked = net, how, 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += 1
        return self.how(self, x, self.net(x))


def judge_it(case: Case, how: Callable[[Odd, Tensor, Tensor], Tensor], **protocol: Any) -> Judgement:
    subject = Subject.of_module(Odd(case.model, how), shape=(1, EDGE, EDGE), classes=4)
    judge: Judge = case.params.judge.model_copy(update={**QUICK, **protocol})
    sample = draw(Prepared.open(case.prepared).split("test"), 100, case.params.seed)
    scratch = f"odd-{how.__name__}"
    return evaluate(subject, sample, case.params.threat.model(0.0, 1.0), judge, case.tools(scratch))


def errors(found: Judgement) -> set[str]:
    return {item["name"] for item in found.card["health"] if not item["ok"] and item["level"] == "error"}


def honest(model: Odd, x: Tensor, z: Tensor) -> Tensor:
    return z


def company(model: Odd, x: Tensor, z: Tensor) -> Tensor:
    return z - z.mean(0, keepdim=True) * 0.1  # statistics of the batch


def neighbour(model: Odd, x: Tensor, z: Tensor) -> Tensor:
    return z + 0.1 * z.roll(1, 0)


def mode(model: Odd, x: Tensor, z: Tensor) -> Tensor:
    return z * 1.1 if torch.is_grad_enabled() else z


def history(model: Odd, x: Tensor, z: Tensor) -> Tensor:
    return z * (1.1 if model.asked > 20 else 1.0)


def repeated(model: Odd, x: Tensor, z: Tensor) -> Tensor:
    return z * (1.1 if model.asked % 2 else 1.0)


def hashed(model: Odd, x: Tensor, z: Tensor) -> Tensor:
    """Rounding of the input without a gradient: the honest net behind it is as weak as before."""
    return model.net(torch.round(x.detach() * 64) / 64)


def seeded_by_the_input(model: Odd, x: Tensor, z: Tensor) -> Tensor:
    return z + torch.sin(1e7 * x.flatten(1).double().sum(1, keepdim=True)).float() * z.roll(1, 1)


@pytest.mark.parametrize(
    ("how", "check"),
    [
        (company, "batch_of_one"),
        (neighbour, "batch_order"),
        (mode, "gradient_mode"),
        (history, "history"),
        (repeated, "deterministic"),
        (hashed, "zero_gradients"),
        (seeded_by_the_input, "smooth"),
    ],
)
def test_each_is_found_by_its_check(make: Make, how: Callable[..., Tensor], check: str) -> None:
    assert check in errors(judge_it(make(4), how))


def log_softmax(model: Odd, x: Tensor, z: Tensor) -> Tensor:
    return z.log_softmax(1)


def large(model: Odd, x: Tensor, z: Tensor) -> Tensor:
    return z * 1e6


def small(model: Odd, x: Tensor, z: Tensor) -> Tensor:
    return z * 1e-3


@pytest.mark.parametrize("how", [honest, log_softmax, large, small])
def test_another_size_of_the_logits_changes_no_verdict(make: Make, how: Callable[..., Tensor]) -> None:
    case = make(4)
    cross_entropy = {"name": "apgd", "steps": 25}  # it feels the size; for more than two classes it needs the other
    found = judge_it(case, how, attacks=[cross_entropy, {"name": "apgd", "steps": 25, "goal": "targeted-margin"}])
    np.testing.assert_array_equal(found.trial.standing, case.analytic)
    assert errors(found) == set()
    assert ("logit_scale" in {i["name"] for i in found.card["health"] if not i["ok"]}) is (how in (large, small))


@pytest.mark.parametrize(
    "attempts",
    [[{"name": "pgd", "steps": 2}, {"name": "square", "queries": 200}], [{"name": "own", "steps": 2, "queries": 200}]],
    ids=["square", "own"],
)
def test_square_counts_as_gradient_free_also_inside_the_own_suite(make: Make, attempts: list[dict[str, Any]]) -> None:
    found = judge_it(make(4), hashed, attacks=attempts)
    assert "gradient_free" in errors(found)
    blind = found.trial.rows[0].blind
    assert (blind is None) is (attempts[0]["name"] == "pgd") and (
        blind is None or 0 < blind.sum() <= found.trial.clean.sum()
    )


def test_what_square_breaks_after_the_gradients_is_no_sign_on_an_honest_model(make: Make) -> None:
    found = judge_it(make(4), honest, attacks=[{"name": "own", "steps": 25, "queries": 200}])
    assert "gradient_free" in {item["name"] for item in found.card["health"]} and errors(found) == set()


def tied(model: Odd, x: Tensor, z: Tensor) -> Tensor:
    return torch.zeros_like(z) + 0 * z


def infinite(model: Odd, x: Tensor, z: Tensor) -> Tensor:
    return torch.where(z == z.amax(1, keepdim=True), torch.inf, z)


def abstains(model: Odd, x: Tensor, z: Tensor) -> Tensor:
    return torch.where(x[:, :1, 0, 0] > 0.5, torch.nan, z)


def test_abstaining_by_nan_is_no_randomness(make: Make) -> None:
    found = judge_it(make(4), abstains, attacks=[{"name": "fgsm"}])
    assert "finite_logits" in errors(found)
    assert not errors(found) & {"deterministic", "batch_order", "batch_of_one", "history", "gradient_mode", "smooth"}


@pytest.mark.parametrize("how", [tied, infinite])
def test_an_answer_that_is_none_counts_as_wrong(make: Make, how: Callable[..., Tensor]) -> None:
    assert not judge_it(make(4), how, attacks=[{"name": "fgsm"}]).trial.clean.any()


def test_logits_of_an_ordinary_size_are_left_alone() -> None:
    z = torch.tensor([[0.0, 4.0, 1.0], [5.0, 1.0, 0.0]])
    assert scale_of(z) == 1.0
    assert scale_of(1000 * z) == pytest.approx(1000 * 3 / 4)  # the median lead, 3, is brought to 4
    assert scale_of(torch.zeros(2, 3)) == 1.0
