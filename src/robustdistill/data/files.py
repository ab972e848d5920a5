"""Writing files and folders so that a crash leaves either the old content or the new, never half of one."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustdistill.errors import placed

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, sort_keys=True, indent=2, allow_nan=False) + "\n"
    _atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_npy(path: Path, array: NDArray[Any]) -> None:
    """The same array gives the same bytes: C order, little endian, no time stamp."""
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))

    def save(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            through: Any = SimpleNamespace(write=stream.write)  # numpy's own way to a file hides what the system says
            np.lib.format.write_array(through, plain, version=(1, 0), allow_pickle=False)

    _atomically(path, save)


def new_memmap(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A new uint8 array in a file, with its room on the disk reserved: else a full disk would be a bus error later.

    Raises OSError that names the file (no space left) before anything is written.
    """
    with placed(path):
        array = np.lib.format.open_memmap(path, "w+", np.uint8, shape, version=(1, 0))
        with path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return array


def _atomically(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.new")
    try:
        with placed(path):
            write(temporary)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Makes `folder` anew: `fill` writes into an empty folder beside it, then the two change places.

    If `fill` raises, or the process dies, the old folder is still there (or comes back with the next call).
    """
    new, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    folder.parent.mkdir(parents=True, exist_ok=True)
    if old.exists() and not folder.exists():
        old.rename(folder)  # a crash between the two renames below
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir()
    try:
        fill(new)
        if not folder.exists():
            new.rename(folder)
        elif not _exchange(new, folder):
            folder.rename(old)
            new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two folders in one step (renameat2 of Linux); False where kernel or file system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    failed: int = rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return failed == 0
