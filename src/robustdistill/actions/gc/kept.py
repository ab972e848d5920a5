"""What the registry needs: every version of NAME, the candidates that something names, and the runs of all these."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robustdistill.actions import intent
from robustdistill.actions.mirror import RUN, STAGE
from robustdistill.actions.register import SHA, candidates, same
from robustdistill.actions.rescored import sha256
from robustdistill.services.mlflow_bin import Bin, Record
from robustdistill.services.mlflow_registry import Version
from robustdistill.services.mlflow_store import ENDED
from robustdistill.workspace import Workspace

TEACHER_RUN = "robustdistill.teacher_run"
COMMITS = ("robustdistill.git_commit", "robustdistill.result_commit")
COPIED = re.compile(r"models:/[^/]+/(\d+)")


@dataclass(frozen=True)
class Registered:
    """versions: all of NAME. candidates: those of NAME-candidates that stay whatever their age. others: the rest."""

    versions: list[Version]
    candidates: list[Version]
    others: list[Version]

    @property
    def all_kept(self) -> list[Version]:
        return [*self.versions, *self.candidates]

    @property
    def flow_runs(self) -> set[str]:
        """Flow runs that a promotion's record names."""
        return {str(_record(version).get("run", "")) for version in self.versions} - {""}


def _record(version: Version) -> Mapping[str, Any]:
    """A promotion's record; {} if there is none that can be read."""
    try:
        found = json.loads(version.tags.get(intent.RECORD, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def registered(workspace: Workspace, stored: Bin) -> Registered:
    """What must stay in the registry, as it is now."""
    name, registry = workspace.name, stored.store.registry
    versions, listed = registry.versions(name), registry.versions(candidates(name))
    numbers, present = _named(workspace, stored, versions), _present(workspace)
    stays = [each for each in listed if _stays(each, numbers, versions) or each.tags.get(SHA) == present]
    return Registered(versions, stays, [each for each in listed if each not in stays])


def needed(workspace: Workspace, stored: Bin, candidate: Version) -> bool:
    """Whether somebody has come to need this candidate since `registered` was asked."""
    versions = stored.store.registry.versions(workspace.name)
    return _stays(candidate, _named(workspace, stored, versions), versions)


def _stays(candidate: Version, numbers: set[int], versions: list[Version]) -> bool:
    return candidate.number in numbers or any(same(candidate.tags, version.tags) for version in versions)


def _named(workspace: Workspace, stored: Bin, versions: list[Version]) -> set[int]:
    """Candidates by number: with an alias, copied to NAME, in a promotion's record, or about to be promoted."""
    name, registry = workspace.name, stored.store.registry
    numbers: set[Any] = {*registry.aliases(candidates(name)).values()}
    numbers |= {int(found[1]) for each in versions if (found := COPIED.fullmatch(each.source))}
    numbers |= {_record(each).get("candidate") for each in versions}
    under_way = intent.pending(stored.store, name, workspace.work)
    numbers.add(under_way.candidate if under_way else None)
    return numbers


def _present(workspace: Workspace) -> str | None:
    """The student that the workspace holds: the next run finds its version instead of making another."""
    try:
        return sha256(workspace.out("export@student"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


Family = list[Record]


def families(runs: list[Record]) -> dict[str, Family]:
    """Flow run -> its own run and those of its stages, newest first. Runs of others, without that tag, are in none."""
    found: dict[str, Family] = {}
    for run in sorted(runs, key=lambda run: run.last, reverse=True):
        if run.tags.get(RUN):
            found.setdefault(run.tags[RUN], []).append(run)
    return found


def going(workspace: Workspace, found: dict[str, Family], stays: Registered, keep_runs: int, before: float) -> set[str]:
    """The flow runs that may go: old, not of the newest, ended, told to MLflow, and of nothing that stays."""
    ids = {version.run for version in stays.all_kept} | {
        version.tags.get(TEACHER_RUN, "") for version in stays.all_kept
    }
    teachers = [run for family in found.values() for run in family if run.tags.get(STAGE) == "teacher"]
    ids |= {run.id for run in sorted(teachers, key=lambda run: run.last)[-1:]}  # the next candidate names it
    named = {*stays.flow_runs, *untold(workspace), *[*found][: max(keep_runs, 0)]}
    return {
        flow_run
        for flow_run, family in found.items()
        if flow_run not in named
        and all(run.status in ENDED and run.last < before and run.id not in ids for run in family)
    }


def untold(workspace: Workspace) -> set[str]:
    """Flow runs that MLflow has not heard to the end."""
    try:
        return set(json.loads((workspace.work / "mirror.json").read_text(encoding="utf-8"))["runs"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def commits(stored: Bin, stays: Registered, found: dict[str, Family], gone: set[str]) -> list[str]:
    """The commits of the flow runs that stay, and of the versions' runs even if somebody deleted those: params, data
    and results of what is on record."""
    stay = [run.tags for flow_run, family in found.items() if flow_run not in gone for run in family]
    present = {run.id for family in found.values() for run in family}
    stay += [stored.tags(version.run) for version in stays.versions if version.run and version.run not in present]
    return sorted({tags[key] for tags in stay for key in COMMITS if tags.get(key)})
