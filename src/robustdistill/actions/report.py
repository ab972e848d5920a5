"""What a flow run leaves for people: the HTML report, the verdict as markdown, and the summary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustdistill.actions import cost, looks
from robustdistill.actions.session import Session
from robustdistill.actions.summary import Outcome, Summary, model_rows
from robustdistill.services import dvc_cli, git_cli
from robustdistill.workspace import Workspace, write_atomically

SIGNS = {"pass": "✔", "fail": "✘", "waived": "~"}


def verdict_markdown(verdict: Mapping[str, Any]) -> str:
    """The gate line by line, for Prefect."""
    rows = [f"| {SIGNS.get(rule['status'], '–')} | {rule['rule']} | {rule['sentence']} |" for rule in verdict["rules"]]
    gain = f"\n\nGain over the teacher-free control: **{verdict['gain']['answer']}**" if verdict.get("gain") else ""
    return "\n".join([f"# {verdict['verdict']}", "", "| | rule | why |", "|---|---|---|", *rows]) + gain


def write(
    workspace: Workspace,
    run: str,
    verdict: Mapping[str, Any] | None,
    came_to: tuple[str, str, list[str]] | None = None,
) -> Path:
    """reports/<run>.html, self-contained. came_to: outcome, sentence and places in the registry of the run's summary,
    the last place being the one that the outcome is about."""
    from robustdistill.release.report import Settled, render

    facts = {
        "model": workspace.name,
        "flow run": run,
        "data": dvc_cli.digest(workspace.root) or "not versioned",
        "workspace commit": git_cli.head(workspace.root) or "none",
        **_looks(workspace),
        **({"budget": told} if (told := cost.sentence(workspace)) else {}),
        "reproduce": "# in the workspace; a clone of it first needs a DVC remote that it can reach\n"
        f"git checkout {(git_cli.head(workspace.root) or '')[:12]} && dvc pull && dvc repro",
    }
    settled = Settled(came_to[0], came_to[1], came_to[2][-1] if came_to[2] else "") if came_to else None
    html = render(workspace.artifacts, title=workspace.name, verdict=verdict, facts=facts, settled=settled)
    path = workspace.reports / f"{run}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, html)
    return path


def _looks(workspace: Workspace) -> dict[str, str]:
    """The sentence on the looks at the student's test set, under "test set", if it was judged."""
    try:
        card = json.loads((workspace.out("score@student") / "scorecard.json").read_text(encoding="utf-8"))
        found = looks.at(workspace, str(card["sample"]["digest"]))
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # the report says elsewhere what is wrong with the scorecard
    return {"test set": found.sentence} if found.times else {}


def summarise(
    current: Session,
    outcome: Outcome,
    sentence: str,
    verdict: Mapping[str, Any] | None,
    registry: list[str],
    report: Path,
) -> Summary:
    """The run in plain data, with where to look next."""
    root = current.workspace.root
    pointers = [
        ("report", str(report)),
        ("browse", f"robustdistill --workspace {root} ui        (MLflow and Prefect; for the demo: make ui)"),
    ]
    if any("alias champion" in line for line in registry):
        pointers.append(("predict", f"robustdistill --workspace {root} predict IMAGE..."))
    if outcome == "refused":
        again = (
            "what is trained stands in params.yaml, what is demanded in policy.yaml; what did not change is not redone"
        )
        pointers.append(("next", again))
    if not current.seconds:
        sentence += "; nothing was retrained" + (", for nothing had changed" if outcome == "unchanged" else "")
    return Summary(
        workspace=str(root),
        outcome=outcome,
        sentence=sentence,
        stages=current.stage_rows(),
        models=model_rows(current.workspace.artifacts / "score"),
        verdict=verdict,
        registry=registry,
        pointers=pointers,
        looks=_looks(current.workspace).get("test set", ""),
    )
