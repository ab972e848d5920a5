"""The student beside its teacher: the same answers, and examples made for the teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from judge_toys import Case
from torch import nn

from robustdistill.data.prepared import Prepared
from robustdistill.engine.devices import Compute
from robustdistill.judge import Judgement, evaluate
from robustdistill.judge.sample import draw
from robustdistill.judge.subject import Subject

Make = Callable[..., Case]


def evaluated(case: Case, scratch: str, **surrogates: nn.Module) -> Judgement:
    sample = draw(Prepared.open(case.prepared).split("test"), case.params.judge.examples, 0)
    subject, threat = Subject.open(case.export, Compute("cpu", 1)), case.params.threat.model(0.0, 1.0)
    return evaluate(subject, sample, threat, case.params.judge, case.tools(scratch), surrogates=surrogates)


class Turned(nn.Module):
    """A linear model whose weights were moved, so that it answers otherwise on some inputs."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        linear = case.model.net.linear  # type: ignore[union-attr]
        noise = np.random.default_rng(3).normal(size=linear.weight.shape)  # type: ignore[union-attr, arg-type]
        self.weight = linear.weight.detach() + torch.from_numpy(0.9 * noise).float()  # type: ignore[union-attr, operator]
        self.bias = linear.bias.detach()  # type: ignore[union-attr, operator]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x.flatten(1), self.weight, self.bias)


def _log_softmax(z: np.ndarray) -> np.ndarray:
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def test_a_model_agrees_with_itself(make: Make) -> None:
    case = make(4, autoattack="none")
    found = evaluated(case, "self", teacher=case.model).card["agreement"]
    for name in ("clean", "attacked"):
        assert found[name]["same"] == 1.0 and abs(found[name]["kl"]) < 1e-6
    assert "agreement" not in evaluated(case, "none").card


def test_agreement_is_what_the_formula_says(make: Make) -> None:
    """mean_i sum_k p_ik (log p_ik - log q_ik), p: teacher, q: student, in float64."""
    case = make(4, autoattack="none")
    teacher = Turned(case).eval()
    judged = evaluated(case, "turned", teacher=teacher)
    found = judged.card["agreement"]
    for name, x in (("clean", judged.trial.sample.x), ("attacked", judged.trial.worst)):
        theirs, ours = (f(x).detach().numpy().astype(np.float64) for f in (teacher, judged.trial.subject.logits))
        p, q = _log_softmax(theirs), _log_softmax(ours)
        assert found[name]["same"] == (theirs.argmax(1) == ours.argmax(1)).mean()
        np.testing.assert_allclose(found[name]["kl"], (np.exp(p) * (p - q)).sum(1).mean(), rtol=1e-4, atol=1e-6)
        assert found[name]["lower"] < found[name]["same"] < found[name]["upper"]
    assert found["clean"]["same"] < 1 and found["n"] == len(judged.trial.sample)


def test_who_else_was_there_changes_no_other_attack(make: Make) -> None:
    case = make(4)
    alone, beside = evaluated(case, "alone"), evaluated(case, "beside", teacher=case.model, control=Turned(case).eval())
    rows: list[dict[str, Any]] = beside.card["attacks"]
    assert rows[: len(alone.card["attacks"])] == alone.card["attacks"]
    names = [row["name"] for row in rows[len(alone.card["attacks"]) :]]
    assert names == ["transfer-teacher", "transfer-control"]
    assert rows[-1]["accuracy"] > rows[-2]["accuracy"] and rows[-2]["note"] == "made for teacher"


def test_one_check_reads_all_that_was_made_for_others(make: Make) -> None:
    """Without attacks by gradient nothing but the replayed examples breaks what stands."""
    case = make(4, autoattack="none", attacks=[{"name": "square", "queries": 1}])
    card = evaluated(case, "blind", control=Turned(case).eval(), teacher=case.model).card
    (check,) = [item for item in card["health"] if item["name"] == "transfer"]
    assert not check["ok"] and "transfer-control, transfer-teacher" in check["sentence"]
