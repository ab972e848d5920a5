"""What weights come from: the examples that their teacher and their first weights were trained or selected on.

A judge leaves out what a model has seen itself (train and val of its own data) and what it has seen through these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustdistill.data.files import write_json, write_npy
from robustdistill.errors import BadInput

IDS, UNKNOWN = "inherited.npy", "inherited.json"
UNRECORDED = "a model exported before this was recorded"
NO_IDS = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Seen:
    """ids: content ids, ascending. unknown: names of models of which nobody recorded what they were trained on."""

    ids: NDArray[np.int64] = field(default_factory=lambda: NO_IDS)
    unknown: tuple[str, ...] = ()

    def __or__(self, other: Seen) -> Seen:
        return Seen(np.union1d(self.ids, other.ids), tuple(sorted({*self.unknown, *other.unknown})))

    @classmethod
    def read(cls, folder: Path) -> Seen:
        """What the model in `folder` inherited: nothing, where nothing was written. Raises BadInput."""
        if not (folder / UNKNOWN).exists():
            return cls()
        try:
            record = json.loads((folder / UNKNOWN).read_text(encoding="utf-8"))
            names = tuple(str(name) for name in record["unknown"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput("not a list of models", where=str(folder / UNKNOWN), fix="train again") from error
        return cls(read_ids(folder / IDS), names)

    def write(self, folder: Path) -> None:
        """Into the folder of a model that inherited this; a model that inherited nothing has no such files."""
        if len(self.ids) or self.unknown:
            write_npy(folder / IDS, self.ids)
            write_json(folder / UNKNOWN, {"unknown": list(self.unknown)})


def read_ids(path: Path) -> NDArray[np.int64]:
    """Raises BadInput if the file is missing or no list of content ids."""
    try:
        ids: NDArray[np.int64] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInput("the list of examples is missing or damaged", where=str(path)) from error
    if ids.dtype != np.int64 or ids.ndim != 1:
        raise BadInput("not a list of content ids", where=str(path))
    return ids


def unknown_of(export: Mapping[str, Any]) -> tuple[str, ...]:
    """What export.json says of models whose training data nobody recorded; an older one does not say."""
    return tuple(str(name) for name in export.get("unknown", [UNRECORDED]))
