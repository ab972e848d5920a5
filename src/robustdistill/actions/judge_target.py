"""What can be judged, by how it is named: an export, a registered version, a run's files, weights, ONNX, own code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustdistill.actions.judge_anew import command
from robustdistill.attacks import Access
from robustdistill.data.examples import Examples
from robustdistill.engine.devices import Compute
from robustdistill.errors import BadInput
from robustdistill.inputs import shown
from robustdistill.inputs.pixels import to_unit
from robustdistill.judge import foreign
from robustdistill.judge.served import Served
from robustdistill.judge.subject import Subject, numbered
from robustdistill.models import weights
from robustdistill.rng import seeded
from robustdistill.workspace import Workspace

KINDS = (
    "an export folder, FILE.safetensors with --config FILE.json, FILE.onnx, models:/NAME/VERSION, NAME@champion, "
    "runs:/ID/path, or package.module:factory"
)
PROBED = 8  # examples that a model is asked about before anything else


@dataclass(frozen=True)
class Place:
    """Where targets are looked up. workspace: whose registry is meant. scratch: for downloads if there is none."""

    workspace: Workspace | None
    scratch: Path
    compute: Compute
    config: Path | None = None


Open = Callable[[Examples], Subject]


def find(target: str, place: Place, twin: str | None = None) -> Open:
    """How to open `target` once the data are known. Raises BadInput for a name that says nothing."""
    if Path(target).suffix == ".onnx":
        return _onnx(_file(target), place, twin)
    if twin:
        raise BadInput("only an ONNX file has a twin", where="--twin", fix="leave it out, or name FILE.onnx")
    if target.startswith(("models:/", "runs:/")) or (not Path(target).exists() and _alias(target)):
        return _export(_registered(target, place), place)
    if Path(target).suffix == ".safetensors":
        return _weights(_file(target), place)
    if Path(target).is_dir():
        return _export(Path(target), place)
    if ":" in target and not Path(target).exists():
        return _module(target, place)
    raise BadInput(f"{shown(target)!r} is nothing that can be judged", where="TARGET", fix=f"name {KINDS}")


def short_name(target: str) -> str:
    """A plain name for a folder of results."""
    name = Path(target).resolve().stem if Path(target).exists() else target.rpartition(":/")[2]
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)[:60].strip("-") or "model"


def _file(target: str) -> Path:
    if not Path(target).is_file():
        raise BadInput("there is no such file", where=shown(target), fix="check its name and the current folder")
    return Path(target)


def _alias(target: str) -> bool:
    name, at, alias = target.partition("@")
    return bool(name and at and alias) and ":" not in target


def _export(folder: Path, place: Place) -> Open:
    below = sorted(item for item in folder.iterdir() if item.is_dir())
    for found in (folder, *below):
        if (found / "export.json").is_file():
            return lambda examples: Subject.open(found, place.compute)
    raise BadInput("not an export: it holds no export.json", where=shown(folder), fix="name a folder export/MODEL")


def _weights(path: Path, place: Place) -> Open:
    model, sha256 = weights.load_file(path, place.config), weights.digest(path)

    def opened(examples: Examples) -> Subject:
        names = _names(examples, model.spec.classes, str(path))
        found = Subject.of_classifier(model, sha256, place.compute.device, names=names)
        return replace(found, anew=command(str(path), place))

    return opened


def _registered(target: str, place: Place) -> Path:
    """The files of a registered version or of a run, on this machine."""
    from robustdistill.actions.champion import require
    from robustdistill.services.mlflow_store import Store

    work = place.workspace.work if place.workspace else place.scratch
    if place.workspace is None and not os.environ.get("MLFLOW_TRACKING_URI"):
        fix = "name it with --workspace DIR, or set MLFLOW_TRACKING_URI"
        raise BadInput(f"{target} is looked up in a registry, and there is none here", where="TARGET", fix=fix)
    store = Store.open(None, work)
    if target.startswith("runs:/"):
        return store.registry.download_from(target, place.scratch / "run")
    name, version = _version(target.removeprefix("models:/"))
    return require(store, name, version, work / "models")


def _version(text: str) -> tuple[str, str]:
    """NAME/VERSION or NAME@ALIAS."""
    name, _, version = text.partition("@" if "@" in text else "/")
    if not name or not version:
        raise BadInput(f"{text!r} names no version", where="TARGET", fix="NAME/VERSION or NAME@ALIAS")
    return name, version


def _onnx(path: Path, place: Place, twin: str | None) -> Open:
    open_twin, anew = find(twin, place) if twin else None, command(str(path), place, twin)

    def opened(examples: Examples) -> Subject:
        if open_twin is not None:
            weights = open_twin(examples)
            if weights.access < Access.GRADIENT:
                raise BadInput(
                    "a twin is there for its gradients, which this gives none of",
                    where="--twin",
                    fix="FILE.safetensors or package.module:factory",
                )
            return replace(weights.as_file(path, place.compute), anew=anew)
        columns = foreign.columns(Served.foreign(path, place.compute.threads, examples.shape), _probe(examples))
        names = _names(examples, columns, str(path))
        return replace(Subject.of_file(path, place.compute, shape=examples.shape, names=names), anew=anew)

    return opened


def _module(target: str, place: Place) -> Open:
    module = _made(target)

    def opened(examples: Examples) -> Subject:
        module.to(place.compute.device).eval()
        columns = foreign.columns(module, _probe(examples).to(place.compute.device))
        names = _names(examples, columns, target)
        found = Subject.of_module(
            module, shape=examples.shape, classes=columns, names=names, device=place.compute.device
        )
        return replace(found, anew=command(target, place))

    return opened


def _made(target: str) -> nn.Module:
    """The user's model. Importing runs the user's code: the name on the command line asks for it."""
    found = _imported(target)
    if isinstance(found, nn.Module):
        return found
    if not callable(found):
        raise BadInput(f"{target} is no function but {type(found).__name__}", where="TARGET", fix="name a factory")
    try:
        with seeded("judge", "factory"):
            made = found()
    except (Exception, SystemExit) as error:  # the user's own code
        raise foreign.failed(f"{target} failed", error) from error
    if not isinstance(made, nn.Module):
        kind = type(made).__name__
        raise BadInput(f"{target} returns {kind}, not a torch.nn.Module", where="TARGET", fix="return the model itself")
    return made


def _imported(target: str) -> Any:
    name, _, path = target.partition(":")
    if not all(part.isidentifier() for part in (*name.split("."), *path.split("."))):
        raise BadInput(f"{shown(target)!r} names no function", where="TARGET", fix="write package.module:factory")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        with seeded("judge", "import"):
            module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not error.name or not f"{name}.".startswith(f"{error.name}."):
            raise foreign.failed(f"importing {name} failed", error) from error
        fix = f"run it where {name.split('.')[0]}.py or the package lies, or put that folder on PYTHONPATH"
        raise BadInput(f"there is no module {error.name}", where="TARGET", fix=fix) from error
    except (Exception, SystemExit) as error:
        raise foreign.failed(f"importing {name} failed", error) from error
    try:
        return reduce(getattr, path.split("."), module)
    except AttributeError as error:
        raise BadInput(
            f"module {name} has no {path}", where=shown(str(module.__file__)), fix="check the name"
        ) from error


def _probe(examples: Examples) -> torch.Tensor:
    x = examples.x[:PROBED]
    return torch.from_numpy(to_unit(x) if x.dtype.kind == "u" else x)


def _names(examples: Examples, columns: int, where: str) -> list[str]:
    """Names of the model's classes. Raises BadInput where the labels need more classes than the model has."""
    needed = len(examples.names) if examples.names is not None else int(examples.y.max()) + 1
    if needed > columns or (examples.names is not None and needed != columns):
        raise BadInput(
            f"the model tells {columns} classes apart, the data have {needed}",
            where=where,
            fix="judge a model on the data it was made for; labels are counted from 0",
        )
    return numbered(columns) if examples.names is None else list(examples.names)
