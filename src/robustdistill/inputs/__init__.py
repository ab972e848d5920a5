"""Raw example → array, in numpy alone: the same code prepares training data and reads what a served model is asked."""

from __future__ import annotations

from robustdistill.inputs.pixels import decode_image, from_unit, resized, to_unit
from robustdistill.inputs.text import shown

__all__ = ["decode_image", "from_unit", "resized", "shown", "to_unit"]
