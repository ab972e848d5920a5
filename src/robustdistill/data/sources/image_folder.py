"""The user's own data: any layout that raw.py reads, copied after every image of it was decoded once."""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import Field

from robustdistill.config import Strict
from robustdistill.data.raw import LITTER, read_raw
from robustdistill.data.sources.types import Source
from robustdistill.errors import ServiceFailed
from robustdistill.inputs import shown


class ImageFolder(Source):
    name = "image_folder"

    class Config(Strict):
        path: Path = Field(description="class folders, .npy pairs, or an .npz file")

    def write(self, folder: Path) -> None:
        copy_validated(self.config.path, folder)


def copy_validated(path: Path, folder: Path) -> None:
    """Copies raw data (a folder or an .npz file) into an empty folder, links as files. Raises BadInput."""
    raw = read_raw(path)
    for i in range(len(raw)):
        raw.image(i)
    try:
        if path.is_file():
            shutil.copyfile(path, folder / "data.npz")
        else:
            ignore = shutil.ignore_patterns(*LITTER)
            shutil.copytree(path, folder, dirs_exist_ok=True, copy_function=shutil.copyfile, ignore=ignore)
    except (OSError, shutil.Error) as error:
        raise ServiceFailed(f"the data cannot be copied: {error}", where=shown(folder)) from error
