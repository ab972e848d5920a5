from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from raw_layouts import noise, write_pairs

from robustdistill.config import Data
from robustdistill.data import Manifest, Prepared, prepare
from robustdistill.errors import BadInput
from robustdistill.inputs import to_unit


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    prepare(write_pairs(tmp_path / "raw"), tmp_path / "out", Data(source="npz"))
    return Prepared.open(tmp_path / "out")


def test_take_gives_model_input_labels_and_content_ids(prepared: Prepared) -> None:
    split = prepared.split("val")
    positions = np.array([3, 0, 3])
    x, y, index = split.take(positions)
    assert (x.dtype, y.dtype, index.dtype) == (torch.float32, torch.int64, torch.int64)
    assert x.shape == (3, 1, 8, 8) and len(split) == len(split.x)
    np.testing.assert_array_equal(x.numpy(), to_unit(split.x[positions]))
    assert index.tolist() == split.id[positions].tolist() and y.tolist() == split.y[positions].tolist()


def test_what_is_taken_can_be_written_to_and_the_file_stays(prepared: Prepared) -> None:
    split = prepared.split("train")
    x, y, _ = split.take(np.array([0]))
    x.zero_()
    y.fill_(9)
    assert split.x[0].any() and split.y[0] != 9


def test_images_stay_on_disk(prepared: Prepared) -> None:
    assert isinstance(prepared.split("train").x, np.memmap)


def test_a_manifest_survives_json(prepared: Prepared) -> None:
    record = json.loads(json.dumps(prepared.manifest.to_json()))
    assert Manifest.from_json(record) == prepared.manifest


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, "no prepared data"),
        ("{", "not a manifest"),
        ("[]", "not a manifest"),
        ('{"format": 1}', "not a manifest"),
    ],
)
def test_a_missing_or_damaged_manifest_is_said(prepared: Prepared, content: str | None, cause: str) -> None:
    path = prepared.folder / "manifest.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(BadInput, match=cause) as caught:
        Prepared.open(prepared.folder)
    assert caught.value.where == str(path)


def test_data_of_another_format_are_refused(prepared: Prepared) -> None:
    record = prepared.manifest.to_json() | {"format": 2}
    (prepared.folder / "manifest.json").write_text(json.dumps(record))
    with pytest.raises(BadInput, match="format 2"):
        Prepared.open(prepared.folder)


@pytest.mark.parametrize("damage", ["missing", "truncated", "other"])
def test_arrays_that_do_not_fit_are_refused(prepared: Prepared, damage: str) -> None:
    path = prepared.folder / "train_x.npy"
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[:-1])
    if damage == "other":
        np.save(path, noise("x", (3, 1, 8, 8)))
    with pytest.raises(BadInput, match=r"missing or damaged|do not fit"):
        prepared.split("train")
