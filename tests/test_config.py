"""params.yaml and policy.yaml: complete, strict, and every fault a sentence with the nearest name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from robustdistill import config, recipes
from robustdistill.errors import BadInput


@pytest.fixture
def path(tmp_path: Path) -> Path:
    recipes.write(recipes.load("digits"), tmp_path)
    return tmp_path / "params.yaml"


def _edited(path: Path, change: Callable[[dict[str, Any]], Any]) -> BadInput:
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(BadInput) as caught:
        config.load(config.Params, path)
    assert caught.value.where == str(path)
    return caught.value


def test_an_unknown_key_names_the_nearest(path: Path) -> None:
    error = _edited(path, lambda params: params["teacher"]["training"].update(epoch=3))
    assert "unknown key 'teacher.training.epoch'" in error.cause and "did you mean 'epochs'?" in error.fix


@pytest.mark.parametrize("dotted", ["seed", "student.training.lr", "judge.chunk", "data.resize"])
def test_a_missing_key_is_named(path: Path, dotted: str) -> None:
    def remove(params: dict[str, Any]) -> None:
        *parents, last = dotted.split(".")
        for parent in parents:
            params = params[parent]
        del params[last]

    assert dotted in _edited(path, remove).cause


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("seed", "0"),
        ("seed", 1.5),
        ("name", "../up"),
        ("name", "a b"),
        ("threat", {"norm": "l3", "eps": 1}),
    ],
)
def test_wrong_types_and_ranges_are_refused(path: Path, key: str, value: object) -> None:
    assert key in _edited(path, lambda params: params.update({key: value})).cause


@pytest.mark.parametrize("text", ["- a list\n", "a: [\n", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(BadInput):
        config.load(config.Params, path)


def test_a_key_given_twice_is_refused(path: Path) -> None:
    path.write_text(path.read_text() + "seed: 1\n")
    with pytest.raises(BadInput, match="'seed' is given twice"):
        config.load(config.Params, path)


def test_a_bottomless_file_is_refused(path: Path) -> None:
    path.write_text("[" * 5000)
    with pytest.raises(BadInput):
        config.load(config.Params, path)


def test_an_eps_beyond_the_input_is_refused() -> None:
    with pytest.raises(BadInput, match="larger than the whole range"):
        config.Threat(norm="linf", eps=8.0).model(0.0, 1.0)
    assert config.Threat(norm="l2", eps=8.0).model(0.0, 1.0).eps == 8.0


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        config.load(config.Params, tmp_path / "params.yaml")
    assert "robustdistill init" in caught.value.fix


def test_yaml_cannot_run_code(path: Path) -> None:
    path.write_text("name: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(BadInput, match="not YAML"):
        config.load(config.Params, path)
