"""The house rules that can be read off the syntax tree: who imports whom, one source of randomness, nothing that runs
code from data."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
SOURCE = CHECKOUT / "src" / "robustdistill"
FILES = sorted(SOURCE.rglob("*.py"))

BASE = {"threat", "config", "strict_yaml", "errors", "rng", "registry"}
LEARNING = BASE | {"inputs", "data", "models", "attacks"}
SCIENCE = LEARNING | {"objectives", "engine", "training", "judge", "release", "gate", "workspace", "journal", "budget"}
# room -> rooms it may import, besides itself
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": set(),
    "errors": set(),
    "budget": {"errors"},
    "journal": set(),
    "machine": set(),
    "rng": {"errors"},
    "threat": {"errors"},
    "strict_yaml": {"errors"},
    "mistakes": {"errors", "strict_yaml"},
    "config": {"errors", "threat", "strict_yaml", "mistakes"},
    "registry": {"config", "errors", "strict_yaml"},
    "workspace": {"config", "errors"},
    "recipes": {"config", "errors", "strict_yaml", "registry", "models", "attacks", "objectives"},
    "inputs": BASE,
    "data": BASE | {"inputs"},
    "models": BASE | {"inputs"},
    "attacks": LEARNING,
    "objectives": LEARNING,
    "engine": LEARNING | {"machine"},
    "gate": {"threat", "config", "errors", "registry", "inputs"},
    "training": LEARNING | {"objectives", "engine", "workspace", "journal", "budget"},
    "judge": LEARNING
    | {"engine", "gate", "workspace", "journal", "budget", "stages.tools"},  # the type of what it is handed
    "release": SCIENCE - {"training"},
    "stages": SCIENCE,
    "runtime": {"inputs", "threat", "gate", "errors"},
    "services": {"errors", "journal", "workspace", "budget", "stages.catalog"},
    "actions": SCIENCE | {"stages", "services", "runtime", "recipes", "machine"},
    "console": {"actions", "errors", "journal", "threat"},
    "cli": SCIENCE | {"actions", "services", "recipes", "console"},
    "launch": {"actions", "services", "cli", "console", "errors", "journal", "workspace"},
}
VENDORS = {"prefect", "mlflow", "dvc", "boto3", "botocore"}
HEAVY = {"torch", "torchvision", "mlflow", "prefect", "matplotlib", "sklearn", "scipy", "onnx", "onnxruntime", "dvc"}
LIGHT_ROOMS = {"errors", "threat", "config", "journal", "workspace", "recipes", "cli", "stages.catalog"}
TORCHLESS = {"gate", "runtime", "inputs", "threat", "config", "errors", "workspace", "journal", "recipes", "registry"}


def _room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _name(path: Path) -> str:
    """stages/catalog.py -> stages.catalog"""
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of everything imported below a node."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _at_import_time(tree: ast.Module) -> Iterator[str]:
    """Imports that run when the module is imported: not those in functions or under TYPE_CHECKING."""
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imports(node)


def _breaches(path: Path) -> list[str]:
    room = _room(path)
    allowed = MAY_IMPORT[room] | {room}
    found = []
    for name in _imports(_tree(path)):
        parts = name.split(".")
        if parts[0] == "flows":
            found.append(name)
        if parts[0] != "robustdistill" or parts[1:2] == ["__version__"]:
            continue
        if not {parts[1], ".".join(parts[1:3])} & allowed:
            found.append(name)
    return found


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_imports_go_one_way(path: Path) -> None:
    assert _breaches(path) == [], f"{_room(path)} may import {sorted(MAY_IMPORT[_room(path)])}"


def test_the_rule_notices_a_breach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    bad = tmp_path / "attacks" / "bad.py"
    bad.parent.mkdir()
    bad.write_text(
        "def f():\n    from robustdistill.engine import twin\n    from robustdistill import errors\n    import flows\n"
    )
    assert _breaches(bad) == ["robustdistill.engine.twin", "flows"]


def test_science_knows_no_vendor_and_what_ships_knows_no_torch() -> None:
    for path in FILES:
        top = {name.split(".")[0] for name in _imports(_tree(path))}
        if _room(path) in SCIENCE | {"stages", "runtime"}:
            assert not top & VENDORS, path
        if _room(path) in TORCHLESS:
            assert not top & {"torch", "torchvision"}, path


def test_the_command_line_imports_nothing_heavy() -> None:
    for path in FILES:
        if _room(path) in LIGHT_ROOMS or _name(path) in LIGHT_ROOMS:
            assert not {name.split(".")[0] for name in _at_import_time(_tree(path))} & HEAVY, path
    script = "import sys, robustdistill.cli.root; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & (HEAVY | {"numpy", "pydantic", "rich"})


DRAWING = {
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "multinomial",
    "manual_seed", "seed", "poisson", "Generator", "default_generator",
}  # fmt: skip
DRAWING_METHODS = {
    "uniform_", "normal_", "random_", "bernoulli_", "exponential_", "cauchy_", "log_normal_", "geometric_",
}  # fmt: skip


def _randomness(tree: ast.AST) -> Iterator[str]:
    for name in _imports(tree):
        if name.split(".")[0] in ("random", "secrets") or name.startswith("numpy.random"):
            yield f"import {name}"
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        owner = ast.unparse(node.value)
        if owner in ("np", "numpy") and node.attr == "random":
            yield ast.unparse(node)
        if owner in ("torch", "torch.cuda", "torch.random", "np.random") and node.attr in DRAWING:
            yield ast.unparse(node)
        if node.attr in DRAWING_METHODS and owner.split(".")[-1] != "init":  # layers are made under rng.seeded
            yield ast.unparse(node)


def _unsafe(tree: ast.AST) -> Iterator[str]:
    for name in _imports(tree):
        if name.split(".")[0] in ("pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"):
            yield f"import {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("eval", "exec", "torch.load", "torch.save", "yaml.load", "yaml.unsafe_load", "os.system"):
                yield called
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if value is True and keyword.arg in ("allow_pickle", "shell"):
                    yield f"{called}({keyword.arg}=True)"


@pytest.mark.parametrize("rule", [_randomness, _unsafe])
def test_no_second_source_of_randomness_and_no_code_from_data(rule: object) -> None:
    assert callable(rule)
    found = {_name(path): list(rule(_tree(path))) for path in FILES if _name(path) != "rng"}
    assert {name: uses for name, uses in found.items() if uses} == {}


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (_randomness, "import random"),
        (_randomness, "np.random.default_rng(0)"),
        (_randomness, "x = torch.rand(3)"),
        (_randomness, "x.uniform_(-1, 1)"),
        (_unsafe, "from pickle import loads"),
        (_unsafe, "torch.load(path)"),
        (_unsafe, "np.load(path, allow_pickle=True)"),
        (_unsafe, "eval(text)"),
    ],
)
def test_the_rules_notice_breaches(rule: object, text: str) -> None:
    assert callable(rule)
    assert list(rule(ast.parse(text)))
