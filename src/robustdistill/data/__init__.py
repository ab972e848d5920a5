"""Data: where they come from (`materialise`), and how they become arrays that can be trained on (`prepare`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robustdistill.data.files import replace_folder
from robustdistill.data.preparation import prepare
from robustdistill.data.prepared import Manifest, Prepared, Split

__all__ = ["Manifest", "Prepared", "Split", "materialise", "prepare"]


def materialise(
    source: str, into: Path, *, path: Path | None = None, download: bool = False, module: str | None = None
) -> None:
    """Fills the folder `into` with the raw data of a source: the same bytes each time, old data kept on any error.

    Raises BadInput for an unknown source, an option it does not have, and data that are missing or faulty.
    """
    from robustdistill.data.sources import SOURCES
    from robustdistill.registry import resolve

    given: dict[str, Any] = {
        "path": None if path is None else Path(path),
        "download": download or None,
        "module": module,
    }
    spec = {"name": source, **{key: value for key, value in given.items() if value is not None}}
    kind, config = resolve("source", SOURCES, spec, where="the data source")
    replace_folder(into, kind(config).write)
