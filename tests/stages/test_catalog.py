"""The table of stages: DVC is told the same, it can run in its order, and each stage uses only params it declares."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

from robustdistill import recipes
from robustdistill.config import Params
from robustdistill.errors import BadInput
from robustdistill.stages import catalog
from robustdistill.stages.catalog import MODELS, STAGES


def _expanded() -> dict[str, dict[str, Any]]:
    """dvc.yaml's stages with its foreach written out."""
    found = {}
    for name, entry in yaml.safe_load(recipes.pipeline())["stages"].items():
        if "foreach" not in entry:
            found[name] = entry
            continue
        items = entry["foreach"]
        for item in items:
            text = yaml.safe_dump(entry["do"]).replace("${item}", item).replace("${key}", item)
            for key, value in items[item].items() if isinstance(items, dict) else ():
                text = text.replace(f"${{item.{key}}}", value)
            found[f"{name}@{item}"] = yaml.safe_load(text)
    return found


def test_dvc_yaml_says_the_same() -> None:
    ours = {
        name: {
            "cmd": stage.command,
            "deps": sorted(stage.reads.values()),
            "params": sorted(stage.params),
            "outs": [stage.out],
        }
        for name, stage in STAGES.items()
    }
    theirs = {
        name: {
            "cmd": entry["cmd"],
            "deps": sorted(set(entry["deps"])),
            "params": sorted(entry.get("params", [])),
            "outs": entry["outs"],
        }
        for name, entry in _expanded().items()
    }
    assert theirs == ours


def test_metrics_and_plots_name_files_of_stages() -> None:
    content = yaml.safe_load(recipes.pipeline())
    outs = [stage.out for stage in STAGES.values()]
    named = [*content["metrics"], *content["plots"][0]["robust accuracy while training"]["y"]]
    assert len(content["metrics"]) == len(MODELS)
    for path in named:
        assert str(Path(path).parent) in outs


def test_the_order_is_one_in_which_they_can_run() -> None:
    done: set[str] = set()
    for name, stage in STAGES.items():
        assert done.issuperset(catalog.parents(name)), name
        for path in stage.reads.values():
            assert not path.startswith("artifacts/") or path in {STAGES[parent].out for parent in done}
        done.add(name)


def test_the_student_alone_is_judged_by_what_others_were_made_for() -> None:
    assert set(catalog.parents("score@student")) == {
        "prepare", "adversaries", "export@teacher", "export@control", "export@student"
    }  # fmt: skip
    for name in ("initial", "teacher", "control"):
        assert set(catalog.parents(f"score@{name}")) == {"prepare", "adversaries", f"export@{name}"}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (["score@student"], ["score@student"]),
        (["student"], ["student", "export@student", "score@student"]),
        (["score@student", "control"], ["control", "export@control", "score@control", "score@student"]),
        (["prepare"], list(STAGES)),
        ([], []),
    ],
)
def test_what_reads_a_changed_stage_runs_too(changed: list[str], expected: list[str]) -> None:
    assert catalog.with_descendants(changed) == expected


def _top(params: tuple[str, ...]) -> set[str]:
    return {name.partition(".")[0] for name in params}


def test_params_exist_and_an_unknown_stage_lists_the_choices() -> None:
    for stage in STAGES.values():
        assert _top(stage.params) <= set(Params.model_fields), stage.name
    with pytest.raises(BadInput) as caught:
        catalog.get("export")
    assert "export@student" in caught.value.fix


@pytest.mark.parametrize("name", list(STAGES))
def test_a_stage_uses_only_params_it_declares(name: str) -> None:
    """Else an edit of params.yaml would change its result unseen by DVC."""
    stage = STAGES[name]
    spec = importlib.util.find_spec(stage.module)
    assert spec is not None, f"{stage.module} is not there"
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "params"
    }
    assert used <= _top(stage.params)
