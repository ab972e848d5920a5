"""Where a new file belongs in the data: examples are added, and one goes only for a newer content of its own file.

Images come as CLASS/FILE or train|test/CLASS/FILE, arrays as one .npz with images and labels. Data in class folders
take images; data that are arrays take both, each as further rows. What is there already, by content, changes nothing,
so that the same delivery twice is the same as once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from robustdistill.data.arrays import read_npz
from robustdistill.data.names import kept
from robustdistill.data.raw import Raw, check_images, read_raw
from robustdistill.data.sources.types import write_arrays
from robustdistill.data.splits import content_key
from robustdistill.errors import BadInput
from robustdistill.inputs import decode_image
from robustdistill.services.inbox import Item
from robustdistill.workspace import Workspace

PARTS = ("train", "test")
LAYOUT = "put it at CLASS/FILE (or train/CLASS/FILE, test/CLASS/FILE), or send one .npz with images and labels"
Image = NDArray[np.uint8]


@dataclass(frozen=True)
class New:
    """A file as it was listed, its content in `path`, and where in data/ an earlier content of it lies ("" if none)."""

    item: Item
    path: Path
    before: str = ""

    @property
    def is_arrays(self) -> bool:
        return "/" not in self.item.name and self.item.name.lower().endswith(".npz")

    @property
    def group(self) -> str:
        """What is refused or taken together: a class, or one file of arrays."""
        return ["", self.item.name, *self.item.name.split("/")[:-1]][-1]


@dataclass(frozen=True)
class Standing:
    """The data that there are. raw: None if none. parts: class folders lie in train/ and test/. edge: data.resize."""

    root: Path
    raw: Raw | None
    arrays: bool
    parts: bool
    edge: int | None

    @property
    def shape(self) -> tuple[int, ...] | None:
        return self.raw.image(0).shape if self.raw else None


def standing(workspace: Workspace, news: Sequence[New] = ()) -> Standing:
    """As data/ says; where there are none, as the new files do. Raises BadInput for data/ that cannot be read."""
    root, edge = workspace.data, workspace.params().data.resize
    if not root.is_dir():
        arrays = any(new.is_arrays for new in news)
        return Standing(root, None, arrays, any(len(new.item.name.split("/")) == 3 for new in news), edge)
    arrays = any(path.suffix in (".npy", ".npz") for path in root.iterdir() if path.is_file())
    train = root / "train"
    parts = not arrays and train.is_dir() and any(path.is_dir() for path in train.iterdir())
    return Standing(root, read_raw(root), arrays, parts, edge)


def fault_of_place(name: str) -> str:
    """Why a file of this name is no data; "" if it may be."""
    parts = name.split("/")
    fits = ((len(parts) == 3) == (parts[0] in PARTS) and len(parts) in (2, 3)) or name.lower().endswith(".npz")
    return "" if fits and not (len(parts) > 1 and name.lower().endswith(".npz")) else f"it is in no class; {LAYOUT}"


def examine(new: New, there: Standing, shape: tuple[int, ...] | None) -> None:
    """Raises BadInput unless the file can be read and fits the data. shape: of an image there, [C, H, W]."""
    if not new.is_arrays:
        image = decode_image(new.path, where=new.item.name)
        if there.arrays and there.raw is None:
            raise BadInput("an image, and the first data are arrays: send one or the other")
        _require_shape(image.shape, shape, there)
        _target(new, there)
        return
    if not there.arrays:
        raise BadInput("it is arrays, the data are images in class folders", fix=LAYOUT)
    raw = read_npz(new.path, whole=False)
    if not len(raw):
        raise BadInput("it holds no examples")
    check_images(raw, new.item.name)
    _require_shape(raw.image(0).shape, shape, there)
    if there.raw is not None:
        if raw.has_test and not there.raw.has_test:
            raise BadInput("it holds test examples, the data have no test set of their own")
        _names(there.raw, int(raw.labels.max()))


def _require_shape(found: tuple[int, ...], expected: tuple[int, ...] | None, there: Standing) -> None:
    if expected is None:
        return
    scaled = there.edge is not None and not there.arrays
    if (found[0] if scaled else found) != (expected[0] if scaled else expected):
        raise BadInput(f"images of shape {list(found)}, the data are {list(expected)} (channels, height, width)")


def _target(new: New, there: Standing) -> str:
    """Where in data/ an image of this name belongs. Raises BadInput where it has no place."""
    *head, label, name = new.item.name.split("/")
    part = head[0] if head else "train"
    if part == "test" and not (there.raw.has_test if there.raw else there.parts):
        raise BadInput("it is for the test set, the data have no test set of their own")
    return "/".join([*([part] if there.parts else []), kept(label), kept(name)])


def build(news: Sequence[New], there: Standing, staging: Path) -> dict[str, str] | None:
    """The data with the new files, in the new folder `staging`; {name: its place}, None if they add nothing.

    Arrays are held in memory. Raises BadInput where they do not fit together.
    """
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    return _rows(news, there, staging) if there.arrays else _files(news, there, staging)


def _files(news: Sequence[New], there: Standing, staging: Path) -> dict[str, str] | None:
    if there.raw is not None:
        shutil.copytree(there.root, staging, copy_function=_link, dirs_exist_ok=True, symlinks=True)
    places, added = dict[str, str](), False
    for new in news:
        content = new.path.read_bytes()
        place = new.before or _target(new, there)
        if place != new.before and (staging / place).exists() and (staging / place).read_bytes() != content:
            place = _beside(place, content)  # another image of the same name: both are kept
        target = staging / place
        if not target.exists() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)  # a link to the file in data/, which stays as it is
            shutil.copyfile(new.path, target)
            added = True
        places[new.item.name] = place
    return places if added else None


def _link(source: str, target: str) -> None:
    """A second name for the file instead of a second copy, where the file system can."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _beside(place: str, content: bytes) -> str:
    path = PurePosixPath(place)
    return str(path.with_name(f"{path.stem[:150]}~{hashlib.sha256(content).hexdigest()[:12]}{path.suffix}"))


def _rows(news: Sequence[New], there: Standing, staging: Path) -> dict[str, str] | None:
    classes = list(there.raw.classes) if there.raw else []
    rows: dict[tuple[bytes, int, bool], Image] = {}  # in order of arrival
    for image, label, official in _examples(there.raw) if there.raw else ():
        rows.setdefault((content_key(image), label, official), image)
    before = len(rows)
    for new in news:
        names, examples = _content(new, there)
        classes += [name for name in names if name not in classes]
        for image, label, official in examples:
            rows.setdefault((content_key(image), classes.index(names[label]), official), image)
    if len(rows) == before:
        return None
    arrays: dict[str, NDArray[np.generic]] = {}
    for part in PARTS:
        chosen = [(image, label) for (_, label, official), image in rows.items() if official == (part == "test")]
        if chosen:
            arrays[f"{part}_x"] = _stacked([image for image, _ in chosen])
            arrays[f"{part}_y"] = np.array([label for _, label in chosen], dtype=np.int64)
    write_arrays(staging, arrays, classes)
    return {new.item.name: "" for new in news}


def _stacked(images: Sequence[Image]) -> Image:
    shapes = sorted({image.shape for image in images})
    if len(shapes) > 1:
        raise BadInput(f"images of different shapes: {', '.join(str(list(shape)) for shape in shapes)}")
    return np.stack(images)


def _examples(raw: Raw) -> list[tuple[Image, int, bool]]:
    return [(raw.image(i), int(raw.labels[i]), bool(raw.official[i])) for i in range(len(raw))]


def _content(new: New, there: Standing) -> tuple[list[str], list[tuple[Image, int, bool]]]:
    """The names of its classes, and its examples: image, position of its class in them, whether it is for the test."""
    if not new.is_arrays:
        official = new.item.name.split("/")[0] == "test" and len(new.item.name.split("/")) == 3
        return [kept(new.group)], [(decode_image(new.path, where=new.item.name), 0, official)]
    raw = read_npz(new.path, whole=False)
    return _names(there.raw, int(raw.labels.max())) if there.raw else raw.classes, _examples(raw)


def _names(raw: Raw, highest: int) -> list[str]:
    """Class of each label of an .npz, which has numbers only. Raises BadInput for a number without a name."""
    if raw.classes == [str(label) for label in range(len(raw.classes))]:
        return [str(label) for label in range(max(highest + 1, len(raw.classes)))]
    if highest >= len(raw.classes):
        raise BadInput(f"label {highest} has no name: the data have {len(raw.classes)} classes")
    return raw.classes
