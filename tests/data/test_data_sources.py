from __future__ import annotations

import gzip
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from raw_layouts import noise, write_folders, write_pairs

from robustdistill.config import Data
from robustdistill.data import Prepared, materialise, prepare
from robustdistill.data.sources import SOURCES, digits, fashion_mnist
from robustdistill.data.sources.idx import read_idx
from robustdistill.errors import BadInput, ServiceFailed


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def write_idx(folder: Path, *, gz: bool = True, n: int = 240) -> Path:
    """The four files of Fashion-MNIST, small: 28 × 28, ten classes."""
    folder.mkdir(parents=True)
    for part, count in (("train", n), ("t10k", n // 2)):
        x = np.stack([noise(f"{part}/{i}", (28, 28)) for i in range(count)])
        files = {
            f"{part}-images-idx3-ubyte": struct.pack(">HBBIII", 0, 8, 3, *x.shape) + x.tobytes(),
            f"{part}-labels-idx1-ubyte": struct.pack(">HBBI", 0, 8, 1, count)
            + (np.arange(count) % 10).astype(np.uint8).tobytes(),
        }
        for name, content in files.items():
            (folder / (f"{name}.gz" if gz else name)).write_bytes(gzip.compress(content) if gz else content)
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any data."""
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDERS", (tmp_path / "system",))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def fake_cifar(root: Path, *, train: bool, download: bool) -> Any:
    if not (Path(root) / "cifar-10-batches-py").is_dir():
        raise RuntimeError("Dataset not found or corrupted")
    n = 400 if train else 200
    data = np.stack([noise(f"{train}/{i}", (32, 32, 3)) for i in range(n)])
    return SimpleNamespace(data=data, targets=[i % 4 for i in range(n)], classes=["a", "b", "c", "d"])


def own_source() -> dict[str, Any]:
    return {"train_x": np.stack([noise(f"own/{i}") for i in range(240)]), "train_y": np.arange(240) % 2}


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: None) -> dict[str, dict[str, Any]]:
    """Options that make each source of the table work here."""
    monkeypatch.setattr("torchvision.datasets.CIFAR10", fake_cifar)
    monkeypatch.setitem(sys.modules, "my_sources", SimpleNamespace(load=own_source))  # type: ignore[arg-type]
    (tmp_path / "root" / "cifar-10-batches-py").mkdir(parents=True)
    np.savez(tmp_path / "a.npz", images=own_source()["train_x"], labels=own_source()["train_y"])
    return {
        "digits": {},
        "fashion_mnist": {"path": write_idx(tmp_path / "idx", n=1000)},
        "cifar10": {"path": tmp_path / "root"},
        "image_folder": {"path": write_folders(tmp_path / "folders", n=120)},
        "npz": {"path": tmp_path / "a.npz"},
        "module": {"module": "my_sources:load"},
    }


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("digits", (1, 8, 8), 10),
        ("fashion_mnist", (1, 28, 28), 10),
        ("cifar10", (3, 32, 32), 4),
        ("image_folder", (1, 8, 8), 2),
        ("npz", (1, 8, 8), 2),
        ("module", (1, 8, 8), 2),
    ],
)
def test_each_source_can_be_prepared_and_gives_the_same_bytes_again(
    tmp_path: Path, given: dict[str, dict[str, Any]], name: str, shape: tuple[int, ...], classes: int
) -> None:
    assert set(given) == set(SOURCES)
    materialise(name, tmp_path / "data", **given[name])
    first = contents(tmp_path / "data")
    materialise(name, tmp_path / "data", **given[name])
    assert contents(tmp_path / "data") == first
    manifest = prepare(tmp_path / "data", tmp_path / "out", Data(source=name))
    assert (manifest.shape, len(manifest.classes)) == (shape, classes)


def test_digits_are_those_of_scikit_learn_and_can_be_undone(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    materialise("digits", tmp_path / "data")
    arrays = {name: np.load(tmp_path / "data" / f"{name}.npy") for name in ("train_x", "train_y", "test_x", "test_y")}
    x, y = (np.concatenate([arrays[f"train_{part}"], arrays[f"test_{part}"]]) for part in "xy")
    assert x.max() == 255 and x.min() == 0
    bunch = load_digits()
    expected = {(image.tobytes(), label) for image, label in zip(bunch.images, bunch.target, strict=True)}
    levels = digits.to_levels(x[:, 0]).astype(np.float64)
    assert {(image.tobytes(), label) for image, label in zip(levels, y, strict=True)} == expected
    assert len(arrays["test_y"]) / len(y) == pytest.approx(digits.TEST_SHARE, abs=0.03)


def test_every_level_of_the_digits_is_invertible() -> None:
    levels = np.arange(17)
    np.testing.assert_array_equal(digits.to_levels(digits.to_bytes(levels.astype(np.float64))), levels)


@pytest.mark.parametrize("gz", [True, False])
@pytest.mark.parametrize("folder", ["", "FashionMNIST/raw"])
def test_fashion_mnist_is_found_packed_or_not_and_in_the_root_of_torchvision(
    tmp_path: Path, elsewhere: None, gz: bool, folder: str
) -> None:
    write_idx(tmp_path / "root" / folder, gz=gz)
    materialise("fashion_mnist", tmp_path / "data", path=tmp_path / "root")
    x, y = (np.load(tmp_path / "data" / f"train_{part}.npy") for part in "xy")
    np.testing.assert_array_equal(x[17, 0], noise("train/17", (28, 28)))
    assert y[17] == 7


def test_fashion_mnist_of_the_system_is_found_unless_a_path_is_given(tmp_path: Path, elsewhere: None) -> None:
    write_idx(tmp_path / "system")
    materialise("fashion_mnist", tmp_path / "data")
    with pytest.raises(BadInput, match="not on this machine"):
        materialise("fashion_mnist", tmp_path / "data", path=tmp_path / "nowhere")


def test_missing_fashion_mnist_names_the_three_ways(tmp_path: Path, elsewhere: None) -> None:
    with pytest.raises(BadInput) as caught:
        materialise("fashion_mnist", tmp_path / "data")
    assert all(way in caught.value.fix for way in ("dataset-fashion-mnist", "--path", "--download"))
    assert not (tmp_path / "data").exists()


def test_missing_cifar_names_both_ways(tmp_path: Path, elsewhere: None) -> None:
    with pytest.raises(BadInput) as caught:
        materialise("cifar10", tmp_path / "data")
    assert "--path" in caught.value.fix and "--download" in caught.value.fix


@pytest.mark.parametrize(("source", "dataset"), [("fashion_mnist", "FashionMNIST"), ("cifar10", "CIFAR10")])
def test_nothing_is_downloaded_unless_asked_for(
    tmp_path: Path, elsewhere: None, monkeypatch: pytest.MonkeyPatch, source: str, dataset: str
) -> None:
    asked: list[bool] = []

    def fail(root: Path, *, download: bool, train: bool = True) -> None:
        asked.append(download)
        raise RuntimeError("no network")

    monkeypatch.setattr(f"torchvision.datasets.{dataset}", fail)
    with pytest.raises(BadInput):
        materialise(source, tmp_path / "data")
    assert not any(asked)
    with pytest.raises(ServiceFailed, match="no network"):
        materialise(source, tmp_path / "data", download=True)
    assert asked[-1]


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda content: content[:20], "damaged"),
        (lambda content: b"hello", "damaged"),
        (lambda content: gzip.compress(gzip.decompress(content)[:-1]), "length"),
        (lambda content: gzip.compress(gzip.decompress(content) + b"x"), "length"),
        (lambda content: gzip.compress(b"\0\0\x0d" + gzip.decompress(content)[3:]), "not the expected IDX"),
        (lambda content: gzip.compress(struct.pack(">HBBIII", 0, 8, 3, 2**31, 2**31, 9)), "not the expected IDX"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path: Path, damage: Callable[[bytes], bytes], cause: str) -> None:
    path = write_idx(tmp_path / "idx", n=20) / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInput, match=cause) as caught:
        read_idx(path, 3)
    assert caught.value.where == str(path)


def test_a_copied_folder_is_validated_and_its_links_become_files(tmp_path: Path) -> None:
    raw = write_folders(tmp_path / "raw", ("-a", "b\nc"), n=3)
    (raw / "-a" / "link.png").symlink_to(raw / "-a" / "0.png")
    (raw / ".DS_Store").write_bytes(b"x")
    materialise("image_folder", tmp_path / "data", path=raw)
    copied = contents(tmp_path / "data")
    assert set(copied) == {"-a/0.png", "-a/1.png", "-a/2.png", "-a/link.png", "b\nc/0.png", "b\nc/1.png", "b\nc/2.png"}
    assert not (tmp_path / "data" / "-a" / "link.png").is_symlink()
    before = copied
    (raw / "-a" / "1.png").write_bytes(b"no image")
    with pytest.raises(BadInput, match="not a PNG"):
        materialise("image_folder", tmp_path / "data", path=raw)
    assert contents(tmp_path / "data") == before


def test_an_npz_file_may_be_given_as_a_folder_source(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=own_source()["train_x"], labels=own_source()["train_y"])
    materialise("image_folder", tmp_path / "data", path=tmp_path / "a.npz")
    assert contents(tmp_path / "data") == {"data.npz": (tmp_path / "a.npz").read_bytes()}


@pytest.mark.parametrize(
    ("source", "options", "cause"),
    [
        ("digitz", {}, "unknown source 'digitz'"),
        ("digits", {"path": Path()}, "unknown key 'path'"),
        ("digits", {"download": True}, "unknown key 'download'"),
        ("image_folder", {}, "missing key 'path'"),
        ("npz", {"path": Path("none.npz")}, "not an .npz file"),
        ("image_folder", {"path": Path("none")}, "there are no data"),
        ("module", {}, "missing key 'module'"),
        ("module", {"module": "load"}, "names no function"),
        ("module", {"module": "no_such_package:load"}, "cannot be imported"),
        ("module", {"module": "json:no_such_function"}, "cannot be imported"),
    ],
)
def test_a_source_that_cannot_be_used_says_why(
    tmp_path: Path, source: str, options: dict[str, Any], cause: str
) -> None:
    write_pairs(tmp_path / "data", n=2)
    before = contents(tmp_path / "data")
    with pytest.raises(BadInput, match=cause):
        materialise(source, tmp_path / "data", **options)
    assert contents(tmp_path / "data") == before


def fail() -> None:
    raise ZeroDivisionError("oops")


@pytest.mark.parametrize(
    ("load", "cause"),
    [
        (fail, "raised ZeroDivisionError: oops"),
        (lambda: 7, "returned int"),
        (lambda: own_source() | {"x": 1}, "unknown keys"),
        (lambda: {"train_x": [1], "train_y": [2]}, "other things than numpy arrays"),
        (lambda: own_source() | {"classes": [1, 2]}, "not texts"),
        (lambda: own_source() | {"classes": ["a"]}, "label 1 has no name"),
        (lambda: {"train_x": own_source()["train_x"]}, "train_y is missing"),
        (lambda: own_source() | {"train_y": np.arange(240) - 1}, "negative"),
        (lambda: own_source() | {"train_x": np.full((240, 8, 8), np.nan)}, "not a number"),
    ],
)
def test_what_an_own_source_returns_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Callable[[], Any], cause: str
) -> None:
    monkeypatch.setitem(sys.modules, "my_sources", SimpleNamespace(load=load))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=cause):
        materialise("module", tmp_path / "data", module="my_sources:load")


def test_the_names_of_an_own_source_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SimpleNamespace(load=lambda: own_source() | {"classes": ["no", "ja"]})
    monkeypatch.setitem(sys.modules, "my_sources", source)  # type: ignore[arg-type]
    materialise("module", tmp_path / "data", module="my_sources:load")
    prepare(tmp_path / "data", tmp_path / "out", Data(source="module"))
    assert Prepared.open(tmp_path / "out").manifest.classes == ["no", "ja"]


@pytest.mark.heavy
def test_the_real_fashion_mnist_is_whole(tmp_path: Path) -> None:
    materialise("fashion_mnist", tmp_path / "data")
    manifest = prepare(tmp_path / "data", tmp_path / "out", Data(source="fashion_mnist"))
    assert manifest.counts["test"] == [1000] * 10
    assert sum(manifest.counts["train"] + manifest.counts["val"]) + sum(manifest.removed.values()) == 60_000
    assert (manifest.mean[0], manifest.std[0]) == pytest.approx((0.286, 0.353), abs=0.002)
