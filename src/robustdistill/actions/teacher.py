"""Uses a teacher that was not trained here: copies its weights under their content hash and pins that hash.

The pin is what the teacher stage reads, so that DVC runs it again when another teacher is chosen.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from robustdistill.errors import BadInput
from robustdistill.workspace import Workspace, write_atomically

if TYPE_CHECKING:
    from robustdistill.models import Classifier

Role = Literal["teacher", "start"]
Source = Literal["file", "registry"]
NO_PIN: dict[str, Any] = {"origin": None, "role": None, "sha256": None}


def use_file(workspace: Workspace, weights: Path, settings: Path | None = None, *, role: Role = "teacher") -> str:
    """A teacher from a safetensors file; returns its sha256.

    settings: JSON with its architecture, shape, classes, mean, std, low and high; default: the same name with .json.
    role: "teacher" uses it as it is; "start" only begins the training from it. Raises BadInput if it cannot be loaded.
    """
    from robustdistill.models import weights as files

    return _import(workspace, files.load_file(weights, settings), role, weights.name, "file")


def use_registry(workspace: Workspace, what: str, *, role: Role = "teacher") -> str:
    """A teacher from the registry, named NAME/VERSION or NAME/ALIAS; returns its sha256. Raises BadInput."""
    return use_folder(workspace, _version(workspace, what), role=role, origin=what)


def use_mean(
    workspace: Workspace, source: Source, whats: Sequence[str], settings: Path | None = None, *, role: Role = "teacher"
) -> str:
    """Several teachers as one that answers with the mean of their probabilities; returns the sha256 of that one.

    whats: what `use_file` or `use_registry` would be given; settings: of all the files. Which weights went into it is
    recorded in its description. Raises BadInput if one cannot be loaded or they are not made for the same data.
    """
    from robustdistill.models import ensemble
    from robustdistill.models import weights as files

    found: list[tuple[Classifier, str]] = []
    for what in whats:
        if source == "file":
            found.append((files.load_file(Path(what), settings), files.digest(Path(what))))
        else:
            folder = _version(workspace, what)
            found.append((files.load(folder), files.digest(folder / "model.safetensors")))
    names = [Path(what).name if source == "file" else what for what in whats]
    return _import(workspace, ensemble.average(found), role, f"mean of {', '.join(names)}", source)


def use_folder(workspace: Workspace, folder: Path, *, role: Role, origin: str) -> str:
    """A teacher from a folder with model.safetensors and model.json, such as a registered version's; its sha256."""
    from robustdistill.models import weights as files

    files.load(folder)
    digest = files.digest(folder / "model.safetensors")
    return _keep(workspace, folder, digest, role, origin, "registry")


def use_none(workspace: Workspace) -> None:
    """Back to a teacher that is trained here, from drawn weights."""
    _pin(workspace, NO_PIN)
    _set(workspace, source="train", warm_start="none")


def keep(workspace: Workspace) -> None:
    """Keeps the weights of the present teacher beyond the next training, so that a later one may begin from them."""
    folder = workspace.out("teacher")
    _copy(workspace, folder, str(_json(folder / "model.json")["sha256"]))


def begin_from(workspace: Workspace, digest: str) -> bool:
    """Pins kept weights as those the next training begins from; False if they were not kept here."""
    kept = (workspace.imports / digest / "model.safetensors").is_file()
    if kept:
        _pin(workspace, {"sha256": digest, "role": "start", "origin": "the champion's teacher"})
    return kept


def _version(workspace: Workspace, what: str) -> Path:
    """The folder of the registered model NAME/VERSION or NAME/ALIAS."""
    from robustdistill.actions.serving import registered_folder

    name, _, version = what.partition("/")
    if not name or not version:
        fix = f"NAME/VERSION or NAME/ALIAS, such as {workspace.name}/champion"
        raise BadInput(f"{what!r} names no version", where="teacher use registry", fix=fix)
    return registered_folder(workspace, name, int(version) if version.isdigit() else version)


def _import(workspace: Workspace, model: Classifier, role: Role, origin: str, source: Source) -> str:
    from robustdistill.models import weights as files

    scratch = workspace.imports / f".new.{os.getpid()}.part"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        return _keep(workspace, scratch, files.save(model, scratch), role, origin, source)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _copy(workspace: Workspace, folder: Path, digest: str) -> None:
    kept = workspace.imports / digest
    if kept.exists():
        return
    part = workspace.imports / f".{digest}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name in ("model.safetensors", "model.json"):
        shutil.copyfile(folder / name, part / name)
    part.rename(kept)


def _keep(workspace: Workspace, folder: Path, digest: str, role: Role, origin: str, source: Source) -> str:
    _copy(workspace, folder, digest)
    _pin(workspace, {"sha256": digest, "role": role, "origin": origin})
    if role == "teacher":
        _set(workspace, source=source)
    else:
        _set(workspace, source="train", warm_start="champion")
    return digest


def _pin(workspace: Workspace, record: dict[str, Any]) -> None:
    write_atomically(workspace.pin, json.dumps(record, indent=2, sort_keys=True) + "\n")


def _set(workspace: Workspace, **values: str) -> None:
    """Keys of params.yaml's teacher; the rest of the file, comments included, stays as it is."""
    path = workspace.root / "params.yaml"
    text = path.read_text(encoding="utf-8")
    for key, value in values.items():
        text = re.sub(rf"(?ms)(^teacher:$.*?^  {key}: *)\w+", rf"\g<1>{value}", text, count=1)
    write_atomically(path, text)
    teacher = workspace.params().teacher
    for key, value in values.items():
        if getattr(teacher, key) != value:
            raise BadInput(f"teacher.{key} could not be set", where=str(path), fix=f"set it by hand: {key}: {value}")


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"not JSON: {error}", where=str(path)) from error
    if not isinstance(content, dict):
        raise BadInput("expected a JSON object", where=str(path))
    return content
