"""What no objective may do: move the teacher, attack in training mode, forget modes, mix examples up."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustdistill import objectives
from robustdistill.attacks import TorchTarget
from robustdistill.errors import BadInput
from robustdistill.objectives import OBJECTIVES, Objective, Parts, Sees, Step, Teacher

Make = Callable[..., tuple[Objective, Step]]

STUDENTS = [name for name, found in OBJECTIVES.items() if found.needs_teacher]
ADVERSARIAL = [name for name, found in OBJECTIVES.items() if found.adversarial]


def unchanged(model: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


ASKS = {
    Sees.CLEAN: ["absld", "ard", "kd", "logit_l1", "rslad"],
    Sees.ADVERSARIAL: ["b_mtard", "iad", "mtard"],
    Sees.GRADIENT: ["adaad", "adaiad", "dgad", "igdm", "saad"],
}


def test_the_lists_are_what_the_recipes_count_on() -> None:
    assert sorted(STUDENTS) == sorted(name for names in ASKS.values() for name in names)
    alone = ["adr", "fgsm_rs", "lbgat", "mart", "n_fgsm", "peeraid", "pgd_at", "trades"]
    assert sorted(ADVERSARIAL) == sorted([*(set(STUDENTS) - {"kd"}), *alone])
    assert sorted(name for name, found in OBJECTIVES.items() if found.needs_clean_teacher) == ["b_mtard", "mtard"]
    seen = {name: sees for sees, names in ASKS.items() for name in names}
    assert {name: found.teacher_sees for name, found in OBJECTIVES.items()} == {
        name: seen.get(name, Sees.NOTHING) for name in OBJECTIVES
    }


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_it_is_costs_and_is_good_for_is_said(name: str) -> None:
    for fact in ("formula", "source", "cost", "when"):
        told = getattr(OBJECTIVES[name], fact)
        assert isinstance(told, str) and told and "\n" not in told


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_teacher_stays_bit_equal_even_if_somebody_puts_it_in_training_mode(name: str, make: Make) -> None:
    objective, step = make({"name": name})
    teachers = [step.teacher.model, step.clean_teacher.model]
    before = copy.deepcopy([model.state_dict() for model in teachers])
    for model in teachers:
        model.train()
    objective(step).loss.mean().backward()
    objective.after_step(step.student)
    for model, state in zip(teachers, before, strict=True):
        assert unchanged(model, state)
        assert all(not p.requires_grad and p.grad is None for p in model.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in step.student.parameters())


def test_a_new_teacher_is_frozen_and_answers_in_evaluation_mode(make: Make) -> None:
    _, step = make({"name": "ce"})
    model = step.teacher.model
    x = step.batch.x
    expected = copy.deepcopy(model).eval()(x).detach()
    model.train()
    assert torch.equal(Teacher(model).logits(x), expected)
    assert not model.training and not step.teacher.logits(x).requires_grad


def test_the_teachers_input_gradient_is_available_and_reaches_no_weight(make: Make) -> None:
    _, step = make({"name": "ce"})
    x = step.batch.x.clone().requires_grad_(True)
    step.teacher.logits_with_input_grad(x)[:, 0].sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in step.teacher.model.parameters())


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_the_attack_leaves_the_training_student_bit_equal(name: str, make: Make) -> None:
    objective, step = make({"name": name})
    before = copy.deepcopy(step.student.state_dict())
    step.student[3].eval()  # mixed modes survive
    modes = [module.training for module in step.student.modules()]
    x_adv = objective.adversary(step, reference=step.teacher.logits(step.batch.x))
    assert unchanged(step.student, before)
    assert [module.training for module in step.student.modules()] == modes
    assert all(p.requires_grad and p.grad is None for p in step.student.parameters())
    assert not x_adv.requires_grad
    change = (x_adv - step.batch.x).abs().max().item()
    if name == "n_fgsm":  # noise of two eps and a step of one, never projected
        assert 0.2 < change <= 0.3 + 1e-6
    else:  # K steps reach eps, not a step's length
        assert change == pytest.approx(0.1, abs=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_outer_passes_run_in_the_mode_the_loop_set(name: str, make: Make) -> None:
    objective, step = make({"name": name})
    objective(step)
    assert step.student.training and step.student[2].num_batches_tracked > 0
    step.student.eval()
    before = copy.deepcopy(step.student.state_dict())
    objective(step)
    assert not step.student.training and unchanged(step.student, before)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_are_each_examples_own(name: str, make: Make) -> None:
    """In evaluation mode, where examples do not meet in batch norm: a part of a batch loses what it lost in it."""
    objective, step = make({"name": name})
    for model in (step.student, *objective.companions()):
        model.eval()
    whole = objective(step)
    keep = torch.tensor([30, 3, 17])
    if name == "saad":  # which measures by the smallest entropy of the batch
        keep[0] = whole.terms["entropy_weight"].argmin()
    part = objective(replace(step, batch=pick(step, keep)))
    assert torch.allclose(part.loss, whole.loss[keep], rtol=1e-3, atol=1e-4)


def pick(step: Step, keep: Tensor) -> Any:
    return type(step.batch)(step.batch.x[keep], step.batch.y[keep], step.batch.index[keep])


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_the_attack_goes_through_the_given_target_and_begins_at_the_given_start(name: str, make: Make) -> None:
    attack = {"attack": {"steps": 1, "step": 1e-6}}
    one_step: dict[str, Any] = {
        "fgsm_rs": {"attack": {"step": 1e-6}},
        "n_fgsm": {"step": 1e-6},
        "igdm": {"base": {"name": "adaad", **attack}},
    }
    objective, step = make({"name": name, **one_step.get(name, attack)})
    reach = 0.2 if name == "n_fgsm" else 0.1  # of the noise
    begin = step.batch.x.flip(0)
    calls: list[int] = []

    class Counting(TorchTarget):
        def gradient(self, batch: Any, goal: Any) -> Tensor:
            calls.append(len(batch.x))
            return super().gradient(batch, goal)

    step = replace(step, target=Counting(step.student), batch=step.batch.with_context(start=begin))
    x_adv = objective(step).x_adv
    assert calls == [32]
    expected = torch.minimum(torch.maximum(begin, step.batch.x - reach), step.batch.x + reach)
    assert torch.allclose(x_adv, expected, atol=1e-5)


@pytest.mark.parametrize("name", STUDENTS)
def test_the_weight_scales_the_teachers_part_and_its_temperature_matters(name: str, make: Make) -> None:
    def loss(**options: Any) -> Tensor:
        objective, step = make({"name": name, **options})
        parts: Parts = objective(step)
        return parts.loss.detach()

    none, one, two = loss(weight=0.0), loss(weight=1.0), loss(weight=2.0)
    assert torch.allclose(two - none, 2 * (one - none), rtol=1e-3, atol=1e-5)
    assert not torch.allclose(one, none)
    assert not torch.allclose(loss(weight=1.0, teacher_temperature=0.5), one)


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_without_teacher_is_a_sentence(name: str, make: Make) -> None:
    objective, step = make({"name": name}, teacher=None)
    with pytest.raises(BadInput, match=f"'{name}' needs a teacher"):
        objective(step)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in STUDENTS])
def test_the_others_work_without_a_teacher(name: str, make: Make) -> None:
    objective, step = make({"name": name}, teacher=None)
    assert torch.isfinite(objective(step).loss).all()


def test_the_clean_form_attacks_nothing(make: Make) -> None:
    objective, step = make({"name": "logit_l1", "adversarial": False})
    assert not objective.adversarial and objective(step).x_adv is None
    assert OBJECTIVES["logit_l1"].adversarial  # the instance's flag, not the class's


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"steps": 10, "step": 0.25, "start": "gaussian", "goal": "kl"}),
        ({"steps": 2}, {"steps": 2, "step": 0.25, "start": "gaussian", "goal": "kl"}),
        ({"name": "pgd", "goal": "ce"}, {"steps": 10, "step": 0.25, "start": "gaussian", "goal": "ce"}),
        ({"name": "fgsm"}, {"step": 1.0, "start": "gaussian", "goal": "kl"}),
    ],
)
def test_attack_options_that_are_left_out_are_the_objectives(given: dict[str, Any], expected: dict[str, Any]) -> None:
    built = objectives.build({"name": "rslad", "attack": given})
    config = built.attack.config.model_dump()
    assert {key: config[key] for key in expected} == expected
    assert built.config.attack["goal"] == expected["goal"]  # what is recorded is complete
    assert objectives.build({"name": "rslad"}).attack.config.steps == 10  # the default itself is not touched


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"name": "rslda"}, r"unknown objective 'rslda'(?s:.)*did you mean 'rslad'"),
        ({"name": "trades", "betta": 1.0}, "did you mean 'beta'"),
        ({"name": "ard", "weight": -1.0}, "'weight' must be at least 0, is -1.0"),
        ({"name": "pgd_at", "attack": {"steps": 0}}, r"student\.objective\.attack \(pgd\)"),
        ({"name": "pgd_at", "attack": {"name": "gpd"}}, r"student\.objective\.attack"),
        (
            {"name": "igdm", "base": {"name": "adaad", "wieght": 1.0}},
            r"student\.objective\.base \(adaad\)(?s:.)*'weight'",
        ),
        ({"name": "igdm", "base": {"name": "adadd"}}, r"student\.objective\.base(?s:.)*did you mean 'adaad'"),
        ({"name": "igdm", "base": {"weight": 1.0}}, r"has no name(?s:.)*student\.objective\.base"),
        ({"name": "igdm", "base": {"name": "kd"}}, r"'kd' attacks nothing(?s:.)*student\.objective\.base"),
        ({"name": "igdm", "base": {"name": "igdm"}}, r"its own base(?s:.)*student\.objective\.base"),
    ],
)
def test_a_bad_spec_is_a_sentence_with_its_place(spec: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as caught:
        objectives.build(spec, "student.objective")
    assert "student.objective" in str(caught.value)


@pytest.mark.parametrize("name", ["ce", "pgd_at", "fgsm_rs", "n_fgsm", "trades", "mart"])
def test_source_formula_cost_and_use_are_said_in_a_line_each(name: str) -> None:
    for fact in ("source", "formula", "cost", "when"):
        said = getattr(OBJECTIVES[name], fact)
        assert said and "\n" not in said and OBJECTIVES[name].__dict__[fact] == said  # its own, not a parent's


def test_every_option_is_documented() -> None:
    for found in OBJECTIVES.values():
        for key, field in found.Config.model_fields.items():
            assert field.description, f"{found.name}.{key}"


@pytest.mark.parametrize("name", OBJECTIVES)
def test_asking_for_the_loss_changes_no_state(name: str, make: Make) -> None:
    """One step may ask twice; only `after_step` counts. Statistics of a companion in training are its own affair."""
    objective, step = make({"name": name})
    for model in objective.companions():
        model.eval()
    before = copy.deepcopy(objective.state_dict())
    objective(step)
    assert unchanged(objective, before)
