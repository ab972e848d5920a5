"""The user's own data: any layout that raw.py reads, copied after every image of it was decoded once."""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import Field

from robustdistill.config import Strict
from robustdistill.data.names import copy_kept
from robustdistill.data.raw import check_images, read_raw
from robustdistill.data.sources.types import Source
from robustdistill.errors import of_system
from robustdistill.inputs import shown


class ImageFolder(Source):
    name = "image_folder"

    class Config(Strict):
        path: Path = Field(description="class folders, .npy pairs, or an .npz file")

    def write(self, folder: Path) -> None:
        copy_validated(self.config.path, folder)


def copy_validated(path: Path, folder: Path) -> None:
    """Copies raw data (a folder or an .npz file) into an empty folder, links as files. Raises BadInput."""
    check_images(read_raw(path), shown(path))
    try:
        if path.is_file():
            shutil.copyfile(path, folder / "data.npz")
        else:
            copy_kept(path, folder)
    except OSError as error:
        raise of_system(error, "copying the data", where=shown(folder.parent)) from error
