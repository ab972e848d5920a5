"""Parts of a Python file, taken from its syntax tree: the file itself is never run."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from types import CodeType
from typing import Any

import numpy as np
import torch
from benchmarks.parity.source import Clones, Source
from torch import Tensor, nn
from torch.autograd import Variable

from robustdistill.errors import BadInput

BUILTINS = (
    "__build_class__", "abs", "bool", "dict", "enumerate", "float", "int", "isinstance", "len", "list", "max", "min",
    "object", "range", "set", "str", "sum", "super", "tuple", "zip", "NotImplementedError", "ValueError",
)  # fmt: skip


class Halt(Exception):
    """Thrown by the optimiser that a published step is given: the gradient is there, the update is not wanted."""


class Halting(torch.optim.SGD):
    """Clears gradients as any other, and ends the step where it would begin to change weights."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        raise Halt


class Code:
    """The namespace in which parts of published files run, filled by `take`."""

    def __init__(self, clones: Clones, *sources: Source) -> None:
        self._clones = clones
        self._sources = {path: source for source in sources for path in source.files}
        self.names: dict[str, Any] = {
            "__builtins__": {name: getattr(builtins, name) for name in BUILTINS} | {"print": _silent},
            "__name__": "published", "torch": torch, "nn": nn, "F": nn.functional, "optim": torch.optim,
            "Variable": Variable, "np": np,
        }  # fmt: skip

    def take(self, path: str, *names: str) -> None:
        """Defines the functions, classes and constants of these names. Decorators are dropped. Raises BadInput."""
        tree = self._tree(path)
        found = {name: node for node in tree.body for name in _defined(node)}
        for name in names:
            if name not in found:
                raise BadInput(f"it defines no {name!r}", where=path)
            for node in ast.walk(found[name]):
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    node.decorator_list = []
            self._run(_compiled([found[name]], path))

    def call(self, name: str, **arguments: Any) -> Tensor:
        """A function that returns the loss; its gradient is taken. Returns the loss."""
        loss: Tensor = self.names[name](**arguments)
        torch.autograd.backward(loss)
        return loss.detach()

    def step(self, path: str, over: str, within: str | None = None, loss: str = "loss", **names: Any) -> Tensor:
        """Once the body of the loop `for ... in ...{over}...` (of the function `within`), with these names defined, up
        to the update of the weights. Returns what it calls `loss`. Raises BadInput if it never comes to an update."""
        self.names |= names
        try:
            self._run(_compiled([_once(_loop(self._tree(path), over, within, path))], path))
        except Halt:
            found: Tensor = self.names[loss]
            return found.detach()
        raise BadInput("its training step updates nothing", where=path)

    def _tree(self, path: str) -> ast.Module:
        return ast.parse(self._clones.read(self._sources[path], path), path)

    def _run(self, code: CodeType) -> None:
        exec(code, self.names)


def _silent(*words: Any, **options: Any) -> None:
    return None


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def _loop(tree: ast.Module, over: str, within: str | None, path: str) -> ast.For:
    """The first loop over `over`, of the file or of one of its functions or methods."""
    roots: list[ast.AST] = [tree]
    if within is not None:
        roots = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == within]
    for node in (node for root in roots for node in ast.walk(root)):
        if isinstance(node, ast.For) and over in {
            name.id for name in ast.walk(node.iter) if isinstance(name, ast.Name)
        }:
            return node
    raise BadInput(f"there is no loop over {over!r}" + (f" in {within!r}" if within else ""), where=path)


def _once(loop: ast.For) -> ast.For:
    """Its body in a loop of one turn that binds nothing, so that `break` and `continue` keep their sense."""
    turn = ast.For(ast.Name("_", ast.Store()), ast.List([ast.Constant(0)], ast.Load()), loop.body, [])
    return ast.copy_location(turn, loop)


def _compiled(body: list[ast.stmt], path: str) -> CodeType:
    return compile(ast.fix_missing_locations(ast.Module(body, [])), path, "exec")
