"""A registered model judged again under today's data, threat model and judge, so that its numbers may be compared."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from robustdistill.config import dump
from robustdistill.errors import BadInput, ServiceFailed, Unhealthy
from robustdistill.gate.scorecard import Evidence
from robustdistill.stages import catalog
from robustdistill.workspace import Workspace


def sha256(export: Path) -> str:
    """The content hash of an exported model, as its export.json says."""
    record = json.loads((export / "export.json").read_text(encoding="utf-8"))
    return str(record["sha256"]["onnx"])


def _key(workspace: Workspace, export: Path) -> str:
    """What a re-scoring depends on: weights, sample, judge, threat model and the adversarial set."""
    params, revision = dump(workspace.params()), catalog.get("score@student").revision
    parts = [
        sha256(export),
        f"revision {revision}",
        json.dumps({key: params[key] for key in ("seed", "threat", "judge")}, sort_keys=True),
    ]
    manifests = [workspace.artifacts / stage / "manifest.json" for stage in ("prepare", "adversaries")]
    parts += [path.read_text(encoding="utf-8") for path in manifests]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def rescored(workspace: Workspace, export: Path, run: str, *, up_to_date: bool, harder: int | None = None) -> Evidence:
    """Evidence on `export` (a folder with model.onnx and export.json), judged today; cached by what it depends on.

    up_to_date: the workspace's stages are, so that a scorecard of the same model among them is today's. harder: by
    attacks with more steps, drawn by this seed.

    Runs in a child process, so that a crash of the judge is an error here and its memory is given back. Raises what
    the judge raised as BadInput or ServiceFailed.
    """
    for scored in sorted((workspace.artifacts / "export").glob("*")) if up_to_date and harder is None else ():
        card = workspace.artifacts / "score" / scored.name
        if (
            (scored / "export.json").exists()
            and sha256(scored) == sha256(export)
            and (card / "scorecard.json").exists()
        ):
            return Evidence.load(card)
    name = _key(workspace, export) + ("" if harder is None else f"-{harder}")
    folder = workspace.work / "rescored" / name
    if not _of(folder, export):
        shutil.rmtree(folder, ignore_errors=True)
        command = [sys.executable, "-m", "robustdistill.cli", "--workspace", str(workspace.root), "judge", str(export)]
        more = [] if harder is None else ["--harder", str(harder)]
        done = subprocess.run(
            [*command, *more, "--out", str(folder)],
            env=os.environ | {"ROBUSTDISTILL_RUN": run},
            capture_output=True,
            text=True,
        )
        if done.returncode == BadInput.exit_code:
            raise BadInput(done.stderr.strip(), where=str(export))
        if done.returncode not in (0, Unhealthy.exit_code):  # the gate reads the health checks itself
            raise ServiceFailed(
                f"the judge ended with code {done.returncode}: {done.stderr.strip()[-500:]}", where=str(export)
            )
    if not _of(folder, export):
        raise ServiceFailed("the judge's scorecard is of another model", where=str(folder), fix="remove the folder")
    return Evidence.load(folder)


def _of(score: Path, export: Path) -> bool:
    """Whether there is a scorecard, and one of this very model."""
    try:
        card = json.loads((score / "scorecard.json").read_text(encoding="utf-8"))
        return bool(card["subject"]["onnx_sha256"] == sha256(export))
    except (OSError, ValueError, KeyError, TypeError):
        return False
