"""CIFAR-10: 60,000 colour photographs, 32 × 32, ten classes (Krizhevsky, 2009), as torchvision stores it.

The files are pickles. torchvision reads them only after their MD5 sums matched the ones it knows, so what is unpickled
is the published data set and nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from robustdistill.config import Strict
from robustdistill.data.sources.types import Source, cache_root, write_arrays
from robustdistill.errors import BadInput, ServiceFailed
from robustdistill.inputs import shown


class Cifar10(Source):
    name = "cifar10"

    class Config(Strict):
        path: Path | None = Field(default=None, description="torchvision's data root (holds cifar-10-batches-py)")
        download: bool = Field(default=False, description="let torchvision download it if it is not there")

    def write(self, folder: Path) -> None:
        train, test = (self._load(train=train) for train in (True, False))
        arrays = {
            "train_x": np.moveaxis(train.data, -1, 1),
            "train_y": np.array(train.targets),
            "test_x": np.moveaxis(test.data, -1, 1),
            "test_y": np.array(test.targets),
        }
        write_arrays(folder, arrays, list(train.classes))

    def _load(self, *, train: bool) -> Any:
        from torchvision import datasets

        root = self.config.path or cache_root()
        try:
            return datasets.CIFAR10(root, train=train, download=self.config.download)
        except (OSError, RuntimeError) as error:
            if self.config.download:
                raise ServiceFailed(f"the download failed: {error}", where=shown(root), fix="see --path") from error
            raise BadInput(
                "CIFAR-10 is not on this machine, or is damaged",
                where=shown(root),
                fix="name torchvision's data root (it holds cifar-10-batches-py) with --path, "
                "or let torchvision download it with --download",
            ) from error
