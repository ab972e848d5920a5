"""What a model is, without its weights: enough to build it anywhere, and all that is stored beside the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from robustdistill.config import Spec, Strict, options
from robustdistill.errors import BadInput

LARGEST_EDGE = 4096
MOST_CLASSES = 100_000
EXAMPLE = (
    '{"model": {"name": "resnet18"}, "shape": [3, 32, 32], "classes": 10, "low": 0, "high": 1, '
    '"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}'
)


class _Record(Strict):
    """A spec as JSON holds it: nothing is converted, so that a slip is told instead of meaning something else."""

    model: str | Spec
    shape: list[int]
    classes: int
    low: float
    high: float
    mean: list[float]
    std: list[float]


@dataclass(frozen=True)
class ModelSpec:
    """An architecture and the inputs it is made for.

    model: name and options of the architecture. shape: of one input, images (C, H, W). low, high: range of each input
    value. mean, std: normalisation in the units of the input, one number for each channel; a layer of the model.
    """

    model: Spec
    shape: tuple[int, ...]
    classes: int
    low: float
    high: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        fault = self._fault()
        if fault:
            raise BadInput(fault, where="model spec", fix=f"give what the model was trained with, such as {EXAMPLE}")

    def _fault(self) -> str | None:
        channels = self.shape[0] if self.shape else 0
        if not self.shape or any(edge < 1 or edge > LARGEST_EDGE for edge in self.shape):
            return f"'shape' must be numbers from 1 to {LARGEST_EDGE}, is {list(self.shape)}"
        if not 2 <= self.classes <= MOST_CLASSES:
            return f"'classes' must be from 2 to {MOST_CLASSES}, is {self.classes}"
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            return f"'low' must be below 'high', they are {self.low:g} and {self.high:g}"
        for key in ("mean", "std"):
            count = len(getattr(self, key))
            if count != channels:
                return f"'{key}' must have a number for each channel: {channels} by 'shape', has {count}"
        if not all(math.isfinite(value) for value in self.mean):
            return f"'mean' must be finite, is {list(self.mean)}"
        if not all(math.isfinite(value) and value > 0 for value in self.std):
            return f"'std' must be greater than 0, is {list(self.std)}"
        return None

    @property
    def architecture(self) -> str:
        """In words: "small_cnn (size=nano)", "ensemble (members=small_cnn + small_cnn)"."""
        options = {key: _plain(value) for key, value in sorted(self.model.items()) if key != "name"}
        told = ", ".join(f"{key}={value}" for key, value in options.items())
        return str(self.model["name"]) + (f" ({told})" if told else "")

    def to_json(self) -> dict[str, Any]:
        record = asdict(self)
        return record | {key: list(record[key]) for key in ("shape", "mean", "std")}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ModelSpec:
        """The inverse of to_json. Raises BadInput where a key is missing, mistyped or unknown."""
        try:
            given = options(_Record, record, where="model spec")
        except BadInput as error:
            raise BadInput(error.cause, where=error.where, fix=f"{error.fix} (an example: {EXAMPLE})") from error
        return cls(
            model=_spec(given.model),
            shape=tuple(given.shape),
            classes=given.classes,
            low=given.low,
            high=given.high,
            mean=tuple(given.mean),
            std=tuple(given.std),
        )


def _spec(value: str | Spec) -> Spec:
    """{"name": ..., options}; a bare name stands for the architecture with its defaults."""
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value.get("name"), str):
        raise BadInput(f"'model' names no architecture: {value}", where="model spec", fix='give {"name": "resnet18"}')
    return dict(value)


def _plain(value: Any) -> Any:
    """Of the members of an ensemble no more than their names."""
    if not isinstance(value, list):
        return value
    return " + ".join(str(item["model"].get("name") if isinstance(item, dict) else item) for item in value)
