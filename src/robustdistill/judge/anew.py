"""The judged model in a process of its own, which has been asked nothing before."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

PATIENCE = 300.0  # seconds: a model may be slow to load, and a machine busy


class NotAsked(Exception):
    """Why there is no answer."""


@dataclass(frozen=True)
class Anew:
    """command: loads the model again. It is given two paths more: an .npz of inputs `first` and `then`, which it asks
    about in this order, and where the .npz of the logits, by the same names, goes."""

    command: tuple[str, ...]

    def answers(self, first: Tensor, then: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, C] of `first` and `then` [B, *shape]. Raises NotAsked where the process fails."""
        with tempfile.TemporaryDirectory() as folder:
            given, found = Path(folder) / "inputs.npz", Path(folder) / "logits.npz"
            np.savez(given, first=first.cpu().numpy(), then=then.cpu().numpy())
            command = [*self.command, str(given), str(found)]
            try:
                done = subprocess.run(
                    command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise NotAsked(type(error).__name__) from error
            if done.returncode or not found.is_file():
                raise NotAsked(f"it ended with exit code {done.returncode}")
            with np.load(found, allow_pickle=False) as logits:
                one, other = (torch.from_numpy(logits[name]).to(first.device) for name in ("first", "then"))
        return one, other
