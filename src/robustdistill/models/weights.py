"""Weights on disk: safetensors (data only, no code) beside the spec as JSON. Hashes are checked at every load."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from robustdistill.errors import BadInput
from robustdistill.models import build
from robustdistill.models.classifier import Classifier
from robustdistill.models.spec import EXAMPLE, ModelSpec

FORMAT = 1
WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name
LONGEST_SPEC = 1 << 20  # bytes; a spec has a few hundred
NO_WEIGHTS = "name an existing .safetensors file: safetensors.torch.save_file(model.state_dict(), FILE) writes one"
DESCRIBE = f"describe the model in it as JSON, such as {EXAMPLE}"


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
        part.chmod(path.parent.stat().st_mode & 0o666)  # safetensors' files are for their owner alone
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
        raise BadInput("there are no weights", where=str(path), fix=NO_WEIGHTS) from error
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
    return _load(folder / f"{stem}.safetensors", folder / f"{stem}.json")


def _load(weights: Path, described: Path) -> Classifier:
    record = _read_json(described)
    if record.get("format") != FORMAT or not isinstance(record.get("spec"), dict):
        cause = f"this does not describe a model as version {FORMAT} of the format does"
        raise BadInput(cause, where=str(described), fix=f"restore the file, or {DESCRIBE}")
    if not weights.is_file():
        raise BadInput("there are no weights", where=str(weights), fix="restore the file, or train again")
    if digest(weights) != record.get("sha256"):
        raise BadInput(
            f"the weights are not those that {described} names: changed, damaged or exchanged",
            where=str(weights),
            fix="restore the file, or train again",
        )
    return _fill(record["spec"], weights, described)


def load_foreign(weights: Path, config: Path) -> Classifier:
    """A model trained elsewhere, in eval mode.

    config: JSON with architecture (or model), shape, classes, low, high, mean, std. Names of weights may carry the
    prefix of a wrapper (`module.` of DataParallel) or lack the prefix of ours.
    """
    record = _read_json(config)
    if "architecture" in record:
        if "model" in record:
            raise BadInput("'architecture' and 'model' mean the same", where=str(config), fix="remove one of them")
        record["model"] = record.pop("architecture")
    return _fill(record, weights, config, foreign=True)


def load_file(weights: Path, config: Path | None = None) -> Classifier:
    """The model in any safetensors file, ours or foreign, in eval mode. config: its JSON; default: beside it."""
    described = config or weights.with_suffix(".json")
    if not weights.is_file():
        raise BadInput("there is no such file", where=str(weights), fix=NO_WEIGHTS)
    if not described.is_file():
        fix = f"give --config FILE and {DESCRIBE}"
        raise BadInput("there is no description of the model", where=str(described), fix=fix)
    return _load(weights, described) if "spec" in _read_json(described) else load_foreign(weights, described)


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


@contextmanager
def _described(path: Path) -> Iterator[None]:
    """Says of what is wrong with a spec in which file it stands."""
    try:
        yield
    except BadInput as error:
        raise BadInput(error.cause, where=f"{path}: {error.where}", fix=error.fix) from error


def _fill(record: Mapping[str, Any], where: Path, described: Path, *, foreign: bool = False) -> Classifier:
    """The model that `record` of the file `described` says, with the weights at `where`."""
    with _described(described):
        spec = ModelSpec.from_json(record)
        model = build(spec, 0, "load")
    tensors, wanted = read_tensors(where), model.state_dict()
    if foreign:
        names = rename(list(tensors), list(wanted))
        if len(set(names.values())) < len(names):
            fix = f"keep one of both: {' and '.join(WRAPPERS)} before a name are dropped"
            raise BadInput("two weights differ only in the prefix of a wrapper", where=str(where), fix=fix)
        tensors = {names[name]: tensor for name, tensor in tensors.items()}
    fault = _misfit(wanted, tensors)
    if fault:
        raise BadInput(
            f"these are not the weights of {spec.model['name']}: {fault}",
            where=str(where),
            fix=f"the architecture, its options, shape and classes in {described} must be those it was trained with",
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
            raise BadInput("too long for the description of a model", where=str(path), fix=DESCRIBE)
        record = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except FileNotFoundError as error:
        raise BadInput("there is no description of the model", where=str(path), fix=DESCRIBE) from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not JSON: {error}", where=str(path), fix=DESCRIBE) from error
    if not isinstance(record, dict):
        raise BadInput("not the description of a model: no JSON object", where=str(path), fix=DESCRIBE)
    return record


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which a key that is given twice is an error: the second would silently win."""
    record: dict[str, Any] = {}
    for key, value in pairs:
        if key in record:
            raise ValueError(f"key {key!r} is given twice")
        record[key] = value
    return record


def _write_json(path: Path, record: Mapping[str, Any]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(record, sort_keys=True, indent=2) + "\n", encoding="utf-8")
    part.replace(path)
