"""What a predictor reads beside the weights, as one hash: class names, shape, range and scaling of the input.

Class names in another order, or a range twice as wide, change every answer and leave the weights as they are; so a
registered version carries this hash in a tag, as it carries that of its model.onnx.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustdistill.errors import BadInput

READ = ("classes", "shape", "low", "high", "resize")  # keys of export.json


def reading(record: Mapping[str, Any]) -> str:
    """sha256 of what READ names in the content of an export.json, as JSON in one spelling."""
    text = json.dumps({key: record.get(key) for key in READ}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def require_reading(record: Mapping[str, Any], expected: str | None, path: Path) -> None:
    """expected: None or "" for a version from before there was this hash. path: where the record was read.

    Raises BadInput if class names, shape, range or scaling are not those that `expected` was made of.
    """
    found = reading(record)
    if expected and found != expected:
        raise BadInput(
            "class names, input range or scaling are not those that were registered: "
            f"sha256 {found[:12]}…, expected {expected[:12]}…",
            where=str(path),
            fix="the file was altered: use another version (robustdistill versions), or register the model again",
        )
