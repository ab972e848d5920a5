"""Every shipped recipe is complete, buildable and within its own policy; the checkout is the digits workspace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from robustdistill import config, recipes
from robustdistill.errors import BadInput

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(params=recipes.names())
def recipe(request: pytest.FixtureRequest) -> recipes.Recipe:
    return recipes.load(request.param)


def test_files_read_back_as_the_equal_config(recipe: recipes.Recipe, tmp_path: Path) -> None:
    recipes.write(recipe, tmp_path)
    assert config.load(config.Params, tmp_path / "params.yaml") == recipe.params
    assert config.load(config.Policy, tmp_path / "policy.yaml") == recipe.policy


def _learners(params: config.Params) -> Iterator[tuple[str, config.Spec, config.Spec]]:
    for name in ("initial", "teacher", "student"):
        learner: config.Learner = getattr(params, name)
        yield name, learner.model, learner.objective
    yield "control", params.student.model, params.control.objective


def test_every_name_and_option_exists(recipe: recipes.Recipe) -> None:
    from robustdistill import attacks, objectives
    from robustdistill.data.sources import SOURCES

    assert recipe.params.data.source in SOURCES
    for name, _, spec in _learners(recipe.params):
        objective = objectives.build(spec, name)
        assert objective.needs_teacher == (name == "student"), name
        assert objective.adversarial == (name != "initial"), name
    for spec in (recipe.params.adversaries.attack, *recipe.params.judge.attacks):
        attacks.build(spec, "recipe")


def test_the_students_keep_within_their_policy(recipe: recipes.Recipe) -> None:
    from robustdistill.models import build, parameters
    from robustdistill.models.spec import ModelSpec

    shape = {"digits": (1, 8, 8), "fashion_mnist": (1, 28, 28)}.get(recipe.name, (3, 32, 32))
    flat = (0.5,) * shape[0]
    sizes = {}
    for name, model, _ in _learners(recipe.params):
        spec = ModelSpec(model, shape, 10, 0.0, 1.0, flat, flat)
        sizes[name] = parameters(build(spec, 0, name))
    assert sizes["student"] < sizes["teacher"]
    assert sizes["student"] <= (recipe.policy.costs.parameters or sizes["student"])


def test_each_key_says_what_it_means(recipe: recipes.Recipe) -> None:
    text = recipes.render(recipe.params)
    assert f"epochs: {recipe.params.teacher.training.epochs}" in text
    assert text.count("# passes over the training data") == 3


@pytest.mark.parametrize("name", ["params.yaml", "policy.yaml", "dvc.yaml"])
def test_the_checkout_is_the_digits_workspace(name: str, tmp_path: Path) -> None:
    recipes.write(recipes.load("digits"), tmp_path)
    assert (CHECKOUT / name).read_text() == (tmp_path / name).read_text(), f"robustdistill init, then copy its {name}"


def test_a_wrong_name_lists_the_recipes() -> None:
    with pytest.raises(BadInput) as caught:
        recipes.load("digit")
    assert "did you mean 'digits'?" in caught.value.fix and "image_folder" in caught.value.fix


def test_help_of_init_lists_every_recipe() -> None:
    from robustdistill.cli.root import root

    text: Any = root.commands["init"].help
    for name in recipes.names():
        assert name in text and recipes.load(name).about.split(";")[0].split(":")[0] in text


def test_the_base_of_an_objective_is_complete_too(tmp_path: Path) -> None:
    digits = recipes.load("digits")
    spec = {"name": "igdm", "base": {"name": "adaad", "attack": {"steps": 3}}}
    filled = recipes.specs.complete({"objective": spec}, "here")["objective"]
    assert {"weight", "teacher_temperature", "base"} <= filled.keys()
    assert {"weight", "adversarial_share", "attack"} <= filled["base"].keys()
    assert {"name": "pgd", "steps": 3, "restarts": 1, "start": "gaussian"}.items() <= filled["base"]["attack"].items()
    student = digits.params.student.model_copy(update={"objective": filled})
    params = digits.params.model_copy(update={"student": student})
    (tmp_path / "params.yaml").write_text(recipes.render(params), encoding="utf-8")
    assert config.load(config.Params, tmp_path / "params.yaml") == params
    with pytest.raises(BadInput, match=r"unknown base 'adadd'(?s:.)*here: objective: base(?s:.)*did you mean 'adaad'"):
        recipes.specs.complete({"objective": {"name": "igdm", "base": {"name": "adadd"}}}, "here")
