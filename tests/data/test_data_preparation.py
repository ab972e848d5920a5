from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raw_layouts import noise, save_image, write_folders, write_pairs

from robustdistill.config import Data
from robustdistill.data import Prepared, prepare
from robustdistill.data.prepared import SPLITS
from robustdistill.errors import BadInput

DATA = Data(source="image_folder")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_layout_of_the_same_images_is_prepared_to_the_same_bytes(tmp_path: Path) -> None:
    n = 120
    x = np.stack([noise(f"{name}/{i}") for name in "01" for i in range(n)])
    y = np.repeat([0, 1], n)
    np.savez(tmp_path / "a.npz", images=x[:, 0], labels=y.astype(np.float32))
    raws = [
        write_folders(tmp_path / "folders", "01", n),
        write_pairs(tmp_path / "pairs", train_x=x, train_y=y.astype(np.uint8)),
        write_pairs(tmp_path / "floats", train_x=np.moveaxis(x, 1, -1) / 255, train_y=y),
        write_pairs(tmp_path / "shuffled", train_x=x[::-1].astype(np.int64), train_y=y[::-1]),
        tmp_path / "a.npz",
    ]
    prepared = []
    for i, raw in enumerate(raws):
        prepare(raw, tmp_path / str(i), DATA)
        prepared.append(contents(tmp_path / str(i)))
    assert all(each == prepared[0] for each in prepared[1:])
    assert set(prepared[0]) == {"manifest.json", *(f"{s}_{part}.npy" for s in SPLITS for part in ("x", "y", "id"))}


def test_pixels_labels_and_names_arrive(tmp_path: Path) -> None:
    write_folders(tmp_path / "raw", ("cat", "dog"), shape=(3, 8, 6))
    manifest = prepare(tmp_path / "raw", tmp_path / "out", DATA)
    assert (manifest.kind, manifest.shape, manifest.classes) == ("image", (3, 8, 6), ["cat", "dog"])
    expected = {noise(f"{name}/{i}", (3, 8, 6)).tobytes(): name for name in ("cat", "dog") for i in range(120)}
    found = {}
    for name in SPLITS:
        split = Prepared.open(tmp_path / "out").split(name)
        found |= {x.tobytes(): manifest.classes[y] for x, y in zip(split.x, split.y, strict=True)}
        assert np.bincount(split.y).tolist() == manifest.counts[name]
    assert found == expected


def test_mean_and_deviation_are_those_of_train(tmp_path: Path) -> None:
    write_folders(tmp_path / "raw", shape=(3, 8, 6))
    manifest = prepare(tmp_path / "raw", tmp_path / "out", DATA)
    x = Prepared.open(tmp_path / "out").split("train").x / 255
    np.testing.assert_allclose(manifest.mean, x.mean(axis=(0, 2, 3)), atol=1e-7)
    np.testing.assert_allclose(manifest.std, x.std(axis=(0, 2, 3)), atol=1e-7)


def test_a_constant_channel_is_not_divided_by_nothing(tmp_path: Path) -> None:
    x = np.stack([noise(f"flat/{i}", (3, 8, 8)) for i in range(240)])
    x[:, 1] = 7
    assert prepare(write_pairs(tmp_path / "raw", train_x=x), tmp_path / "out", DATA).std[1] == 1.0


def test_train_and_test_folders_are_an_official_split(tmp_path: Path) -> None:
    write_folders(tmp_path / "raw" / "train", "ab")
    for name in "ab":
        for i in range(12):
            save_image(tmp_path / "raw" / "test" / name / f"{i}.png", noise(f"{name}/{i}"), compress_level=0)
    manifest = prepare(tmp_path / "raw", tmp_path / "out", DATA)
    assert manifest.counts["test"] == [12, 12]
    assert manifest.removed == {"in_test": 24, "contradictory": 0, "duplicate": 0}
    assert sum(manifest.counts["train"] + manifest.counts["val"]) == 240 - 24


def test_folders_called_train_and_test_may_also_be_classes(tmp_path: Path) -> None:
    write_folders(tmp_path / "raw", ("test", "train"), n=200)
    assert prepare(tmp_path / "raw", tmp_path / "out", DATA).classes == ["test", "train"]


def test_any_legal_name_will_do(tmp_path: Path) -> None:
    names = ["-rf", ".hidden", "Größe 猫", "a b", "line\nbreak", "tab\t|"]
    write_folders(tmp_path / "raw", names, n=200)
    (tmp_path / "raw" / "-rf" / "0.png").rename(tmp_path / "raw" / "-rf" / "--help\n.png")
    manifest = prepare(tmp_path / "raw", tmp_path / "out", DATA)
    assert manifest.classes == sorted(names)
    assert sum(map(sum, manifest.counts.values())) == 1200


def test_limit_touches_train_alone(tmp_path: Path) -> None:
    raw = write_pairs(tmp_path / "raw", n=240)
    full = prepare(raw, tmp_path / "full", DATA)
    limited = prepare(raw, tmp_path / "limited", Data(source="npz", limit=40))
    assert sum(limited.counts["train"]) == 40
    assert limited.counts["test"] == full.counts["test"] and limited.counts["val"] == full.counts["val"]
    assert limited.data_digest != full.data_digest


def test_resize_makes_one_size_of_many(tmp_path: Path) -> None:
    raw = write_folders(tmp_path / "raw", shape=(1, 12, 20))
    save_image(raw / "cat" / "wide.png", noise("wide", (1, 10, 40)))
    assert prepare(raw, tmp_path / "out", Data(source="image_folder", resize=8)).shape == (1, 8, 8)
    assert Prepared.open(tmp_path / "out").manifest.resize
    with pytest.raises(BadInput, match=r"20 × 12 pixels, 1 of 40 × 10 .*wide\.png") as caught:
        prepare(raw, tmp_path / "out", DATA)
    assert caught.value.where == str(raw) and "set data.resize: 10 in params.yaml" in caught.value.fix


def test_links_within_the_folder_count_as_the_files_they_lead_to(tmp_path: Path) -> None:
    raw = write_folders(tmp_path / "raw")
    (raw / "cat" / "again.png").symlink_to(raw / "cat" / "0.png")
    assert prepare(raw, tmp_path / "out", DATA).removed["duplicate"] == 1


def test_a_manifest_without_resize_does_not_name_it(tmp_path: Path) -> None:
    prepare(write_pairs(tmp_path / "raw"), tmp_path / "out", DATA)
    assert "resize" not in (tmp_path / "out" / "manifest.json").read_text()


def test_progress_ends_at_the_end(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    prepare(write_pairs(tmp_path / "raw"), tmp_path / "out", DATA, progress=lambda *step: told.append(step))
    assert told[-1] == (240, 240)


def test_nothing_of_the_work_is_left_behind_on_an_error(tmp_path: Path) -> None:
    raw = write_folders(tmp_path / "raw")
    (raw / "dog" / "9.png").write_bytes(b"no image")
    with pytest.raises(BadInput):
        prepare(raw, tmp_path / "out", DATA)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_digest_is_of_contents_labels_and_splits(tmp_path: Path) -> None:
    x = np.stack([noise(f"train/{i}") for i in range(240)])
    digests = {
        prepare(write_pairs(tmp_path / name, **changed), tmp_path / "out", DATA).data_digest
        for name, changed in {
            "same": {},
            "pixel": {"train_x": np.where(np.arange(240)[:, None, None, None] == 0, 255 - x, x)},
            "label": {"train_y": np.where(np.arange(240) == 0, 1, np.arange(240) % 2)},
            "test": {"test_x": x[:40], "test_y": np.arange(40) % 2},
        }.items()
    }
    assert len(digests) == 4


def test_palette_and_gray_files_of_one_set_are_told_apart(tmp_path: Path) -> None:
    raw = write_folders(tmp_path / "raw")
    Image.fromarray(noise("p")[0]).convert("P").save(raw / "cat" / "palette.png")
    with pytest.raises(BadInput, match=r"240 gray, 1 RGB .*palette\.png"):
        prepare(raw, tmp_path / "out", DATA)
