"""Every shipped recipe trains: two steps of each of its models and objectives, on noise of its own shape."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from robustdistill import objectives, recipes
from robustdistill.attacks.types import Batch
from robustdistill.models import Classifier, build
from robustdistill.models.spec import ModelSpec
from robustdistill.objectives.types import Step, Teacher
from robustdistill.rng import Draws

SHAPES = {"digits": (1, 8, 8), "fashion_mnist": (1, 28, 28)}
N, CLASSES = 4, 10


def _model(spec: dict[str, Any], shape: tuple[int, ...], purpose: str) -> Classifier:
    flat = (0.5,) * shape[0]
    return build(ModelSpec(spec, shape, CLASSES, 0.0, 1.0, flat, flat), 0, purpose)


def _two_steps(model: Classifier, spec: dict[str, Any], teacher: Teacher | None, recipe: recipes.Recipe) -> None:
    quick = spec | ({"attack": spec["attack"] | {"steps": 1}} if "attack" in spec else {})
    objective = objectives.build(quick, "recipe")
    threat = recipe.params.threat.model(0.0, 1.0)
    index = torch.arange(N)
    x = Draws(0).uniform(torch.empty(N, *model.spec.shape), index, "x")
    batch = Batch(x, index % CLASSES, index)
    before = [weight.detach().clone() for weight in model.parameters()]
    for step in range(2):
        model.train()
        parts = objective(Step(model, None, teacher, batch, threat, Draws(0, step)))
        weights = list(model.parameters())
        gradients = torch.autograd.grad(parts.loss.mean(), weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight -= 0.01 * gradient
    assert torch.isfinite(parts.loss).all() and parts.loss.shape == (N,)
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_takes_a_recurrent_teacher_and_student(name: str) -> None:
    recipe = recipes.load(name)
    params, shape = recipe.params, SHAPES.get(name, (3, 32, 32))
    taught = _model({"name": "gru"}, shape, "teacher")
    _two_steps(taught, params.teacher.objective, None, recipe)
    for model in ({"name": "gru", "hidden": 16}, params.student.model):
        _two_steps(_model(model, shape, "student"), params.student.objective, Teacher(taught), recipe)


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_trains_two_steps(name: str) -> None:
    recipe = recipes.load(name)
    params, shape = recipe.params, SHAPES.get(name, (3, 32, 32))
    _two_steps(_model(params.initial.model, shape, "initial"), params.initial.objective, None, recipe)
    taught = _model(params.teacher.model, shape, "teacher")
    _two_steps(taught, params.teacher.objective, None, recipe)
    _two_steps(_model(params.student.model, shape, "student"), params.student.objective, Teacher(taught), recipe)
    _two_steps(_model(params.student.model, shape, "control"), params.control.objective, None, recipe)
