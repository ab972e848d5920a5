"""Class folders: FOLDER/<class>/* or FOLDER/<train|test>/<class>/*. Any name that the file system allows will do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustdistill.data.raw import LAYOUTS, Raw, check_classes, entries
from robustdistill.errors import BadInput
from robustdistill.inputs import decode_image, shown


def read_folders(root: Path, found: Sequence[Path]) -> Raw:
    """Raw data of the class folders `found` in `root`; images are decoded when asked for. Raises BadInput."""
    parts = _parts(root, found)
    classes = sorted({folder.name for folders in parts.values() for folder in folders})
    files: list[Path] = []
    labels: list[int] = []
    official: list[bool] = []
    for part, folders in parts.items():
        for folder in folders:
            images = _files(folder, root)
            files += images
            labels += [classes.index(folder.name)] * len(images)
            official += [part == "test"] * len(images)
    in_test = np.array(official, dtype=bool)
    y = np.array(labels, dtype=np.int64)
    check_classes(classes, y, in_test, shown(root))

    def image(i: int) -> NDArray[np.uint8]:
        return decode_image(files[i], where=place(i))

    def place(i: int) -> str:
        return shown(files[i])

    return Raw(classes, y, in_test, "test" in parts, image, place)


def _parts(root: Path, found: Sequence[Path]) -> dict[str, list[Path]]:
    """{"train": class folders[, "test": class folders]}."""
    train = root / "train"
    if train not in found or not any(entry.is_dir() for entry in entries(train, root)):
        return {"train": _folders(found)}  # a folder `train` that holds images is a class like any other
    for entry in found:
        if entry.name not in ("train", "test"):
            raise BadInput(
                "beside the folder train there may only be a folder test",
                where=shown(entry),
                fix="validation examples belong into train: robustdistill takes its own share of it (data.val)",
            )
    return {entry.name: _folders(entries(entry, root), empty=entry) for entry in found}


def _folders(found: Sequence[Path], empty: Path | None = None) -> list[Path]:
    for entry in found:
        if not entry.is_dir():
            raise BadInput("this file is in no class folder", where=shown(entry), fix=f"the layout is: {LAYOUTS}")
    if not found and empty:
        raise BadInput("the folder is empty", where=shown(empty), fix="add class folders or remove it")
    return list(found)


def _files(folder: Path, root: Path) -> list[Path]:
    images = entries(folder, root)
    for path in images:
        if path.is_dir():
            raise BadInput("there is a folder within a class folder", where=shown(path), fix="move its images up")
    return images
