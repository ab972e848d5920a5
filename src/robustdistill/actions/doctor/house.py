"""The workspace: its settings, its pipeline, its data and its git."""

from __future__ import annotations

from collections.abc import Iterator

from robustdistill import config, recipes, strict_yaml
from robustdistill.actions.doctor.finding import Case, Finding, check
from robustdistill.actions.version import INPUTS
from robustdistill.gate.rules import require_known
from robustdistill.recipes import specs
from robustdistill.services import dvc_cli, git_cli
from robustdistill.workspace import Workspace

UPGRADE = "robustdistill upgrade"


def examine(case: Case) -> Iterator[Finding]:
    if case.workspace is None:
        yield Finding("workspace", "ok", "none here: only the machine and its services are looked at")
        return
    for part in (_params, _policy, _pipeline, _data, _git):
        yield from part(case)


def _of(case: Case) -> Workspace:
    assert case.workspace is not None
    return case.workspace


@check("params.yaml")
def _params(case: Case) -> Iterator[Finding]:
    workspace = _of(case)
    params = workspace.params()
    path = workspace.root / "params.yaml"
    specs.complete(config.dump(params), "params.yaml", strict_yaml.read(path)[1])
    yield Finding("params.yaml", "ok", f"model {params.name}, {params.threat.norm} {params.threat.eps}")


@check("policy.yaml")
def _policy(case: Case) -> Iterator[Finding]:
    policy = require_known(_of(case).policy())
    yield Finding("policy.yaml", "ok", f"{len(policy.waivers)} waivers")


@check("dvc.yaml")
def _pipeline(case: Case) -> Iterator[Finding]:
    path = _of(case).root / "dvc.yaml"
    if not path.is_file():
        yield Finding("dvc.yaml", "FAIL", "it is missing", UPGRADE)
    elif path.read_text(encoding="utf-8") != recipes.pipeline():
        yield Finding("dvc.yaml", "FAIL", "it is not that of this version of robustdistill", UPGRADE)
    else:
        yield Finding("dvc.yaml", "ok", "that of this version")


@check("data")
def _data(case: Case) -> Iterator[Finding]:
    workspace = _of(case)
    digest = dvc_cli.digest(workspace.root)
    if digest is None:
        yield Finding("data", "warn", "none yet", "robustdistill data add PATH")
    elif not workspace.data.is_dir():
        yield Finding("data", "warn", f"{digest[:12]} is not here", "the next run brings it from the DVC remote")
    else:
        yield Finding("data", "ok", digest[:12])


@check("git")
def _git(case: Case) -> Iterator[Finding]:
    workspace = _of(case)
    lost = dvc_cli.lost(workspace.root)
    if lost:
        yield Finding("git and DVC", "FAIL", f"the workspace has lost its {' and its '.join(lost)}", UPGRADE)
        return
    head, holder = git_cli.head(workspace.root), workspace.holder()
    if head is None:
        yield Finding("git and DVC", "warn", "nothing is committed yet", "git commit; a run does so, too")
    elif git_cli.dirty(workspace.root, "HEAD", INPUTS):
        yield Finding("git and DVC", "ok", f"at {head[:12]}, with changes that are not committed")
    else:
        yield Finding("git and DVC", "ok", f"at {head[:12]}, all committed")
    if holder:
        yield Finding("lock", "ok", f"a run holds the workspace (pid {holder})")
