from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from raw_layouts import noise, write_pairs

from robustdistill.config import Data
from robustdistill.data import Prepared, prepare
from robustdistill.data.drift import compare

N = 240
X = np.stack([noise(f"train/{i}") for i in range(N)])
Y = np.arange(N) % 2


def prepared(folder: Path, **arrays: Any) -> Prepared:
    prepare(write_pairs(folder / "raw", **({"train_x": X, "train_y": Y} | arrays)), folder / "out", Data(source="npz"))
    return Prepared.open(folder / "out")


def test_equal_data_have_not_changed(tmp_path: Path) -> None:
    changes = compare(prepared(tmp_path / "a"), prepared(tmp_path / "b"))
    assert (changes.added, changes.removed, changes.relabelled) == (0, 0, 0)
    assert changes.counts_before == changes.counts_after
    assert changes.drift is not None and changes.drift["brightness_distance"] == 0
    assert "Shift of brightness: 0.000 of 1 (small)" in changes.markdown()


def test_what_came_went_or_has_another_label_is_counted(tmp_path: Path) -> None:
    extra = np.stack([noise(f"extra/{i}") for i in range(7)])
    x, y = np.concatenate([X[5:], extra, extra[:3]]), np.concatenate([Y[5:], [0] * 7, [0] * 3])
    y[:2] = 1 - y[:2]
    changes = compare(prepared(tmp_path / "a"), prepared(tmp_path / "b", train_x=x, train_y=y))
    assert (changes.added, changes.removed, changes.relabelled) == (7, 5, 2)
    assert changes.removed_from_train["duplicate"] == 3
    text = changes.markdown()
    assert "7 examples added, 5 removed, 2 with another label" in text and "3 duplicates" in text


def test_brighter_images_are_notable(tmp_path: Path) -> None:
    brighter = (X // 2 + 127).astype(np.uint8)
    changes = compare(prepared(tmp_path / "a"), prepared(tmp_path / "b", train_x=brighter))
    assert changes.drift is not None
    assert changes.drift["brightness_distance"] > 0.9
    assert changes.drift["mean_after"][0] - changes.drift["mean_before"][0] > 0.2
    assert "(notable)" in changes.markdown()


def test_a_new_class_and_a_lost_one_stand_in_the_table(tmp_path: Path) -> None:
    old, new = tmp_path / "a", tmp_path / "b"
    (old / "raw").mkdir(parents=True)
    (new / "raw").mkdir(parents=True)
    (old / "raw" / "classes.json").write_text('["kept", "lost"]')
    (new / "raw" / "classes.json").write_text(json.dumps(["kept", "new|\n"]))
    text = compare(prepared(old), prepared(new)).markdown()
    rows = {line.split(" | ")[0]: line for line in text.splitlines()}
    assert rows["| lost"].count("(-") == 3
    assert rows["| new\\|\\n"].count("(") == 0
    assert compare(prepared(old), prepared(new)).relabelled == N // 2


def test_the_first_data_have_nothing_to_be_compared_with(tmp_path: Path) -> None:
    changes = compare(None, prepared(tmp_path / "a"))
    assert changes.added == N and changes.drift is None and changes.counts_before == {}
    json.dumps(changes.to_json(), allow_nan=False)
    assert "Shift" not in changes.markdown()
