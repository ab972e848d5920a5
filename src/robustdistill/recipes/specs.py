"""Options of models, objectives and attacks with their defaults filled in, so that a workspace's params are complete.

Each option is then a key that can be read, edited, and set with `dvc exp run -S student.objective.weight=0.5`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from robustdistill import registry, strict_yaml
from robustdistill.config import Params, Spec, dump
from robustdistill.strict_yaml import Lines

KINDS = ("model", "objective", "base", "attack")  # base: the objective that another one is added to


def config_of(kind: str, spec: Spec, where: str, lines: Lines | None = None) -> BaseModel:
    """The checked options of a spec, with every default. Raises BadInput for an unknown name or option."""
    from robustdistill.attacks import ATTACKS
    from robustdistill.models import MODELS
    from robustdistill.objectives import OBJECTIVES

    tables: dict[str, Any] = {"model": MODELS, "objective": OBJECTIVES, "base": OBJECTIVES, "attack": ATTACKS}
    config: BaseModel = registry.resolve(kind, tables[kind], spec, where=where, lines=lines)[1]
    return config


def _expanded(kind: str, spec: Spec, where: str, lines: Lines) -> Spec:
    options = dump(config_of(kind, spec, where, lines))
    return {"name": spec["name"], **options}


def complete(content: dict[str, Any], where: str, lines: Lines | None = None) -> dict[str, Any]:
    """The same mapping with every model, objective and attack in it expanded, however deep.

    lines: of the keys of `content`, if it was read from a file. Raises BadInput that names the key below `where`.
    """
    done: dict[str, Any] = {}
    for key, value in content.items():
        place, below = f"{where}: {key}", _below(lines or {}, key)
        if key in KINDS and isinstance(value, dict):
            done[key] = complete(_expanded(key, value, place, below), place, below)
        elif key == "attacks" and isinstance(value, list):
            done[key] = [_expanded("attack", spec, place, _below(below, i)) for i, spec in enumerate(value)]
        else:
            done[key] = complete(value, place, below) if isinstance(value, dict) else value
    return done


def require_complete(path: Path, params: Params) -> None:
    """Raises BadInput for a name or option of a model, objective or attack in params.yaml that nothing here has."""
    complete(dump(params), path.name, strict_yaml.read(path)[1])


def _below(lines: Lines, key: str | int) -> Lines:
    """The lines of what is in `key`, and of the key itself under ()."""
    return {place[1:]: line for place, line in lines.items() if place[:1] == (key,)}
