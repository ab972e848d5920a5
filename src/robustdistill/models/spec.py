"""What a model is, without its weights: enough to build it anywhere, and all that is stored beside the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from robustdistill.config import Spec
from robustdistill.errors import BadInput

LARGEST_EDGE = 4096
MOST_CLASSES = 100_000


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
            raise BadInput(f"this model cannot be built: {fault}", where="model spec")

    def _fault(self) -> str | None:
        if not self.shape or any(edge < 1 or edge > LARGEST_EDGE for edge in self.shape):
            return f"its input shape is {self.shape}"
        if not 2 <= self.classes <= MOST_CLASSES:
            return f"it has {self.classes} classes"
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            return f"its inputs lie in [{self.low}, {self.high}]"
        if len(self.mean) != self.shape[0] or len(self.std) != self.shape[0]:
            return f"{len(self.mean)} means and {len(self.std)} deviations for {self.shape[0]} channels"
        if not all(math.isfinite(value) for value in self.mean):
            return f"its mean is {self.mean}"
        if not all(math.isfinite(value) and value > 0 for value in self.std):
            return f"its standard deviation is {self.std}"
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
        unknown = sorted(set(record) - set(cls.__dataclass_fields__))
        if unknown:
            raise BadInput(f"unknown key {unknown[0]!r}", where="model spec", fix=f"valid: {_names()}")
        try:
            return cls(
                model=_spec(record["model"]),
                shape=tuple(int(edge) for edge in record["shape"]),
                classes=int(record["classes"]),
                low=float(record["low"]),
                high=float(record["high"]),
                mean=tuple(float(value) for value in record["mean"]),
                std=tuple(float(value) for value in record["std"]),
            )
        except KeyError as error:
            raise BadInput(f"missing key {error}", where="model spec", fix=f"needed: {_names()}") from error
        except (TypeError, ValueError, OverflowError) as error:
            raise BadInput(f"mistyped: {error}", where="model spec") from error


def _names() -> str:
    return ", ".join(ModelSpec.__dataclass_fields__)


def _spec(value: Any) -> Spec:
    """{"name": ..., options}; a bare name stands for the architecture with its defaults."""
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise BadInput(f"{value!r} names no architecture", where="model spec", fix='give {"name": "resnet18"}')
    return dict(value)


def _plain(value: Any) -> Any:
    """Of the members of an ensemble no more than their names."""
    if not isinstance(value, list):
        return value
    return " + ".join(str(item["model"].get("name") if isinstance(item, dict) else item) for item in value)
