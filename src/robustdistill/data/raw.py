"""Raw data, whatever their layout, seen as one sequence of labelled images; nothing is decoded before it is asked for.

Layouts: a folder of `.npy` pairs; an `.npz` file (or a folder that holds one); FOLDER/<class>/*; and
FOLDER/<train|test>/<class>/*.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustdistill.errors import BadInput
from robustdistill.inputs import shown

LITTER = (".DS_Store", "Thumbs.db", "desktop.ini", ".gitkeep")  # left by file browsers and git, never data
LAYOUTS = "class folders of PNG, JPEG or WebP files; train_x.npy and train_y.npy; or one .npz with images and labels"


@dataclass(frozen=True)
class Raw:
    """labels: int64 [N], positions in classes. official: bool [N], True for the official test set (if has_test).

    image(i): uint8 [C, H, W], checked; raises BadInput. place(i): where example i is, as shown in errors.
    """

    classes: list[str]
    labels: NDArray[np.int64]
    official: NDArray[np.bool_]
    has_test: bool
    image: Callable[[int], NDArray[np.uint8]]
    place: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.labels)


def entries(folder: Path, root: Path) -> list[Path]:
    """What is in a folder, in order of name. Raises BadInput for links that leave `root`, devices, the unreadable."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise BadInput(f"the folder cannot be read: {error.strerror}", where=shown(folder)) from error
    paths = [folder / name for name in names if name not in LITTER]
    for path in paths:
        _check_name(path)
        _check_entry(path, root)
    return paths


def _check_name(path: Path) -> None:
    try:
        path.name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadInput("the name is not UTF-8, which DVC needs", where=shown(path), fix="rename it") from error


def _check_entry(path: Path, root: Path) -> None:
    if path.is_symlink():
        inside = path.resolve().is_relative_to(root.resolve())
        if not inside or not path.is_file():
            problem = "does not lead to a file in it" if inside else "leaves the data folder"
            raise BadInput(f"this link {problem}", where=shown(path), fix="put the file itself there")
    elif not (path.is_file() or path.is_dir()):
        raise BadInput("this is neither a file nor a folder", where=shown(path), fix="remove it")


def check_classes(classes: Sequence[str], labels: NDArray[np.int64], official: NDArray[np.bool_], where: str) -> None:
    """Raises BadInput unless there are two classes or more, each with examples outside the official test set."""
    if not len(labels):
        raise BadInput("there are no examples", where=where, fix=f"put there: {LAYOUTS}")
    if len(classes) < 2:
        raise BadInput(
            f"there is only one class: {shown(classes[0])!r}", where=where, fix="a classifier needs two classes or more"
        )
    learnt = np.bincount(labels[~official], minlength=len(classes))
    judged = np.bincount(labels[official], minlength=len(classes))
    for name, train, test in zip(classes, learnt, judged, strict=True):
        if train == 0 and test > 0:
            raise BadInput(
                f"class {shown(name)!r} is only in the test set", where=where, fix="add training examples or remove it"
            )
        if train == 0:
            raise BadInput(f"class {shown(name)!r} is empty", where=where, fix="add examples or remove the class")


def read_raw(path: Path) -> Raw:
    """Finds out the layout of `path` and checks all that can be checked without decoding. Raises BadInput."""
    from robustdistill.data import arrays, folders

    if not path.exists():
        raise BadInput("there are no data", where=shown(path), fix=f"put there: {LAYOUTS}")
    if path.is_file():
        return arrays.read_npz(path)
    found = entries(path, path)
    if not found:
        raise BadInput("the data folder is empty", where=shown(path), fix=f"put there: {LAYOUTS}")
    suffixes = {entry.suffix for entry in found if entry.is_file()}
    if ".npy" in suffixes:
        return arrays.read_pairs(path, found)
    if suffixes == {".npz"} and len(found) == 1:
        return arrays.read_npz(found[0])
    return folders.read_folders(path, found)
