"""Uses a teacher that was not trained here: copies its weights under their content hash and pins that hash.

The pin is what the teacher stage reads, so that DVC runs it again when another teacher is chosen.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from robustdistill.actions import edit_params
from robustdistill.errors import BadInput
from robustdistill.workspace import Workspace, write_atomically

if TYPE_CHECKING:
    from robustdistill.data.seen import Seen
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

    return _import(workspace, files.load_file(weights, settings), role, weights.name, "file", _seen_by_file(weights))


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
    seen: list[Seen] = []
    for what in whats:
        if source == "file":
            found.append((files.load_file(Path(what), settings), files.digest(Path(what))))
            seen.append(_seen_by_file(Path(what)))
        else:
            folder = _version(workspace, what)
            found.append((files.load(folder), files.digest(folder / "model.safetensors")))
            seen.append(_seen_by(folder, what))
    names = [Path(what).name if source == "file" else what for what in whats]
    origin = f"mean of {', '.join(names)}"
    return _import(workspace, ensemble.average(found), role, origin, source, reduce(or_, seen))


def use_folder(workspace: Workspace, folder: Path, *, role: Role, origin: str) -> str:
    """A teacher from a folder with model.safetensors and model.json, such as a registered version's; its sha256."""
    from robustdistill.models import weights as files

    files.load(folder)
    digest = files.digest(folder / "model.safetensors")
    return _keep(workspace, folder, digest, role, origin, "registry", _seen_by(folder, origin))


def use_none(workspace: Workspace) -> None:
    """Back to a teacher that is trained here, from drawn weights."""
    _write_pin(workspace, NO_PIN)
    _set(workspace, source="train", warm_start="none")


def keep(workspace: Workspace) -> None:
    """Keeps the weights of the present teacher beyond the next training, so that a later one may begin from them."""
    folder = workspace.out("teacher")
    _copy(workspace, folder, str(_json(folder / "model.json")["sha256"]))


def begin_from(workspace: Workspace, digest: str, champion: Path) -> bool:
    """Pins the champion's teacher as what the next training begins from; False if it was not kept here.

    champion: its exported model, which names what it saw, through its teacher too.
    """
    from robustdistill.stages.teacher import CHAMPIONS

    kept = (workspace.imports / digest / "model.safetensors").is_file()
    if kept:
        _pin(workspace, digest, "start", CHAMPIONS, _seen_by(champion, CHAMPIONS))
    return kept


def _seen_by_file(weights: Path) -> Seen:
    return _seen_by(weights.parent if weights.name == "model.safetensors" else None, weights.name)


def _seen_by(folder: Path | None, origin: str) -> Seen:
    """What an exported model was trained on, as it says itself; of other weights nobody knows. Raises BadInput."""
    from robustdistill.actions import package
    from robustdistill.data.seen import Seen, read_ids, unknown_of

    if folder is None or not (folder / "export.json").is_file():
        return Seen(unknown=(origin,))
    record = package.require_whole(folder)
    return Seen(read_ids(folder / "trained_on.npy"), unknown_of(record))


def _version(workspace: Workspace, what: str) -> Path:
    """The folder of the registered model NAME/VERSION or NAME/ALIAS."""
    from robustdistill.actions.serving import registered_folder

    name, _, version = what.partition("/")
    if not name or not version:
        fix = f"NAME/VERSION or NAME/ALIAS, such as {workspace.name}/champion"
        raise BadInput(f"{what!r} names no version", where="teacher use registry", fix=fix)
    return registered_folder(workspace, name, int(version) if version.isdigit() else version)


def _import(workspace: Workspace, model: Classifier, role: Role, origin: str, source: Source, seen: Seen) -> str:
    from robustdistill.models import weights as files

    scratch = workspace.imports / f".new.{os.getpid()}.part"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        return _keep(workspace, scratch, files.save(model, scratch), role, origin, source, seen)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _copy(workspace: Workspace, folder: Path, digest: str) -> None:
    """Under their hash. The same weights with another description (shape, mean, std) take over that one."""
    kept = workspace.imports / digest
    if kept.exists():
        described = (folder / "model.json").read_text(encoding="utf-8")
        if described != (kept / "model.json").read_text(encoding="utf-8"):
            write_atomically(kept / "model.json", described)
        return
    part = workspace.imports / f".{digest}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name in ("model.safetensors", "model.json"):
        shutil.copyfile(folder / name, part / name)
    part.rename(kept)


def _keep(workspace: Workspace, folder: Path, digest: str, role: Role, origin: str, source: Source, seen: Seen) -> str:
    _copy(workspace, folder, digest)
    _pin(workspace, digest, role, origin, seen)
    if role == "teacher":
        _set(workspace, source=source)
    else:
        _set(workspace, source="train", warm_start="pinned")
    return digest


def _pin(workspace: Workspace, digest: str, role: Role, origin: str, seen: Seen) -> None:
    """Pins kept weights, with the hash of the list of what they saw, which is kept beside them under that hash."""
    from robustdistill.models import weights as files

    known = _keep_ids(workspace.imports / digest, seen) if len(seen.ids) else None
    described = files.digest(workspace.imports / digest / "model.json")
    record = {"sha256": digest, "description": described, "role": role, "origin": origin}
    _write_pin(workspace, record | {"trained_on": known, "unknown": list(seen.unknown)})


def _keep_ids(folder: Path, seen: Seen) -> str:
    from robustdistill.data.files import write_npy
    from robustdistill.models import weights as files

    part = folder / f".{os.getpid()}.npy"
    write_npy(part, seen.ids)
    digest = files.digest(part)
    part.replace(folder / f"{digest}.npy")
    return digest


def _write_pin(workspace: Workspace, record: dict[str, Any]) -> None:
    write_atomically(workspace.pin, json.dumps(record, indent=2, sort_keys=True) + "\n")


def _set(workspace: Workspace, **values: str) -> None:
    """Keys of params.yaml's teacher; the rest of the file, comments included, stays as it is."""
    write_atomically(workspace.root / "params.yaml", edit_params.with_values(workspace, "teacher", **values))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"not JSON: {error}", where=str(path)) from error
    if not isinstance(content, dict):
        raise BadInput("expected a JSON object", where=str(path))
    return content
