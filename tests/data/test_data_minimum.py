"""What somebody is told whose data are too few: per class one line, the cause first, and a fix that helps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from raw_layouts import Pixels, noise, save_image, write_folders, write_pairs

from robustdistill.config import Data
from robustdistill.data import prepare
from robustdistill.errors import BadInput

DATA = Data(source="image_folder")


def refused(raw: Path, data: Data = DATA) -> BadInput:
    with pytest.raises(BadInput) as caught:
        prepare(raw, raw.parent / "out", data)
    assert caught.value.where == str(raw)
    return caught.value


def save_copies(folder: Path, image: Pixels, n: int) -> None:
    for i in range(n):
        save_image(folder / f"copy {i}.png", image)


def test_thirty_images_of_each_class_are_enough(tmp_path: Path) -> None:
    counts = prepare(write_folders(tmp_path / "raw", "abc", n=30), tmp_path / "out", DATA).counts
    assert counts == {name: [10, 10, 10] for name in ("train", "val", "test")}


def test_one_class_that_is_too_small_is_told_what_it_lacks(tmp_path: Path) -> None:
    write_folders(tmp_path / "raw", "ab", n=30)
    error = refused(write_folders(tmp_path / "raw", "c", n=29))
    assert error.cause == "class 'c' has 29 different images, fewer than 30 (10 each for train, val and test)"
    assert error.fix == "add 1 or more images of class 'c'"


def test_beside_a_test_folder_twenty_are_enough_and_nobody_is_sent_to_data_test(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_folders(raw / "test", ("test a", "test b"), n=10)
    for name in "ab":
        (raw / "test" / f"test {name}").rename(raw / "test" / name)
    write_folders(raw / "train", "a", n=20)
    error = refused(write_folders(raw / "train", "b", n=17).parent)
    assert error.cause == (
        "class 'b' has 17 different images beside the test set, fewer than 20 (10 each for train and val)"
    )
    assert error.fix == "add 3 or more images of class 'b' to train"
    write_folders(raw / "train", "b", n=20)
    assert prepare(raw, tmp_path / "out", DATA).counts == {name: [10, 10] for name in ("train", "val", "test")}


def test_a_test_folder_that_is_too_small_may_be_filled_or_left_out(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_folders(raw / "train", "ab", n=40)
    for name in "ab":
        for i in range(3):
            save_image(raw / "test" / name / f"{i}.png", noise(f"test {name} {i}"))
    error = refused(raw)
    assert error.cause.startswith("there are 2 faults") and "class 'a' has 3 examples in the test set" in error.cause
    assert error.fix == (
        "add images of each of these classes to test, or give no test set, "
        "and a share of all images becomes one (data.test)"
    )


def test_contradictory_labels_are_named_before_the_classes_that_they_emptied(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for name in "ab":
        save_copies(raw / name, noise("the same"), 100)
    error = refused(write_folders(raw, "c", n=40))
    assert error.cause.splitlines() == [
        "there are 3 faults",
        "  - 200 images have contradictory labels and are left out: equal images lie in different classes, "
        f"for example {raw}/a/copy 0.png and {raw}/b/copy 0.png",
        *(
            f"  - class '{name}' has 0 different images, fewer than 30 (10 each for train, val and test); "
            "100 were found: 100 with contradictory labels"
            for name in "ab"
        ),
    ]
    assert error.fix == "keep each image in one class only; add images of each of these classes"


def test_contradictions_that_emptied_no_class_are_no_fault(tmp_path: Path) -> None:
    raw = write_folders(tmp_path / "raw", "ab", n=40)
    save_copies(raw / "a", noise("the same"), 2)
    save_copies(raw / "b", noise("the same"), 1)
    assert prepare(raw, tmp_path / "out", DATA).removed["contradictory"] == 3
    assert "contradictory" not in refused(write_folders(raw, "c", n=12)).cause


def test_copies_and_images_of_the_test_set_do_not_count(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_folders(raw / "train", "ab", n=25)
    for name in "ab":
        for i in range(12):
            save_image(raw / "test" / name / f"{i}.png", noise(f"{name}/{i}"))
    save_copies(raw / "train" / "a", noise("a/20"), 7)
    cause = refused(raw).cause
    assert "class 'a' has 13 different images" in cause and "32 were found: 12 also in the test set, 7 dup" in cause
    assert "class 'b' has 13 different images" in cause and "25 were found: 12 also in the test set\n" in cause + "\n"


def test_a_limit_that_leaves_too_few_is_named(tmp_path: Path) -> None:
    raw = write_pairs(tmp_path / "raw", n=440, train_y=np.where(np.arange(440) < 40, 1, 0))
    error = refused(raw, Data(source="npz", limit=40))
    assert "in train within data.limit, fewer than 10" in error.cause and "class '1' has" in error.cause
    assert error.fix == "raise data.limit in params.yaml, or set it to null"
