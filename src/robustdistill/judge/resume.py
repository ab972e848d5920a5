"""Finished pieces of an evaluation on disk, so that one that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustdistill import budget

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Pieces:
    """A folder of named arrays. Its name depends on everything that the pieces depend on."""

    folder: Path

    @classmethod
    def of(cls, scratch: Path, key: object) -> Pieces:
        """key: plain data that names model, sample, threat model and protocol."""
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
        folder = scratch / "judge" / name
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def get(self, name: str, positions: NDArray[np.int64], make: Callable[[], Arrays]) -> Arrays:
        """The stored piece `name` about these positions, or what `make` returns, which is stored first.

        Raises OutOfTime instead of beginning one after the run's time.
        """
        path = self.folder / f"{name}.npz"
        stored = _read(path)
        if stored is not None and np.array_equal(stored.pop("positions"), positions):
            return stored
        budget.require(f"stopped before piece {name} of the judgement; those before it are kept")
        made = make()
        part = path.with_suffix(".part")
        with part.open("wb") as stream:
            np.savez(stream, positions=positions, **made)  # type: ignore[arg-type]
        part.replace(path)
        return made


def _read(path: Path) -> Arrays | None:
    """None if there is no such piece or it cannot be read; it is made again then."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    return arrays if "positions" in arrays else None
