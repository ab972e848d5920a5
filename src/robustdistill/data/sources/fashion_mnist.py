"""Fashion-MNIST: 70,000 gray photographs of clothing, 28 × 28, ten classes, MIT licence (arXiv:1708.07747)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from robustdistill.config import Strict
from robustdistill.data.sources.idx import read_idx
from robustdistill.data.sources.types import Source, cache_root, write_arrays
from robustdistill.errors import BadInput, ServiceFailed
from robustdistill.inputs import shown

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
SYSTEM_FOLDERS = (Path("/usr/share/datasets/fashion-mnist"), Path("/usr/share/dataset-fashion-mnist"))
FILES = {
    "train_x": ("train-images-idx3-ubyte", 3),
    "train_y": ("train-labels-idx1-ubyte", 1),
    "test_x": ("t10k-images-idx3-ubyte", 3),
    "test_y": ("t10k-labels-idx1-ubyte", 1),
}


class FashionMNIST(Source):
    name = "fashion_mnist"

    class Config(Strict):
        path: Path | None = Field(default=None, description="folder of the four IDX files, or torchvision's data root")
        download: bool = Field(default=False, description="let torchvision download it if it is nowhere")

    def write(self, folder: Path) -> None:
        found = self._find() or self._download()
        arrays = {name: read_idx(_file(found, stem) or found / stem, rank) for name, (stem, rank) in FILES.items()}
        for part in ("train", "test"):
            arrays[f"{part}_x"] = arrays[f"{part}_x"][:, None]
        write_arrays(folder, arrays, CLASSES)

    def _places(self) -> Iterator[Path]:
        root = self.config.path
        if root is not None:
            yield from (root, root / "FashionMNIST" / "raw")
            return  # a path that was given is meant; other data must not take its place
        yield from SYSTEM_FOLDERS
        yield cache_root() / "FashionMNIST" / "raw"

    def _find(self) -> Path | None:
        complete = (place for place in self._places() if all(_file(place, stem) for stem, _ in FILES.values()))
        return next(complete, None)

    def _download(self) -> Path:
        root = self.config.path or cache_root()
        if not self.config.download:
            raise BadInput(
                "Fashion-MNIST is not on this machine",
                where=", ".join(shown(place) for place in self._places()),
                fix="install the Debian package dataset-fashion-mnist, name torchvision's data root with --path, "
                "or let torchvision download it with --download",
            )
        from torchvision import datasets

        try:
            datasets.FashionMNIST(root, download=True)
        except (OSError, RuntimeError) as error:
            raise ServiceFailed(f"the download failed: {error}", where=shown(root), fix="see --path") from error
        return Path(root) / "FashionMNIST" / "raw"


def _file(folder: Path, stem: str) -> Path | None:
    return next((path for path in (folder / f"{stem}.gz", folder / stem) if path.is_file()), None)
