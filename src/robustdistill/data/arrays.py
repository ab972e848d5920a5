"""Arrays as raw data: `.npy` pairs and `.npz` files. Headers are checked before content, and nothing is unpickled."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from robustdistill.data.faults import Faults
from robustdistill.data.raw import Raw, check_classes
from robustdistill.errors import BadInput
from robustdistill.inputs import from_unit, shown
from robustdistill.inputs.pixels import MAX_PIXELS

MAX_ARRAY_BYTES = 16 * 2**30  # of one array in an .npz: a zip can claim anything
MAX_CLASSES = 100_000
CLASSES = "classes.json"
PAIRS = ("train_x", "train_y", "test_x", "test_y")
NPZ_NAMES = ("images", "labels", "test_images", "test_labels")

_LABELS = "labels are whole numbers from 0 on without gaps, one for each image"
_NPZ = "write it with numpy.savez"
_NAMES = 'write the class names as a JSON list: ["cat", "dog"]'
_SHAPES = "use [N, H, W], [N, C, H, W] or [N, H, W, C]"

Arrays = Mapping[str, NDArray[Any]]


def read_pairs(folder: Path, found: Sequence[Path], faults: Faults) -> Raw:
    """train_x.npy, train_y.npy[, test_x.npy, test_y.npy, classes.json]; the images stay on disk. Raises BadInput."""
    allowed = {f"{name}.npy": name for name in PAIRS}
    arrays: dict[str, NDArray[Any]] = {}
    for path in found:
        with faults.gathered():
            if path.name in allowed:
                arrays[allowed[path.name]] = _load_npy(path)
            elif path.name != CLASSES:
                raise BadInput(
                    "this file does not belong to arrays of data",
                    where=shown(path),
                    fix=f"keep only {', '.join([*allowed, CLASSES])}",
                )
    faults.raise_any()
    classes = folder / CLASSES
    return from_arrays(arrays, _read_classes(classes) if classes in found else None, folder, PAIRS, ".npy")


def read_npz(path: Path, *, whole: bool = True) -> Raw:
    """An .npz with images, labels[, test_images, test_labels]; read into memory. Raises BadInput.

    whole: as in `from_arrays`.
    """
    return from_arrays(load_npz(path), None, path, NPZ_NAMES, "", whole=whole)


def load_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz, none but NPZ_NAMES, each whole and of plain numbers. Raises BadInput."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            _only_known(members, path)
            return {name: _load_member(archive, member, path) for name, member in members.items()}
    except BadInput:
        raise
    except Exception as error:  # a hostile archive can make the reader raise anything
        raise BadInput(f"this is not a readable .npz file: {error}", where=shown(path), fix=_NPZ) from error


def from_arrays(
    arrays: Arrays,
    classes: list[str] | None,
    where: Path,
    names: Sequence[str] = PAIRS,
    suffix: str = "",
    *,
    whole: bool = True,
) -> Raw:
    """Raw data of four (or two) arrays called `names`. classes: default "0", "1", ….

    whole: a data set; False: more examples for one, in which classes may be missing. Raises BadInput.
    """
    base = shown(where)
    train_x, train_y = (_required(arrays, name, base, suffix) for name in names[:2])
    parts = [(names[0], train_x, labels(train_y, f"{base}, {names[1]}{suffix}"))]
    if names[2] in arrays or names[3] in arrays:
        test_x, test_y = (_required(arrays, name, base, suffix) for name in names[2:])
        parts.append((names[2], test_x, labels(test_y, f"{base}, {names[3]}{suffix}")))
    layouts = [layout(x, len(y), f"{base}, {name}{suffix}") for name, x, y in parts]
    y = np.concatenate([y for _, _, y in parts])
    n = len(parts[0][2])
    official = np.arange(len(y)) >= n
    classes = _class_names(classes, y, base)
    if whole:
        check_classes(classes, y, official, base)

    def image(i: int) -> NDArray[np.uint8]:
        part, row = (0, i) if i < n else (1, i - n)
        return _to_uint8(_channels_first(parts[part][1][row], layouts[part]), lambda: place(i))

    def place(i: int) -> str:
        part, row = (0, i) if i < n else (1, i - n)
        return f"{base}, {parts[part][0]}{suffix}, example {row}"

    return Raw(classes, y, official, len(parts) == 2, image, place)


def _required(arrays: Arrays, name: str, base: str, suffix: str) -> NDArray[Any]:
    if name not in arrays:
        raise BadInput(f"{name}{suffix} is missing", where=base, fix="images and labels come in pairs")
    return arrays[name]


def _read_classes(path: Path) -> list[str]:
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput("this is not a readable JSON file", where=shown(path), fix=_NAMES) from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadInput("the class names are not a list of texts", where=shown(path), fix=_NAMES)
    if len(set(names)) < len(names):
        raise BadInput("a class name stands there twice", where=shown(path), fix="give each class its own name")
    return names


def _class_names(given: list[str] | None, y: NDArray[np.int64], where: str) -> list[str]:
    count = int(y.max()) + 1 if len(y) else 0
    if count > MAX_CLASSES:
        raise BadInput(f"label {count - 1} is above the limit of {MAX_CLASSES} classes", where=where, fix=_LABELS)
    if given is None:
        return [str(label) for label in range(count)]
    if count > len(given):
        raise BadInput(
            f"label {count - 1} has no name: there are {len(given)} class names", where=where, fix=f"complete {CLASSES}"
        )
    return given


def labels(y: NDArray[Any], where: str) -> NDArray[np.int64]:
    """Checked labels [N]. Raises BadInput for what is not whole, negative, too large or of another shape."""
    if y.ndim != 1 or y.dtype.kind not in "iuf":
        raise BadInput(f"labels of shape {list(y.shape)} and type {y.dtype}", where=where, fix=_LABELS)
    if y.dtype.kind == "f" and not (np.isfinite(y).all() and (y == np.rint(y)).all()):
        raise BadInput("a label is not a whole number", where=where, fix=_LABELS)
    if len(y) and y.min() < 0:
        raise BadInput(f"a label is negative: {y.min()}", where=where, fix=_LABELS)
    if len(y) and y.max() > np.iinfo(np.int32).max:
        raise BadInput(f"a label is too large: {y.max()}", where=where, fix=_LABELS)
    return y.astype(np.int64)


def layout(x: NDArray[Any], count: int, where: str) -> str:
    """How one image of `x` is stored: "hw", "chw" or "hwc". count: of labels. Raises BadInput."""
    if x.dtype == np.uint16:
        raise BadInput("the images have 16 bits a channel", where=where, fix="convert them to uint8")
    if x.dtype.kind not in "iuf":
        raise BadInput(f"the images have values of type {x.dtype}", where=where, fix="use uint8, or floats in [0, 1]")
    if x.ndim not in (3, 4) or 0 in x.shape[1:]:
        raise BadInput(f"images of shape {list(x.shape)}", where=where, fix=_SHAPES)
    if len(x) != count:
        raise BadInput(f"{len(x)} images but {count} labels", where=where, fix="give each image one label")
    if x.ndim == 3:
        return "hw"
    if x.shape[1] in (1, 3):
        return "chw"
    if x.shape[3] in (1, 3):
        return "hwc"
    raise BadInput(f"images of shape {list(x.shape)}", where=where, fix="use 1 channel (gray) or 3 (RGB)")


def _channels_first(image: NDArray[Any], layout: str) -> NDArray[Any]:
    if layout == "hw":
        return image[None]
    return image if layout == "chw" else np.moveaxis(image, -1, 0)


def _to_uint8(image: NDArray[Any], place: Any) -> NDArray[np.uint8]:
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    if not np.isfinite(image).all():
        raise BadInput("there is a value that is not a number (NaN) or infinite", where=place(), fix="remove the image")
    top = 1 if image.dtype.kind == "f" else 255
    if image.min() < 0 or image.max() > top:
        raise BadInput(
            f"values from {image.min()} to {image.max()}",
            where=place(),
            fix=f"values of type {image.dtype} are in [0, {top}]",
        )
    return from_unit(image) if top == 1 else np.ascontiguousarray(image, dtype=np.uint8)


def _load_npy(path: Path) -> NDArray[Any]:
    """A memory map, its header checked against the size of the file."""
    where = shown(path)
    try:
        with path.open("rb") as stream:
            _check_header(stream, path.stat().st_size, where)
        array: NDArray[Any] = np.load(path, mmap_mode="r" if path.stat().st_size else None, allow_pickle=False)
    except BadInput:
        raise
    except Exception as error:  # as in read_npz
        raise BadInput(f"the file cannot be read: {error}", where=where, fix="write it with numpy.save") from error
    return array


def _load_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> NDArray[Any]:
    where = f"{shown(path)}, {shown(member.filename)}"
    if member.file_size > MAX_ARRAY_BYTES:
        raise BadInput(f"the array claims {member.file_size} bytes", where=where, fix="use .npy files")
    try:
        with archive.open(member) as stream:
            _check_header(stream, member.file_size, where)
        with archive.open(member) as stream:
            array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    except BadInput:
        raise
    except Exception as error:  # as in read_npz
        raise BadInput(f"the array is damaged: {error}", where=where, fix=_NPZ) from error
    return array


def _only_known(members: Mapping[str, object], path: Path) -> None:
    for name in members:
        if name not in NPZ_NAMES:
            raise BadInput(
                f"unexpected array {shown(name)!r}", where=shown(path), fix=f"keep only {', '.join(NPZ_NAMES)}"
            )


def _check_header(stream: IO[bytes], size: int, where: str) -> None:
    """Raises BadInput for objects and records, and where the header promises other than `size` bytes in all."""
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise BadInput(f"an array file of version {version}", where=where, fix="store plain numbers")
    shape, _, dtype = read(stream)
    if dtype.hasobject or dtype.kind not in "biuf":
        raise BadInput(f"the array holds values of type {dtype}", where=where, fix="store plain numbers")
    if len(shape) >= 3 and shape[1] * shape[2] > MAX_PIXELS:  # [N, H, W(, C)] or [N, C, H, W]
        raise BadInput(
            f"the array claims images of {shape[1]} by {shape[2]} pixels", where=where, fix="use smaller images"
        )
    count = 1
    for length in shape:
        count *= length
    promised = stream.tell() + count * dtype.itemsize
    if promised != size:
        raise BadInput(f"the array is truncated: {size} of {promised} bytes", where=where, fix="write it again")
