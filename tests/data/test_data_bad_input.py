"""Each way in which raw data can be bad is answered with cause, place and fix, by `prepare` and by `materialise`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from raw_layouts import noise, save_image, write_folders, write_pairs

from robustdistill.config import Data
from robustdistill.data import prepare
from robustdistill.data.raw import read_raw
from robustdistill.errors import BadInput

DATA = Data(source="image_folder")
X = np.stack([noise(f"train/{i}") for i in range(240)])
Y = np.arange(240) % 2


def changed(pixel: float, dtype: str = "float64") -> np.ndarray:
    x = (X / 255).astype(dtype)
    x[7, 0, 3, 3] = pixel
    return x


def widened(pixel: int) -> np.ndarray:
    x = X.astype(np.int32)
    x[7, 0, 3, 3] = pixel
    return x


def empty_class(raw: Path) -> None:
    (raw / "bird").mkdir()


def few(raw: Path) -> None:
    for i in range(5):
        save_image(raw / "bird" / f"{i}.png", noise(f"bird/{i}"))


def only_in_test(raw: Path) -> None:
    shutil.move(raw, raw.with_name("moved"))
    shutil.move(raw.with_name("moved"), raw / "train")
    write_folders(raw / "test", ("cat", "dog", "bird"), n=12)


def not_in_test(raw: Path) -> None:
    only_in_test(raw)
    shutil.rmtree(raw / "test" / "bird")
    shutil.rmtree(raw / "test" / "dog")


def valid_folder(raw: Path) -> None:
    only_in_test(raw)
    (raw / "valid").mkdir()


def escaping_link(raw: Path) -> None:
    outside = raw.parent / "outside.png"
    save_image(outside, noise("outside"))
    (raw / "cat" / "link.png").symlink_to(outside)


def linked_folder(raw: Path) -> None:
    (raw / "cats").symlink_to(raw / "cat", target_is_directory=True)


def truncated(raw: Path) -> None:
    path = raw / "cat" / "3.png"
    path.write_bytes(path.read_bytes()[:-30])


def bomb(raw: Path) -> None:
    Image.new("1", (8000, 8000)).save(raw / "cat" / "3.png")


FOLDERS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "missing": (shutil.rmtree, "there are no data", ""),
    "empty": (lambda raw: (shutil.rmtree(raw), raw.mkdir()), "data folder is empty", ""),
    "empty class": (empty_class, "class 'bird' is empty", ""),
    "one class": (lambda raw: shutil.rmtree(raw / "dog"), "only one class: 'cat'", ""),
    "too few": (few, r"class 'bird' has 5 different images, fewer than 30 \(10 each", ""),
    "only in test": (only_in_test, "class 'bird' is only in the test set", ""),
    "not in test": (not_in_test, "class 'dog' has 0 examples in the test set", ""),
    "third part": (valid_folder, "only be a folder test", "valid"),
    "truncated": (truncated, "truncated or damaged", "3.png"),
    "bomb": (bomb, "too large", "3.png"),
    "mixed sizes": (
        lambda raw: save_image(raw / "cat" / "z.png", noise("z", (1, 8, 9))),
        r"images of 2 sizes: 240 of 8 × 8 pixels, 1 of 9 × 8 pixels \(for example .*cat/z\.png\)",
        "",
    ),
    "mixed channels": (
        lambda raw: save_image(raw / "cat" / "z.png", noise("z", (3, 8, 8))),
        r"gray and RGB images: 240 gray, 1 RGB \(for example .*cat/z\.png\)",
        "",
    ),
    "16 bits": (lambda raw: Image.new("I;16", (8, 8)).save(raw / "cat" / "z.png"), "more than 8 bits", "z.png"),
    "escaping link": (escaping_link, "leaves the data folder", "link.png"),
    "linked folder": (linked_folder, "does not lead to a file", "cats"),
    "broken link": (lambda raw: (raw / "cat" / "l").symlink_to(raw / "none"), "does not lead to a file", "cat/l"),
    "pipe": (lambda raw: os.mkfifo(raw / "cat" / "pipe"), "neither a file nor a folder", "pipe"),
    "not an image": (lambda raw: (raw / "cat" / "notes.txt").write_text("hello"), "not a PNG", "notes.txt"),
    "file beside classes": (lambda raw: (raw / "README.md").write_text("hello"), "no class folder", "README.md"),
    "nested": (lambda raw: (raw / "cat" / "more").mkdir(), "folder within a class folder", "more"),
    "newline in the name": (lambda raw: (raw / "cat" / "a\nb").write_text(""), "not a PNG", "a\\nb"),
}


def stray_files(raw: Path) -> None:
    for i in range(11):
        (raw / f"stray{i:02}.txt").write_text("")
    (raw / "link").symlink_to(raw.parent)


def faulty_images(raw: Path) -> None:
    for i in range(8):
        (raw / "cat" / f"{i}.png").write_bytes(b"no image")
    for i in range(4):
        save_image(raw / "dog" / f"{i}.png", noise(f"wide {i}", (1, 8, 9)))
    save_image(raw / "dog" / "4.png", noise("colour", (3, 8, 8)))


def empty_classes(raw: Path) -> None:
    for name in ("eel", "fly"):
        (raw / name).mkdir()


MANY: dict[str, tuple[Callable[[Path], object], int, list[str]]] = {
    "strays and links": (
        stray_files,
        12,
        ["raw/link: this link leaves", "stray08.txt: this file is in no class folder", "and 2 more"],
    ),
    "images": (
        faulty_images,
        10,
        ["cat/0.png: this is not a PNG", "cat/7.png: ", "228 of 8 × 8 pixels, 4 of 9 × 8", "231 gray, 1 RGB"],
    ),
    "classes": (empty_classes, 2, ["class 'eel' is empty", "class 'fly' is empty"]),
    "few examples": (
        lambda raw: [save_image(raw / c / f"{i}.png", noise(f"{c}{i}")) for c in "ab" for i in range(12)],
        2,
        ["class 'a' has 12 different images", "class 'b' has 12 ", "fewer than 30"],
    ),
}


@pytest.mark.parametrize("name", MANY)
def test_all_faults_of_a_pass_are_told_at_once(tmp_path: Path, name: str) -> None:
    spoil, count, words = MANY[name]
    spoil(write_folders(tmp_path / "raw"))
    with pytest.raises(BadInput, match=f"there are {count} faults") as caught:
        prepare(tmp_path / "raw", tmp_path / "out", DATA)
    bullets = [line for line in caught.value.cause.splitlines() if line.startswith("  - ")]
    assert len(bullets) == min(count, 10) and all(word in caught.value.cause for word in words)
    assert caught.value.where == str(tmp_path / "raw") and caught.value.fix


def test_all_faults_of_arrays_are_told_at_once(tmp_path: Path) -> None:
    raw = write_pairs(tmp_path / "raw", train_x=np.where(Y[:, None, None, None] == 1, X / 100, X / 255))
    with pytest.raises(BadInput, match="there are 120 faults") as caught:
        prepare(raw, tmp_path / "out", DATA)
    assert "train_x.npy, example 1: values from" in caught.value.cause and "and 110 more" in caught.value.cause
    for name in ("notes.txt", "more.txt"):
        (raw / name).write_text("")
    with pytest.raises(BadInput, match="there are 2 faults") as caught:
        prepare(raw, tmp_path / "out", DATA)
    assert "notes.txt: this file does not belong" in caught.value.cause


@pytest.mark.parametrize("name", FOLDERS)
def test_bad_folders(tmp_path: Path, name: str) -> None:
    spoil, cause, where = FOLDERS[name]
    spoil(write_folders(tmp_path / "raw"))
    with pytest.raises(BadInput, match=cause) as caught:
        prepare(tmp_path / "raw", tmp_path / "out", DATA)
    assert str(tmp_path / "raw") in caught.value.where and where in caught.value.where
    assert caught.value.fix


ARRAYS: dict[str, tuple[dict[str, np.ndarray], str, str]] = {
    "objects": ({"train_x": np.array([None] * 240)}, "values of type object", "train_x.npy"),
    "texts": ({"train_y": np.array(["a"] * 240)}, "values of type <U1", "train_y.npy"),
    "truth values": ({"train_x": X > 9}, "values of type bool", "train_x.npy"),
    "wrong lengths": ({"train_y": Y[:-1]}, "240 images but 239 labels", "train_x.npy"),
    "not a number": ({"train_x": changed(np.nan)}, "not a number", "train_x.npy, example 7"),
    "infinite": ({"train_x": changed(np.inf, "float32")}, "infinite", "train_x.npy, example 7"),
    "above 1": ({"train_x": changed(1.5)}, "to 1.5", "train_x.npy, example 7"),
    "below 0": ({"train_x": changed(-0.1)}, "from -0.1", "train_x.npy, example 7"),
    "wide whole numbers": ({"train_x": widened(300)}, "values from . to 300", "train_x.npy, example 7"),
    "16 bits": ({"train_x": X.astype(np.uint16)}, "16 bits", "train_x.npy"),
    "shape": ({"train_x": X[:, 0, 0]}, r"shape \[240, 8\]", "train_x.npy"),
    "channels": ({"train_x": np.zeros((240, 4, 8, 8), np.uint8)}, r"shape \[240, 4, 8, 8\]", "train_x.npy"),
    "labels in columns": ({"train_y": Y[:, None]}, r"labels of shape \[240, 1\]", "train_y.npy"),
    "negative labels": ({"train_y": Y - 1}, "negative: -1", "train_y.npy"),
    "fractional labels": ({"train_y": Y / 2}, "not a whole number", "train_y.npy"),
    "huge label": ({"train_y": Y * 10**15}, "too large", "train_y.npy"),
    "many classes": ({"train_y": Y * 10**6}, "limit of 100000 classes", ""),
    "skipped class": ({"train_y": Y * 2}, "class '1' is empty", ""),
    "one class": ({"train_y": Y * 0}, "only one class", ""),
    "no examples": ({"train_x": X[:0], "train_y": Y[:0]}, "no examples", ""),
    "half a test set": ({"test_x": X}, "test_y.npy is missing", ""),
    "only in test": ({"test_x": X[:40], "test_y": np.arange(40) % 3}, "'2' is only in the test set", ""),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_bad_arrays(tmp_path: Path, name: str) -> None:
    arrays, cause, where = ARRAYS[name]
    write_pairs(tmp_path / "raw", **arrays)
    with pytest.raises(BadInput, match=cause) as caught:
        prepare(tmp_path / "raw", tmp_path / "out", DATA)
    assert where in caught.value.where and caught.value.fix


FILES: dict[str, tuple[str, bytes, str]] = {
    "unknown file": ("notes.txt", b"", "does not belong"),
    "unknown array": ("train_z.npy", b"", "does not belong"),
    "names: no JSON": ("classes.json", b"{", "not a readable JSON"),
    "names: no list": ("classes.json", b"{}", "not a list of texts"),
    "names: too few": ("classes.json", b'["a"]', "label 1 has no name"),
    "names: twice": ("classes.json", b'["a", "a"]', "twice"),
    "names: too many": ("classes.json", b'["a", "b", "c"]', "class 'c' is empty"),
    "array: no array": ("train_y.npy", b"hello", "cannot be read"),
    "array: no content": ("train_y.npy", b"", "cannot be read"),
    "array: huge claim": (
        "train_y.npy",
        b"\x93NUMPY\x01\x00\x76\x00"
        + b"{'descr': '<i8', 'fortran_order': False, 'shape': (9999999999999,), }".ljust(118),
        "truncated",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_bad_files_among_arrays(tmp_path: Path, name: str) -> None:
    file, content, cause = FILES[name]
    (write_pairs(tmp_path / "raw") / file).write_bytes(content)
    with pytest.raises(BadInput, match=cause) as caught:
        prepare(tmp_path / "raw", tmp_path / "out", DATA)
    assert caught.value.where and caught.value.fix


def test_half_a_pair_is_named(tmp_path: Path) -> None:
    (write_pairs(tmp_path / "raw") / "train_y.npy").unlink()
    with pytest.raises(BadInput, match=r"train_y\.npy is missing"):
        prepare(tmp_path / "raw", tmp_path / "out", DATA)


NPZ: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "objects": ({"images": np.array([{}] * 3, dtype=object), "labels": Y[:3]}, "values of type object"),
    "unknown array": ({"images": X, "labels": Y, "extra": Y}, "unexpected array 'extra'"),
    "no labels": ({"images": X}, "labels is missing"),
    "a decompression bomb": ({"images": np.zeros((1, 4097, 4097), np.uint8), "labels": Y[:1]}, "4097 by 4097 pixels"),
    "half a test set": ({"images": X, "labels": Y, "test_labels": Y}, "test_images is missing"),
}


@pytest.mark.parametrize("name", NPZ)
@pytest.mark.parametrize("inside", [True, False], ids=["in a folder", "as a file"])
def test_bad_npz(tmp_path: Path, name: str, inside: bool) -> None:
    arrays, cause = NPZ[name]
    folder = tmp_path / "raw"
    folder.mkdir()
    np.savez(folder / "data.npz", **arrays)
    with pytest.raises(BadInput, match=cause) as caught:
        prepare(folder if inside else folder / "data.npz", tmp_path / "out", DATA)
    assert "data.npz" in caught.value.where and caught.value.fix


@pytest.mark.parametrize("kept", [0, 10, 5000])
def test_a_truncated_npz_is_no_traceback(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, images=X, labels=Y)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BadInput, match=r"not a readable \.npz"):
        prepare(path, tmp_path / "out", DATA)


def test_a_damaged_array_in_an_npz_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, images=X, labels=Y)
    content = bytearray(path.read_bytes())
    content[3000] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(BadInput, match="damaged") as caught:
        prepare(path, tmp_path / "out", DATA)
    assert "images" in caught.value.where


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["plain.npz", "packed.npz", "pairs/train_y.npy"]),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=5),
    st.integers(0, 3000),
)
def test_damaged_arrays_give_data_or_a_sentence_never_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, name: str, edits: list[tuple[int, int]], kept: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    (folder / "pairs").mkdir(parents=True, exist_ok=True)
    np.savez(folder / "plain.npz", images=X[:3], labels=np.array([0, 1, 1]))
    np.savez_compressed(folder / "packed.npz", images=X[:3], labels=np.array([0, 1, 1]))
    write_pairs(folder / "pairs", train_x=X[:3], train_y=np.array([0, 1, 1]))
    content = bytearray((folder / name).read_bytes())
    for place, value in edits:
        content[place % len(content)] = value
    (folder / name).write_bytes(content[:kept])
    try:
        raw = read_raw(folder / name if name.endswith(".npz") else folder / "pairs")
        for i in range(len(raw)):
            raw.image(i)
    except BadInput as error:
        assert error.where and error.fix


def test_an_array_that_claims_too_much_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustdistill.data.arrays.MAX_ARRAY_BYTES", 5000)
    np.savez_compressed(tmp_path / "data.npz", images=np.zeros((240, 8, 8), np.uint8), labels=Y)
    with pytest.raises(BadInput, match="claims"):
        prepare(tmp_path / "data.npz", tmp_path / "out", DATA)


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = write_folders(tmp_path / "raw", n=1)

    def refuse(self: Path) -> list[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(BadInput, match="Permission denied") as caught:
        prepare(raw, tmp_path / "out", DATA)
    assert caught.value.where == str(raw)


def test_litter_of_file_browsers_is_passed_over(tmp_path: Path) -> None:
    raw = write_folders(tmp_path / "raw")
    (raw / ".DS_Store").write_bytes(b"x")
    (raw / "cat" / "Thumbs.db").write_bytes(b"x")
    prepare(raw, tmp_path / "out", DATA)
