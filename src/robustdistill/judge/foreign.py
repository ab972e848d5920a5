"""A torch module of anybody's, made safe to attack: its answers are checked, and no trick in it breaks an attack."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustdistill.errors import BadInput

Answer = Callable[[Tensor], Any]  # a module, or an exported file
_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")
_RETURN = "return logits as one tensor [batch, classes]"
_TAKE = "judge it on images of the size and channels it was made for, or take [n, channels, height, width]; see --debug"


class Foreign(nn.Module):
    """logits [B, C] float32 of a module from elsewhere, in evaluation mode.

    The graph always reaches the input: where the module cuts it off (rounding, detach, no_grad), the gradient is 0
    instead of an error, and health has something to find. Raises BadInput where the module fails or answers in
    another shape.
    """

    def __init__(self, inner: Answer, classes: int) -> None:
        super().__init__()
        self.inner, self.classes = inner, classes

    def forward(self, x: Tensor) -> Tensor:
        answer = ask(self.inner, x)
        if tuple(answer.shape) != (len(x), self.classes):
            wanted = f"[{len(x)}, {self.classes}]"
            raise BadInput(f"the model answers {len(x)} inputs with shape {list(answer.shape)}, not {wanted}")
        logits = answer.float()
        if torch.is_grad_enabled() and x.requires_grad:
            logits = logits + 0.0 * x.sum()
        return logits


def ask(module: Answer, x: Tensor) -> Tensor:
    """What the module makes of x [B, *shape]: any floating tensor. Raises BadInput for an error or another answer."""
    try:
        answer = module(x.clone())  # it may write into what it is given
    except BadInput:
        raise
    except Exception as error:  # the user's own code
        raise failed(f"the model failed on inputs {list(x.shape)}", error, fix=_TAKE) from error
    if not isinstance(answer, Tensor):
        raise BadInput(f"the model returns {type(answer).__name__}, not a tensor", fix=_RETURN)
    if not answer.is_floating_point():
        raise BadInput(f"the model returns numbers of type {answer.dtype}", fix=_RETURN)
    return answer


def columns(module: Answer, x: Tensor) -> int:
    """How many classes the module tells apart, found by asking it about x [B, *shape]. Raises BadInput."""
    with torch.no_grad():
        answer = ask(module, x)
    if answer.dim() != 2 or len(answer) != len(x):
        raise BadInput(f"the model answers {len(x)} inputs with shape {list(answer.shape)}", fix=_RETURN)
    if answer.shape[1] < 2:
        raise BadInput("the model has one output", fix="return two logits, such as torch.cat([-z, z], dim=1)")
    return int(answer.shape[1])


def failed(what: str, error: BaseException, *, fix: str = "see it: --debug") -> BadInput:
    """An error inside the user's code as a sentence that names the line, where one of the user's lines took part: of
    other people's packages none helps. The traceback is for --debug."""
    if isinstance(error, SyntaxError):
        where = f"{error.filename}, line {error.lineno}"
    else:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _ours(frame.filename)]
        theirs = [frame for frame in frames if "site-packages" not in frame.filename]
        where = f"{theirs[-1].filename}, line {theirs[-1].lineno}" if theirs else ""
    said = str(error).strip().splitlines()
    return BadInput(f"{what}: {type(error).__name__}: {said[0] if said else ''}", where=where, fix=fix)


def _ours(filename: str) -> bool:
    """Whether a frame is of this package or of the import machinery: not where the user has to look."""
    return filename.startswith((str(Path(__file__).parents[1]), "<frozen", str(Path(importlib.__file__).parent)))


def frozen(module: nn.Module) -> nn.Module:
    """In evaluation mode, without weight gradients; one by one, since a scripted module has no requires_grad_."""
    for weight in module.parameters():
        weight.requires_grad_(False)
    return module.eval()


def digest(module: nn.Module) -> str:
    """SHA-256 over weights, buffers, structure and the source file of the module's class: names it for resuming."""
    total = hashlib.sha256(f"{type(module).__module__}.{type(module).__qualname__}\n".encode())
    total.update(_ADDRESS.sub("", repr(module)).encode())
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        plain = tensor.detach().to("cpu").contiguous()
        total.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        total.update(plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    with suppress(TypeError, OSError):  # made in a session, or built in
        total.update(Path(inspect.getfile(type(module))).read_bytes())
    return total.hexdigest()
