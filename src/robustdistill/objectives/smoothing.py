"""Label smoothing (Szegedy et al. 2016): the option of every objective whose whole loss is a cross-entropy."""

from __future__ import annotations

from pydantic import Field

from robustdistill.config import Strict


class Smoothed(Strict):
    """The label becomes q = (1 − label_smoothing) · onehot(y) + label_smoothing / C; the inner attack keeps y."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of the label spread over all classes")
