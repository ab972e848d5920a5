"""What folders weigh, for people who need room."""

from __future__ import annotations

import os
from pathlib import Path


def size(path: Path) -> float:
    """Bytes of a file, or of all files in a folder; what is not there, or vanishes meanwhile, is not counted."""
    if not path.is_dir() or path.is_symlink():
        return _bytes(str(path))
    return sum(_bytes(os.path.join(place, name)) for place, _, names in os.walk(path) for name in names)  # noqa: PTH118


def _bytes(path: str) -> float:
    try:
        return float(os.lstat(path).st_size)
    except OSError:
        return 0.0


def megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"
