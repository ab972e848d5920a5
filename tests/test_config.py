"""params.yaml and policy.yaml: complete, strict, and every fault a sentence with the nearest name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from robustdistill import config, recipes, strict_yaml
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
        ("seed", 2**63),
        ("seed", "0"),
        ("seed", 1.5),
        ("name", "../up"),
        ("name", "a b"),
        ("threat", {"norm": "l3", "eps": 1}),
        ("threat", {"norm": "linf", "eps": 1e-320}),
    ],
)
def test_wrong_types_and_ranges_are_refused(path: Path, key: str, value: object) -> None:
    assert key in _edited(path, lambda params: params.update({key: value})).cause


def _line(path: Path, text: str, after: str = "") -> int:
    """The number of the first line that begins with `text`, below the one that begins with `after`."""
    lines = path.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(after))
    return next(i for i, line in enumerate(lines[start:], start + 1) if line.strip().startswith(text))


def test_several_mistakes_are_told_a_line_each_in_plain_words(path: Path) -> None:
    text = path.read_text()
    seed, ema = _line(path, "seed:"), _line(path, "ema:", "student:")
    lines = text.splitlines()
    lines[seed - 1], lines[ema - 1] = "seed: -1", "    ema: 1"
    lines = [
        {"  norm: linf": "  norm: l3", "  source: digits": "  source: 7"}.get(line.split("  #")[0].rstrip(), line)
        for line in lines
    ]
    lines.append("sead: [1]")
    path.write_text("\n".join(lines))
    with pytest.raises(BadInput) as caught:
        config.load(config.Params, path)
    assert caught.value.cause.splitlines() == [
        "there are 5 faults",
        f"  - line {seed}: 'seed' must be at least 0, is -1",
        f"  - line {_line(path, 'norm:')}: 'threat.norm' must be 'linf' or 'l2', is 'l3'",
        f"  - line {_line(path, 'source:', 'data:')}: 'data.source' must be text, is 7",
        f"  - line {ema}: 'student.training.ema' must be less than 1, is 1",
        f"  - line {len(lines)}: unknown key 'sead'",
    ]
    assert (caught.value.where, caught.value.fix) == (str(path), "did you mean 'seed'?")


@pytest.mark.parametrize(
    ("eps", "said"),
    [
        ('"8/0"', "'threat.eps': eps '8/0' divides by 0"),
        ("-1", "'threat.eps': eps -1.0 is not positive and finite"),
        ("[1]", "'threat.eps' must be a number or text, is a list"),
        ("", "'threat.eps' must be a number or text, is empty"),
        (".inf", "'threat.eps' must be a finite number or text, is inf"),
    ],
)
def test_a_value_of_two_possible_types_is_told_once(path: Path, eps: str, said: str) -> None:
    text = re.sub(r"(?m)^  eps: [^#]*", f"  eps: {eps}  ", path.read_text())
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        config.load(config.Params, path)
    assert caught.value.cause == f"line {_line(path, 'eps:')}: {said}"


def test_missing_keys_name_the_line_of_their_group(path: Path) -> None:
    path.write_text(re.sub(r"(?m)^ *(momentum|seed|norm):.*\n", "", path.read_text()))
    with pytest.raises(BadInput) as caught:
        config.load(config.Params, path)
    assert caught.value.cause.splitlines() == [  # what has no default is missed first
        "there are 2 faults",
        "  - missing key 'seed'",
        f"  - line {_line(path, 'threat:')}: missing key 'threat.norm'",
    ]
    path.write_text(path.read_text().replace("threat:", "seed: 1\nthreat:\n  norm: linf"))
    with pytest.raises(BadInput) as caught:
        config.load(config.Params, path)
    below = _line(path, "training:", "student:")
    assert f"  - line {below}: missing key 'student.training.momentum'" in caught.value.cause.splitlines()


def test_options_of_a_method_have_lines_too(path: Path) -> None:
    path.write_text(re.sub(r"(?m)^(    temperature:) [^#]*", r"\1 hot  ", path.read_text()))
    params, lines = config.load(config.Params, path), strict_yaml.read(path)[1]
    with pytest.raises(BadInput) as caught:
        recipes.specs.complete(config.dump(params), "params.yaml", lines)
    line = _line(path, "temperature:", "student:")
    assert caught.value.cause == f"line {line}: 'temperature' must be a number, is 'hot'"
    path.write_text(re.sub(r"(?m)^(      name:) pgd", r"\1 pdg", path.read_text().replace(" hot ", " 1.0 ")))
    with pytest.raises(BadInput, match="unknown attack 'pdg'") as caught:
        recipes.specs.complete(config.dump(config.load(config.Params, path)), "params.yaml", lines)
    assert ", line " in caught.value.where


def test_aliases_cannot_make_a_file_endless(path: Path) -> None:
    path.write_text(
        "a: &a [1, 1]\n" + "".join(f"{c}: &{c} [*{chr(ord(c) - 1)}, *{chr(ord(c) - 1)}]\n" for c in "bcdefgh")
    )
    assert len(strict_yaml.read(path)[1]) < 50
    path.write_text("a: &a\n  b: *a\n")
    assert strict_yaml.read(path)[1] == {("a",): 1, ("a", "b"): 2}


@pytest.mark.parametrize(
    ("text", "said"),
    [("a: 1\nb: [\n", "line 3: "), ("a: 1\na: 2\n", "line 2: 'a' is given twice"), ("? [a]\n: 1\n", "line 1: ")],
)
def test_what_is_no_yaml_names_its_line(path: Path, text: str, said: str) -> None:
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        config.load(config.Params, path)
    assert said in caught.value.cause and caught.value.fix


@pytest.mark.parametrize("text", ["- a list\n", "a: [\n", "\x00", ""])
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
