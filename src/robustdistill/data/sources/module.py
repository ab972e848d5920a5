"""The user's own code as a source: `my_package.sources:load`, imported only because params.yaml says so."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from robustdistill.config import Strict
from robustdistill.data.arrays import PAIRS, from_arrays
from robustdistill.data.raw import check_images
from robustdistill.data.sources.types import Source, write_arrays
from robustdistill.errors import BadInput

_RETURNS = "return a dict of numpy arrays: train_x, train_y[, test_x, test_y], and a list `classes`"


class Module(Source):
    """The function takes nothing and returns a dict: arrays train_x, train_y[, test_x, test_y]; classes (optional)."""

    name = "module"

    class Config(Strict):
        module: str = Field(description="`package.module:function`")

    def write(self, folder: Path) -> None:
        returned = self._call()
        arrays, classes = _parts(returned, self.config.module)
        raw = from_arrays(arrays, classes, Path(self.config.module))
        check_images(raw, self.config.module)
        write_arrays(folder, arrays, raw.classes)

    def _call(self) -> Any:
        target = self.config.module
        module, _, function = target.partition(":")
        if not (module and function):
            raise BadInput(f"{target!r} names no function", where="data.module", fix="write package.module:function")
        try:
            load = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise BadInput(
                f"{target} cannot be imported: {error}",
                where="data.module",
                fix="install the package in this environment, or put its folder on PYTHONPATH",
            ) from error
        try:
            return load()
        except Exception as error:  # the user's own code
            raise BadInput(f"{target} raised {type(error).__name__}: {error}", where="data.module") from error


def _parts(returned: Any, where: str) -> tuple[dict[str, Any], list[str] | None]:
    if not isinstance(returned, Mapping):
        raise BadInput(f"the source returned {type(returned).__name__}", where=where, fix=_RETURNS)
    odd = [key for key in returned if key not in (*PAIRS, "classes")]
    if odd:
        raise BadInput(f"the source returned unknown keys {odd}", where=where, fix=_RETURNS)
    arrays = {name: returned[name] for name in PAIRS if name in returned}
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise BadInput("the source returned other things than numpy arrays", where=where, fix=_RETURNS)
    classes = returned.get("classes")
    if classes is not None and not all(isinstance(name, str) for name in classes):
        raise BadInput("the class names are not texts", where=where, fix=_RETURNS)
    return arrays, None if classes is None else list(classes)
