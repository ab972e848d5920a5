"""A small workspace and the commands on it, run as a user would: in processes of their own."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from robustdistill.config import Params
from robustdistill.engine import devices
from robustdistill.journal import Journal
from robustdistill.services.mlflow_registry import Registry
from robustdistill.services.mlflow_store import Store
from robustdistill.stages.catalog import STAGES
from robustdistill.stages.tools import Tools
from robustdistill.workspace import Workspace

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent
TRAINING = {"epochs": 2, "select_every": 1, "select_examples": 64}


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Without a server of anybody's, and without this session's settings; with `extra`."""
    dropped = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PREFECT_HOME")
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    return kept | {"PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"} | dict(extra or {})


def call(
    *command: str | Path, cwd: Path | None = None, expect: int = 0, extra: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment(extra), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == expect, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def robustdistill(root: Path, *arguments: str | Path, expect: int = 0) -> Any:
    done = call(SCRIPTS / "robustdistill", "--workspace", root, "--json", *arguments, expect=expect)
    return json.loads(done.stdout) if done.stdout else None


def flow(
    name: str, root: Path, *arguments: str, expect: int = 0, extra: Mapping[str, str] | None = None
) -> dict[str, Any]:
    command = [sys.executable, ROOT / "flows" / f"{name}.py", "--workspace", root, "--json", *arguments]
    done = call(*command, expect=expect, extra=extra)
    result: dict[str, Any] = json.loads(done.stdout) if done.stdout else {"stderr": done.stderr}
    return result


def edit(path: Path, changes: Mapping[str, Any]) -> None:
    """Sets dotted keys of a YAML file."""
    content = yaml.safe_load(path.read_text())
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        place = content
        for parent in parents:
            place = place[parent]
        place[last] = value
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def make(root: Path, *options: str) -> Path:
    """The digits recipe, so small that its chain takes a minute, with a policy that it passes on any processor."""
    call(SCRIPTS / "robustdistill", "init", root, "--recipe", "digits", *options)
    short = {
        f"{role}.training.{key}": value for role in ("initial", "teacher", "student") for key, value in TRAINING.items()
    }
    judge = {"judge.examples": 60, "judge.autoattack": "none", "judge.curve": [0.5, 1.0], "judge.curve_examples": 30}
    edit(root / "params.yaml", {**short, **judge})
    floors = {"clean": 0.0, "robust": 0.0, "worst_class": 0.0}
    margins = {"clean": 1.0, "robust": 1.0}
    edit(root / "policy.yaml", {"teacher": floors, "student": floors, "champion": margins, "best": margins})
    return root


def compute(workspace: Workspace, name: str, out: Path, params: Params | None = None) -> Path:
    """One stage in this process, into the folder `out`, with the workspace's params or others. DVC is not told."""
    stage, plan = STAGES[name], devices.choose()
    devices.apply(plan)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    reads = {role: workspace.root / path for role, path in stage.reads.items()}
    tools = Tools(plan, Journal(out.parent / f"{out.name}.jsonl", name), out.parent / f"{out.name}.scratch")
    importlib.import_module(stage.module).run(params or workspace.params(), reads, out, tools)
    return out


def finish(root: Path) -> None:
    """All stages as a flow leaves them, in a few seconds: one process instead of thirty. DVC is told at the end."""
    workspace = Workspace.find(root)
    for name, stage in STAGES.items():
        compute(workspace, name, root / stage.out)
    for litter in [*(root / "artifacts").rglob("*.jsonl"), *(root / "artifacts").rglob("*.scratch")]:
        shutil.rmtree(litter) if litter.is_dir() else litter.unlink()
    call(sys.executable, "-m", "dvc", "commit", "--force", "--quiet", cwd=root)


def read(*parts: str | Path) -> dict[str, Any]:
    """A JSON file."""
    return dict(json.loads(Path(*parts).read_text()))


def ran(result: Mapping[str, Any]) -> set[str]:
    return {stage["name"] for stage in result["stages"] if stage["ran"]}


def rules(result: Mapping[str, Any]) -> dict[str, str]:
    """Rule -> status, of the verdict of a flow."""
    return {rule["rule"]: rule["status"] for rule in result["verdict"]["rules"]}


def registry(root: Path) -> Registry:
    return Store.open(None, root / ".work").registry


def hashes(root: Path) -> dict[str, str]:
    """Stage -> hash of what it wrote, from dvc.lock."""
    lock = yaml.safe_load((root / "dvc.lock").read_text())
    return {name: stage["outs"][0]["md5"] for name, stage in lock["stages"].items()}
