"""What ships: the answers of the exported file, without PyTorch."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from robustdistill.errors import BadInput
from robustdistill.inputs import resized
from robustdistill.models import ModelSpec, build, weights
from robustdistill.release.onnx import export
from robustdistill.runtime.predictor import Predictor

CLASSES = ["cat", "dog", "eel"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    spec = ModelSpec({"name": "small_cnn", "size": "nano"}, (1, 8, 10), 3, -1.0, 1.0, (0.1,), (0.5,))
    weights.save(build(spec, 4, "test"), root)
    export(root, root / "export", CLASSES, torch.zeros(2, 1, 8, 10), np.array([7, 8]))
    return root / "export"


@pytest.fixture
def copied(served: Path, tmp_path: Path) -> Path:
    for path in served.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def pixels(seed: int = 0, shape: tuple[int, ...] = (8, 10)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def test_every_form_of_an_image_gets_the_model_s_answer(served: Path, tmp_path: Path) -> None:
    array = pixels()
    (tmp_path / "image.png").write_bytes(png(array))
    floats = (array[None] / 255 * 2 - 1).astype(np.float32)
    answers = Predictor(served).predict([tmp_path / "image.png", png(array), array, array[None], floats])
    with torch.no_grad():
        wanted = weights.load(served)(torch.from_numpy(floats)[None]).softmax(1)[0].numpy()
    for answer in answers:
        assert list(answer["probabilities"]) == CLASSES
        np.testing.assert_allclose(list(answer["probabilities"].values()), wanted, atol=1e-5)
        assert answer["class"] == CLASSES[wanted.argmax()]
        assert answer["probability"] == answer["probabilities"][answer["class"]]
    assert Predictor(served).predict([]) == []


def test_many_images_keep_their_order(served: Path) -> None:
    predictor, images = Predictor(served), [pixels(seed) for seed in range(300)]
    found = predictor.predict(images)
    for number in (0, 255, 256, 299):
        single = predictor.predict([images[number]])[0]["probability"]
        assert found[number]["probability"] == pytest.approx(single, abs=1e-6)


@pytest.mark.parametrize(
    ("image", "cause"),
    [
        (pixels(shape=(9, 10)), "10 × 9 pixels gray, the model takes 10 × 8 pixels gray"),
        (png(pixels(shape=(8, 10, 3))), "in colour"),
        (b"not an image", "not a PNG"),
        (np.full((1, 8, 10), 1.5, dtype=np.float32), r"not all in \[-1, 1\]"),
        (np.full((1, 8, 10), np.nan, dtype=np.float32), "not all in"),
        (np.zeros((1, 8, 10), dtype=np.int64), "int64"),
        (np.zeros(80, dtype=np.uint8), "array of shape"),
    ],
)
def test_what_is_no_such_image_is_refused_by_name(served: Path, image: Any, cause: str) -> None:
    with pytest.raises(BadInput, match=cause) as error:
        Predictor(served).predict([pixels(), image])
    assert error.value.where == "image 1"


def test_another_size_is_scaled_only_if_asked(served: Path) -> None:
    large = np.kron(pixels(), np.ones((2, 2), dtype=np.uint8))
    answer = Predictor(served, resize=True).predict([large])[0]
    assert answer["probability"] == pytest.approx(Predictor(served).predict([pixels()])[0]["probability"], abs=0.05)
    with pytest.raises(BadInput, match="--resize"):
        _ = Predictor(served).predict([large]) and None


def test_a_model_of_scaled_images_scales_as_its_training_did(served: Path, copied: Path) -> None:
    record = json.loads((copied / "export.json").read_text())
    (copied / "export.json").write_text(json.dumps(record | {"resize": True}))
    large = pixels(5, (31, 17))
    wanted = Predictor(served).predict([resized(large[None], 8, 10)])
    assert Predictor(copied).predict([large, png(large)]) == [*wanted, *wanted]
    with pytest.raises(BadInput, match="in colour"):
        Predictor(copied).predict([pixels(shape=(8, 10, 3)).transpose(2, 0, 1)])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 10), (9, 10)])
def test_the_fix_names_what_differs_channels_or_size(
    tmp_path: Path, served: Path, channels: int, size: tuple[int, int]
) -> None:
    folder = served
    if channels == 3:
        spec = ModelSpec({"name": "small_cnn", "size": "nano"}, (3, 8, 10), 3, 0.0, 1.0, (0.1,) * 3, (0.5,) * 3)
        weights.save(build(spec, 4, "test"), tmp_path)
        export(tmp_path, folder := tmp_path / "export", CLASSES, torch.zeros(2, 3, 8, 10), np.array([7, 8]))
    image = pixels(shape=size if channels == 3 else (*size, 3))
    with pytest.raises(BadInput) as caught:
        Predictor(folder).predict([png(image)])
    assert ("convert('RGB')" if channels == 3 else "convert('L')") in caught.value.fix
    assert ("--resize" in caught.value.fix) == (size != (8, 10))


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("model.onnx", b"changed", "not the one that was exported"),
        ("export.json", b"{}", "does not describe"),
        ("export.json", b"\xff", "does not describe"),
        ("model.onnx", None, "no exported model here"),
    ],
)
def test_a_damaged_folder_is_refused(copied: Path, name: str, content: bytes | None, cause: str) -> None:
    if content is None:
        (copied / name).unlink()
    else:
        (copied / name).write_bytes(content)
    with pytest.raises(BadInput, match=cause):
        Predictor(copied)


def test_a_file_with_the_right_hash_that_is_no_model_is_refused(copied: Path) -> None:
    (copied / "model.onnx").write_bytes(b"no model")
    record = json.loads((copied / "export.json").read_text())
    record["sha256"]["onnx"] = weights.digest(copied / "model.onnx")
    (copied / "export.json").write_text(json.dumps(record))
    with pytest.raises(BadInput, match="cannot load"):
        Predictor(copied)


def test_a_download_of_the_registry_is_found_one_folder_below(copied: Path, tmp_path: Path) -> None:
    below = tmp_path / "download" / "model"
    below.mkdir(parents=True)
    for name in ("model.onnx", "export.json"):
        (copied / name).rename(below / name)
    (tmp_path / "download" / "MLmodel").write_text("flavors: {}\n")
    assert Predictor(tmp_path / "download").classes == CLASSES


def test_pytorch_is_never_imported(served: Path) -> None:
    code = (
        "import sys, numpy as np; from pathlib import Path; from robustdistill.runtime.predictor import Predictor\n"
        f"Predictor(Path({str(served)!r})).predict([np.zeros((8, 10), dtype=np.uint8)])\n"
        "heavy = {'torch', 'mlflow', 'prefect', 'matplotlib', 'onnx'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
