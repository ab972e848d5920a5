"""docs/judging.md names every check that a judgement makes, and none that it does not."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from pathlib import Path

import robustdistill.judge as judge

DOC = Path(__file__).parents[2] / "docs" / "judging.md"
MAKERS = {"limit", "Check", "_bounded"}


def made() -> set[str]:
    """The names that the sources of the judge give to checks."""
    found = set()
    for path in Path(judge.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) in MAKERS
                and isinstance(node.args[0], ast.Constant)
            ):
                found.add(str(node.args[0].value))
    return found


def test_the_page_lists_the_checks() -> None:
    rows = [line.split("|")[1] for line in DOC.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(made()) > 10
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == made()


def test_the_zoo_table_is_what_the_stored_results_render_to() -> None:
    spec = importlib.util.spec_from_file_location("zoo_table", DOC.parents[1] / "benchmarks" / "zoo" / "table.py")
    assert spec is not None and spec.loader is not None
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    page = DOC.read_text(encoding="utf-8")
    rendered = table.render(json.loads(table.RESULTS.read_text(encoding="utf-8")))
    assert table.placed(page, rendered) == page
