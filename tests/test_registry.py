"""Names in configs become classes, or sentences."""

from __future__ import annotations

import pytest
from pydantic import Field

from robustdistill.config import Strict
from robustdistill.errors import BadInput
from robustdistill.registry import resolve, table


class Pear:
    name = "pear"

    class Config(Strict):
        ripe: bool = Field(default=False, description="ready to eat")


class Quince:
    name = "quince"

    class Config(Strict):
        weight: float = Field(default=1.0, gt=0, description="in kilograms")


class SecondPear:
    name = "pear"


class Nameless:
    pass


FRUIT: dict[str, type] = table("fruit", Pear, Quince)


def test_resolves_class_and_typed_options() -> None:
    found, config = resolve("fruit", FRUIT, {"name": "quince", "weight": 2}, where="params.yaml: fruit")
    assert found is Quince
    assert isinstance(config, Quince.Config)
    assert config.weight == 2.0


def test_does_not_consume_the_spec() -> None:
    spec = {"name": "pear", "ripe": True}
    resolve("fruit", FRUIT, spec, where="")
    assert spec == {"name": "pear", "ripe": True}


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"name": "paer"}, "did you mean 'pear'.*choices: pear, quince"),
        ({"ripe": True}, "no name.*name: one of pear, quince"),
        ({"name": 3}, "no name"),
        (["pear"], "as a mapping"),
        ({"name": "pear", "rip": True}, "unknown key 'rip'.*did you mean 'ripe'"),
        ({"name": "quince", "weight": -1.0}, "'weight' must be greater than 0, is -1.0"),
        ({"name": "quince", "weight": "1"}, "'weight' must be a number, is '1'"),
    ],
)
def test_a_bad_spec_is_a_sentence_with_its_place(spec: object, sentence: str) -> None:
    with pytest.raises(BadInput, match=f"(?s){sentence}") as caught:
        resolve("fruit", FRUIT, spec, where="params.yaml: fruit")  # type: ignore[arg-type]
    assert "params.yaml: fruit" in str(caught.value)


@pytest.mark.parametrize(("classes", "sentence"), [((Pear, SecondPear), "called 'pear'"), ((Nameless,), "name")])
def test_a_faulty_table_cannot_be_built(classes: tuple[type, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        table("fruit", *classes)


def test_a_class_without_options_is_our_fault_not_the_users() -> None:
    with pytest.raises(ValueError, match="Config"):
        resolve("fruit", {"pear": SecondPear}, {"name": "pear"}, where="")


def test_an_option_for_what_has_none_is_to_be_left_out() -> None:
    class Plain:
        name = "plain"

        class Config(Strict):
            pass

    with pytest.raises(BadInput, match="unknown key 'path'") as caught:
        resolve("source", table("source", Plain), {"name": "plain", "path": 1}, where="here")
    assert caught.value.fix == "leave it out: there are no options here"
