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

from robustdistill.data.faults import Faults
from robustdistill.data.names import LITTER
from robustdistill.errors import BadInput
from robustdistill.inputs import shown

LAYOUTS = "class folders of PNG, JPEG or WebP files; train_x.npy and train_y.npy; or one .npz with images and labels"

_PERMISSIONS = "check its permissions"
_EMPTY = ("empty", "add examples or remove the class")


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

    def counts(self, positions: NDArray[np.int64]) -> list[int]:
        """Examples of each class among those at `positions`."""
        counts: list[int] = np.bincount(self.labels[positions], minlength=len(self.classes)).tolist()
        return counts


def entries(folder: Path, root: Path, faults: Faults) -> list[Path]:
    """What is in a folder, in order of name, litter left out.

    Faults: links that leave `root`, devices, the unreadable; they are not in the list.
    """
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        faults.add(BadInput(f"the folder cannot be read: {error.strerror}", where=shown(folder), fix=_PERMISSIONS))
        return []
    found = []
    for path in (folder / name for name in names if name not in LITTER):
        with faults.gathered():
            _check_entry(path, root)
            found.append(path)
    return found


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
    faults = Faults(where)
    for name, train, test in zip(classes, learnt, judged, strict=True):
        if train == 0:
            problem, fix = ("only in the test set", "add training examples or remove it") if test else _EMPTY
            faults.add(BadInput(f"class {shown(name)!r} is {problem}", where=where, fix=fix))
    faults.raise_any()


def check_images(raw: Raw, where: str) -> None:
    """Decodes every image once. Raises BadInput that names those that cannot be."""
    faults = Faults(where)
    for i in range(len(raw)):
        with faults.gathered():
            raw.image(i)
    faults.raise_any()


def read_raw(path: Path) -> Raw:
    """Finds out the layout of `path` and checks all that can be checked without decoding. Raises BadInput."""
    from robustdistill.data import arrays, folders

    if not path.exists():
        raise BadInput("there are no data", where=shown(path), fix=f"put there: {LAYOUTS}")
    if path.is_file():
        return arrays.read_npz(path)
    faults = Faults(shown(path))
    found = entries(path, path, faults)
    if not found and not faults:
        raise BadInput("the data folder is empty", where=shown(path), fix=f"put there: {LAYOUTS}")
    suffixes = {entry.suffix for entry in found if entry.is_file()}
    if ".npy" in suffixes:
        return arrays.read_pairs(path, found, faults)
    if suffixes == {".npz"} and len(found) == 1:
        faults.raise_any()
        return arrays.read_npz(found[0])
    return folders.read_folders(path, found, faults)
