"""Every finished student becomes a version of NAME-candidates; an unchanged one makes no new version."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustdistill.actions import package
from robustdistill.errors import BadInput
from robustdistill.runtime.reading import reading
from robustdistill.services.mlflow_store import Store

SHA = "robustdistill.sha256"  # of the file that is served
READ = "robustdistill.config_sha256"  # of class names, input range and scaling; older versions lack it
CLEAN, ROBUST = "robustdistill.clean", "robustdistill.robust"
THREAT = "robustdistill.threat"


@dataclass(frozen=True)
class Registered:
    """A version of `name` (NAME-candidates). new: made now, not found. sha256: of its model.onnx."""

    name: str
    version: int
    new: bool
    sha256: str


def same(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether the tags of two versions are of one model: equal weights and, where both tell, equally read."""
    return one.get(SHA) == other.get(SHA) and (READ not in one or READ not in other or one[READ] == other[READ])


def candidates(name: str) -> str:
    """The registered model that holds every finished student of NAME."""
    return f"{name}-candidates"


def register(
    store: Store,
    name: str,
    *,
    export: Path,
    scorecard: Path,
    parent_run: str,
    tags: Mapping[str, str],
    description: str,
) -> Registered:
    """The exported student (a folder) with its scorecard (the file, or its folder) as a candidate of NAME.

    The files are uploaded, read back and run before the version is made, so there is never a broken one. Raises
    BadInput if the files do not belong together, ServiceFailed if MLflow does not keep them faithfully.
    """
    scorecard = scorecard / "scorecard.json" if scorecard.is_dir() else scorecard
    record, card = package.require_whole(export), _read_card(scorecard)
    sha = str(record["sha256"]["onnx"])
    if card["subject"].get("onnx_sha256", sha) != sha:
        raise BadInput("the scorecard is of another model", where=str(scorecard), fix="score the export again")
    marks = {**_figures(record, card), **tags, THREAT: threat_tag(card)}  # lineage has it in words
    registry, where = store.registry, candidates(name)
    registry.ensure(where, description=f"Every finished student of {name}. What passed the gate is copied to {name}.")
    for version in registry.versions(where):
        if same(version.tags, marks):
            known = {key: value for key, value in marks.items() if key != READ}  # of its own files, not of these
            registry.tag(where, version.number, known)
            return Registered(where, version.number, False, sha)
    model_id, location = _upload(store, name, export, scorecard, parent_run, marks)
    made = registry.create(where, location, run=parent_run, tags=marks, description=description, model_id=model_id)
    return Registered(where, made.number, True, sha)


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for key in ("clean", "robust"):
            float(card[key]["accuracy"])
        card["subject"].get("onnx_sha256")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput("not a scorecard", where=str(path)) from error
    return card


def identity(export: Path) -> dict[str, str]:
    """The tags by which `same` knows an exported student. Raises BadInput if its files do not belong together."""
    record = package.require_whole(export)
    return {SHA: str(record["sha256"]["onnx"]), READ: reading(record)}


def _figures(record: Mapping[str, Any], card: Mapping[str, Any]) -> dict[str, str]:
    return {
        SHA: record["sha256"]["onnx"],
        READ: reading(record),
        "robustdistill.safetensors_sha256": record["sha256"]["safetensors"],
        "robustdistill.parameters": str(record["parameters"]),
        CLEAN: f"{card['clean']['accuracy']:.4f}",
        ROBUST: f"{card['robust']['accuracy']:.4f}",
        THREAT: threat_tag(card),
    }


def threat_tag(card: Mapping[str, Any]) -> str:
    """The threat model of a scorecard as a tag. Without the spelling: these tags are compared."""
    threat = card.get("threat")
    return json.dumps(
        {key: value for key, value in threat.items() if key != "written"} if threat else None, sort_keys=True
    )


def _upload(
    store: Store, name: str, export: Path, scorecard: Path, run: str, tags: Mapping[str, str]
) -> tuple[str, str]:
    """Logs the model, reads it back and runs it; gives (model id, location)."""
    with tempfile.TemporaryDirectory() as scratch:

        def write(model_id: str, location: str) -> Path:
            folder = Path(scratch) / "out"
            return package.write(export, scorecard, folder, model_id=model_id, run=run, location=location)

        model_id, location = store.registry.log_model(
            store.experiment(name), "student", run=run, tags=tags, write=write
        )
        back = store.registry.download_from(location, Path(scratch) / "back")
        package.smoke_test(back, tags[SHA], tags[READ])
        package.served_test(back)
    return model_id, location
