"""Weights on disk: safetensors (data only, no code) beside the spec as JSON. Hashes are checked at every load."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from robustdistill.errors import BadInput
from robustdistill.models import build
from robustdistill.models.classifier import Classifier
from robustdistill.models.spec import ModelSpec

FORMAT = 1
WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name
LONGEST_SPEC = 1 << 20  # bytes; a spec has a few hundred


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Atomically, and byte for byte the same for the same tensors: contiguous, on the CPU, no metadata.

    Raises OSError that names the file.
    """
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        safetensors.torch.save_file(plain, part)
        part.replace(path)
    except safetensors.SafetensorError as error:
        raise _of_system(error, path) from error
    finally:
        part.unlink(missing_ok=True)


def _of_system(error: safetensors.SafetensorError, path: Path) -> Exception:
    """What the system said to safetensors, which tells it in words only, as an OSError again."""
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1])), str(path)) if number else error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises BadInput for any other file, pickles included."""
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise BadInput("there are no weights", where=str(path)) from error
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise BadInput(
            f"not a safetensors file, or a damaged one: {error}",
            where=str(path),
            fix="weights are read as safetensors only; convert with safetensors.torch.save_file(model.state_dict(), …)",
        ) from error


def save(model: Classifier, folder: Path, stem: str = "model") -> str:
    """Writes <stem>.safetensors and <stem>.json. Returns the SHA-256 of the weights."""
    weights = folder / f"{stem}.safetensors"
    write_tensors(model.state_dict(), weights)
    sha256 = digest(weights)
    _write_json(folder / f"{stem}.json", {"format": FORMAT, "sha256": sha256, "spec": model.spec.to_json()})
    return sha256


def load(folder: Path, stem: str = "model") -> Classifier:
    """The saved model, in eval mode. Raises BadInput if anything is missing, damaged or does not fit together."""
    weights, described = folder / f"{stem}.safetensors", folder / f"{stem}.json"
    record = _read_json(described)
    if record.get("format") != FORMAT or not isinstance(record.get("spec"), dict):
        raise BadInput("not the description of a model of this version", where=str(described))
    if not weights.is_file():
        raise BadInput("there are no weights", where=str(weights))
    if digest(weights) != record.get("sha256"):
        raise BadInput(
            "the weights are not those that the description names: changed, damaged or exchanged",
            where=str(weights),
            fix="restore the file, or train again",
        )
    return _fill(ModelSpec.from_json(record["spec"]), read_tensors(weights), weights)


def load_foreign(weights: Path, config: Path) -> Classifier:
    """A model trained elsewhere, in eval mode.

    config: JSON with architecture (or model), shape, classes, low, high, mean, std. Names of weights may carry the
    prefix of a wrapper (`module.` of DataParallel) or lack the prefix of ours.
    """
    record = dict(_read_json(config))
    if "architecture" in record:
        record["model"] = record.pop("architecture")
    spec = ModelSpec.from_json(record)
    return _fill(spec, read_tensors(weights), weights, foreign=True)


def load_file(weights: Path, config: Path | None = None) -> Classifier:
    """The model in any safetensors file, ours or foreign, in eval mode. config: its JSON; default: beside it."""
    beside = config or weights.with_suffix(".json")
    for path in (weights, beside):
        if not path.is_file():
            fix = "give its architecture in a JSON file: --config FILE" if path == beside else ""
            raise BadInput("there is no such file", where=str(path), fix=fix)
    ours = "spec" in _read_json(beside)
    return load(weights.parent, weights.stem) if ours else load_foreign(weights, beside)


def rename(names: list[str], wanted: list[str]) -> dict[str, str]:
    """Foreign name -> ours: drops the wrapper's prefixes, then adds the one prefix of ours that makes them fit."""
    bare = {name: _bare(name) for name in names}
    for prefix in ("", "net.", "net.body."):
        if {prefix + name for name in bare.values()} == set(wanted):
            return {name: prefix + short for name, short in bare.items()}
    return bare


def _bare(name: str) -> str:
    while name.startswith(WRAPPERS):
        name = name.partition(".")[2]
    return name


def _fill(spec: ModelSpec, tensors: dict[str, Tensor], where: Path, *, foreign: bool = False) -> Classifier:
    model = build(spec, 0, "load")
    wanted = model.state_dict()
    if foreign:
        names = rename(list(tensors), list(wanted))
        if len(set(names.values())) < len(names):
            raise BadInput("two weights differ only in the prefix of a wrapper", where=str(where))
        tensors = {names[name]: tensor for name, tensor in tensors.items()}
    fault = _misfit(wanted, tensors)
    if fault:
        raise BadInput(
            f"these are not the weights of {spec.model['name']}: {fault}",
            where=str(where),
            fix="the architecture, its options, shape and classes must be those it was trained with",
        )
    model.load_state_dict(tensors)
    return model.eval()


def _misfit(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    missing, extra = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    if missing or extra:
        what, names = ("without", missing) if missing else ("with an unknown", extra)
        return f"{what} {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
    for name, tensor in given.items():
        if tensor.shape != wanted[name].shape:
            return f"{name} has shape {tuple(tensor.shape)}, not {tuple(wanted[name].shape)}"
        if tensor.is_floating_point() != wanted[name].is_floating_point():
            return f"{name} is of type {tensor.dtype}"
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            return f"{name} holds numbers that are not finite"
    return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LONGEST_SPEC:
            raise BadInput("too long for the description of a model", where=str(path))
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput("there is no description of the model", where=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not JSON: {error}", where=str(path)) from error
    if not isinstance(record, dict):
        raise BadInput("not the description of a model", where=str(path))
    return record


def _write_json(path: Path, record: Mapping[str, Any]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(record, sort_keys=True, indent=2) + "\n", encoding="utf-8")
    part.replace(path)
