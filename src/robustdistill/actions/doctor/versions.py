"""Python and packages against what robustdistill asks for, and what the engines ask of each other."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from importlib import metadata

from robustdistill.actions.doctor.finding import Case, Finding, check

ENGINES = ("torch", "prefect", "mlflow", "dvc")
ITSELF = "robustdistill"
SHOWN = 5
FIX = "make install: every version is pinned, by hash"


@check("versions")
def examine(case: Case) -> Iterator[Finding]:
    yield _python()
    wrong = conflicts()
    versions = ", ".join(f"{name} {installed(name) or 'missing'}" for name in ENGINES)
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        yield Finding("packages", "FAIL", "; ".join(wrong[:SHOWN]) + more, FIX)
    else:
        yield Finding("packages", "ok", f"{versions}: all that they ask of each other is there")
    git = shutil.which("git")
    yield Finding("git", "ok", git) if git else Finding("git", "FAIL", "not installed", "install git")


def installed(name: str) -> str:
    """ "" if it is not."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _python() -> Finding:
    from packaging.specifiers import SpecifierSet

    here = platform.python_version()
    try:
        asked = str(metadata.metadata(ITSELF).json.get("requires_python") or "")
    except metadata.PackageNotFoundError:
        return Finding("Python", "warn", f"{here}; {ITSELF} is not installed, so nothing says which", FIX)
    if SpecifierSet(asked).contains(here, prereleases=True):
        return Finding("Python", "ok", here)
    return Finding("Python", "FAIL", f"{here}, {asked} is needed", "make a virtual environment of such a Python")


def conflicts(root: str = ITSELF) -> list[str]:
    """Requirements of `root` and of all that it needs that the installed packages do not meet, in words."""
    from packaging.requirements import Requirement

    wrong: list[str] = []
    known: set[tuple[str, str]] = set()
    todo: list[tuple[str, str]] = [(root, "")]
    while todo:
        name, extra = todo.pop()
        try:
            asked = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for need in map(Requirement, asked):
            if need.marker and not need.marker.evaluate({"extra": extra}):
                continue
            version = installed(need.name)
            if not version:
                wrong.append(f"{name} needs {need.name}, which is missing")
            elif not need.specifier.contains(version, prereleases=True):
                wrong.append(f"{name} needs {need.name}{need.specifier}, {version} is installed")
            following = {(need.name, each) for each in ("", *need.extras)} - known
            known |= following
            todo += sorted(following)
    return sorted(wrong)
