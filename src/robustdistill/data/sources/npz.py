"""One .npz file with images, labels and, if there is an official test set, test_images and test_labels."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from robustdistill.config import Strict
from robustdistill.data.sources.image_folder import copy_validated
from robustdistill.data.sources.types import Source
from robustdistill.errors import BadInput
from robustdistill.inputs import shown


class Npz(Source):
    name = "npz"

    class Config(Strict):
        path: Path = Field(description="the .npz file")

    def write(self, folder: Path) -> None:
        path = self.config.path
        if not path.is_file() or path.suffix != ".npz":
            raise BadInput("this is not an .npz file", where=shown(path), fix="name one with --path FILE.npz")
        copy_validated(path, folder)
