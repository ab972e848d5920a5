"""Recipes: sparse starting points for params.yaml and policy.yaml, expanded to complete, commented files by `init`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from robustdistill import config
from robustdistill.errors import BadInput, unknown
from robustdistill.recipes import specs

COMMENT_COLUMN = 36
NAME_RULE = "a letter, then letters, digits, - and _; 63 characters at most"
RESIZE_RULE = "give the edge in pixels, as a whole number"
HEADERS: dict[type[BaseModel], str] = {
    config.Params: "Everything that changes a model. The file is complete: a missing or unknown key is an error.\n"
    "# A wrong name or option is answered with the valid ones. After an edit, run the flow: it runs what changed.",
    config.Policy: "What is demanded of a model. A change here decides anew and retrains nothing.",
}


@dataclass(frozen=True)
class Recipe:
    """A named, complete configuration. `needs_path`: the user's own data is the only data it has."""

    name: str
    about: str
    params: config.Params
    policy: config.Policy
    needs_path: bool


def names() -> list[str]:
    return sorted(entry.name.removesuffix(".yaml") for entry in files(__package__).iterdir() if _is_recipe(entry.name))


def _is_recipe(name: str) -> bool:
    return name.endswith(".yaml") and name != "dvc.yaml"


def load(name: str, *, model_name: str | None = None, resize: int | None = None) -> Recipe:
    """The recipe with every default filled in. model_name: of the registered model, resize: data.resize; default the
    recipe's.

    Raises BadInput that lists the choices, or names the option of `init` that cannot be used.
    """
    if name not in names():
        raise unknown("recipe", name, names(), where="--recipe")
    where = f"recipes/{name}.yaml"
    content: dict[str, Any] = yaml.safe_load(files(__package__).joinpath(f"{name}.yaml").read_text(encoding="utf-8"))
    settings = specs.complete({"name": name, **content["params"]}, where)
    params = config.options(config.Params, settings, where=where)
    if model_name is not None:
        params = _with(params, {"name": model_name}, "--name", NAME_RULE)
    if resize is not None:
        params = _with(params, {"data": config.dump(params.data) | {"resize": resize}}, "--resize", RESIZE_RULE)
    policy = config.options(config.Policy, content["policy"], where=where)
    return Recipe(name, content["about"], params, policy, bool(content.get("needs_path", False)))


def _with(params: config.Params, changed: dict[str, Any], option: str, fix: str) -> config.Params:
    try:
        return config.options(config.Params, config.dump(params) | changed, where=option)
    except BadInput as error:
        raise BadInput(error.cause, where=error.where, fix=fix) from error


def pipeline() -> str:
    """dvc.yaml, the same for every recipe."""
    return files(__package__).joinpath("dvc.yaml").read_text(encoding="utf-8")


def write(recipe: Recipe, folder: Path) -> None:
    """params.yaml, policy.yaml and dvc.yaml into a folder."""
    (folder / "params.yaml").write_text(render(recipe.params), encoding="utf-8")
    (folder / "policy.yaml").write_text(render(recipe.policy), encoding="utf-8")
    (folder / "dvc.yaml").write_text(pipeline(), encoding="utf-8")


def render(settings: BaseModel) -> str:
    """YAML with each key's description behind it. Reads back as the equal config."""
    return f"# {HEADERS[type(settings)]}\n" + "\n".join(_lines(settings, "")) + "\n"


def _lines(settings: BaseModel, indent: str) -> list[str]:
    plain, lines = config.dump(settings), []
    for key, field in type(settings).model_fields.items():
        value = getattr(settings, key)
        if isinstance(value, BaseModel):
            lines += [_commented(f"{indent}{key}:", field.description), *_lines(value, indent + "  ")]
        elif key in specs.KINDS:
            lines += [_commented(f"{indent}{key}:", field.description), *_spec_lines(key, value, indent + "  ")]
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            lines.append(_commented(f"{indent}{key}:", field.description))
            lines += [f"{indent}  - {_flow(item)}" for item in plain[key]]
        else:
            lines.append(_commented(f"{indent}{key}: {_flow(plain[key])}", field.description))
    return lines


def _spec_lines(kind: str, spec: config.Spec, indent: str) -> list[str]:
    return [f"{indent}name: {spec['name']}", *_lines(specs.config_of(kind, spec, kind), indent)]


def _flow(value: Any) -> str:
    """One value on one line."""
    return yaml.safe_dump([value], default_flow_style=True, width=10**9, sort_keys=False).strip()[1:-1]


def _commented(line: str, description: str | None) -> str:
    return f"{line:<{COMMENT_COLUMN}}  # {description}" if description else line
