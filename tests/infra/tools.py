"""The checkers of infra/: programs that come as wheels (extra `infra`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
COMPOSE = INFRA / "compose.yaml"


def run(program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A program of this environment, with nothing of the caller's environment but PATH."""
    found = Path(sys.executable).parent / program
    assert found.exists(), f"{program} is missing: make test-infra"
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables}
    return subprocess.run([str(found), *arguments], env=environment, capture_output=True, text=True, check=False)


def example() -> dict[str, str]:
    """The variables of .env.example and their values there."""
    lines = (INFRA / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def filled() -> dict[str, str]:
    """The same with every empty one filled in, and no two alike."""
    return {name: value or f"known-{name.lower()}" for name, value in example().items()}


def config(variables: dict[str, str], *files: Path) -> subprocess.CompletedProcess[str]:
    """What compose makes of the files (compose.yaml), as JSON."""
    named = [part for path in files or (COMPOSE,) for part in ("-f", str(path))]
    return run("docker-compose", *named, "--env-file", os.devnull, "config", "--format", "json", **variables)


def services(*files: Path) -> dict[str, Any]:
    done = config(filled(), *files)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
