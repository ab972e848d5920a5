"""What a module answered while another part was using it, so that the same question is not asked twice."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from torch import Tensor, nn


class Heard:
    """A context manager; afterwards `about(x)` is the module's last answer to that very tensor, graph included.

    What an attack asks is not kept: its inputs need a gradient, or it runs on another module.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._answers: list[tuple[Tensor, Tensor]] = []

    def __enter__(self) -> Heard:
        self._hook = self._module.register_forward_hook(self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._hook.remove()

    def _note(self, module: nn.Module, inputs: tuple[Any, ...], answer: Tensor) -> None:
        if not inputs[0].requires_grad:
            self._answers.append((inputs[0], answer))

    def about(self, x: Tensor) -> Tensor | None:
        return next((answer for asked, answer in reversed(self._answers) if asked is x), None)
