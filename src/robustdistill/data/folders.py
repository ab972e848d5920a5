"""Class folders: FOLDER/<class>/* or FOLDER/<train|test>/<class>/*. Any name that the file system allows will do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustdistill.data.faults import Faults
from robustdistill.data.names import kept
from robustdistill.data.raw import LAYOUTS, Raw, check_classes, entries
from robustdistill.errors import BadInput
from robustdistill.inputs import decode_image, shown


def read_folders(root: Path, found: Sequence[Path], faults: Faults) -> Raw:
    """Raw data of the class folders `found` in `root`; images are decoded when asked for.

    A class is called as its folder, or as that is escaped where DVC could not keep the name. Raises BadInput.
    """
    parts = _parts(root, found, faults)
    names = _class_names((folder for folders in parts.values() for folder in folders), faults)
    classes = sorted(set(names.values()))
    files: list[Path] = []
    labels: list[int] = []
    official: list[bool] = []
    for part, folders in parts.items():
        for folder in folders:
            images = _files(folder, root, faults)
            files += images
            labels += [classes.index(names[folder.name])] * len(images)
            official += [part == "test"] * len(images)
    faults.raise_any()
    in_test = np.array(official, dtype=bool)
    y = np.array(labels, dtype=np.int64)
    check_classes(classes, y, in_test, shown(root))

    def image(i: int) -> NDArray[np.uint8]:
        return decode_image(files[i], where=place(i))

    def place(i: int) -> str:
        return shown(files[i])

    return Raw(classes, y, in_test, "test" in parts, image, place)


def _parts(root: Path, found: Sequence[Path], faults: Faults) -> dict[str, list[Path]]:
    """{"train": class folders[, "test": class folders]}."""
    train = root / "train"
    if train not in found or not any(entry.is_dir() for entry in entries(train, root, Faults(""))):
        return {"train": _folders(found, faults)}  # a folder `train` that holds images is a class like any other
    parts: dict[str, list[Path]] = {}
    for entry in found:
        if entry.name in ("train", "test"):
            parts[entry.name] = _folders(entries(entry, root, faults), faults, empty=entry)
        else:
            faults.add(
                BadInput(
                    "beside the folder train there may only be a folder test",
                    where=shown(entry),
                    fix="validation examples belong into train: robustdistill takes its own share of it (data.val)",
                )
            )
    return parts


def _folders(found: Sequence[Path], faults: Faults, empty: Path | None = None) -> list[Path]:
    if not found and empty:
        faults.add(BadInput("the folder is empty", where=shown(empty), fix="add class folders or remove it"))
    for entry in found:
        if not entry.is_dir():
            faults.add(BadInput("this file is in no class folder", where=shown(entry), fix=f"the layout is: {LAYOUTS}"))
    return [entry for entry in found if entry.is_dir()]


def _class_names(folders: Iterable[Path], faults: Faults) -> dict[str, str]:
    """{name of a class folder: name of the class}. Two that would become one class are a fault."""
    names: dict[str, str] = {}
    owners: dict[str, str] = {}
    for folder in folders:
        name = names[folder.name] = kept(folder.name)
        if owners.setdefault(name, folder.name) != folder.name:
            faults.add(
                BadInput(
                    f"two class folders are both written {name!r}: one by that very name, "
                    "one by a name that DVC cannot keep and that is escaped",
                    where=shown(folder),
                    fix="rename one of them",
                )
            )
    return names


def _files(folder: Path, root: Path, faults: Faults) -> list[Path]:
    found = entries(folder, root, faults)
    for path in found:
        if path.is_dir():
            faults.add(BadInput("there is a folder within a class folder", where=shown(path), fix="move its images up"))
    return [path for path in found if not path.is_dir()]
