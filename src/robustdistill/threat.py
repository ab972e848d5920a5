"""The threat model as data: what an attacker may do to an input. No torch here, so the runtime can ship it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from robustdistill.errors import BadInput, unknown

Norm = Literal["linf", "l2"]
NORMS: tuple[Norm, ...] = ("linf", "l2")
SMALLEST = 2.0**-126  # of the normal numbers of float32
STEP_TOLERANCE = 1e-6  # of one step of an 8-bit image: how near to a whole number of them counts as one


def parse_eps(value: str | float, *, where: str = "threat.eps") -> float:
    """A radius from `0.1`, `"0.1"` or `"8/255"`, in the units of the input. Raises BadInput if not finite and > 0, and
    if single precision cannot hold it."""
    fix = 'give a positive number or a fraction, such as 0.1 or "8/255"'
    try:
        if isinstance(value, str) and not re.fullmatch(r"[-+0-9./ ]{1,40}([eE][-+]?[0-9]{1,3})?", value):
            raise ValueError(value)  # before Fraction computes 10 ** 99999999
        eps = float(Fraction(value.replace(" ", ""))) if isinstance(value, str) else float(value)
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        why = "divides by 0" if isinstance(error, ZeroDivisionError) else "is not a number"
        raise BadInput(f"eps {value!r} {why}", where=where, fix=fix) from error
    if not math.isfinite(eps) or eps <= 0:
        raise BadInput(f"eps {value!r} is not positive and finite", where=where, fix=fix)
    if eps < SMALLEST:
        raise BadInput(f"eps {value!r} is too small for numbers of single precision", where=where, fix=fix)
    return eps


def spell(eps: float, low: float = 0.0, high: float = 1.0) -> str:
    """A radius for people: steps of an 8-bit image as `8/255` where the box is [0, 1], else up to six digits, `0.1`.

    k/255 is a short decimal where 51 divides k (0.2 is 51/255) and stays one.
    """
    steps = round(eps * 255)
    if (low, high) == (0.0, 1.0) and steps % 51 and abs(eps * 255 - steps) < STEP_TOLERANCE:
        return f"{steps}/255"
    return f"{eps:.6g}"


def fraction(value: object) -> str:
    """`8/255` if somebody wrote it so (spaces left out), "" for a plain number."""
    return value.replace(" ", "") if isinstance(value, str) and "/" in value else ""


@dataclass(frozen=True)
class ThreatModel:
    """All x_adv with ‖x_adv − x‖ ≤ eps inside the box [low, high] of legal inputs.

    norm: "linf" or "l2" (over all features of one example). eps, low, high: in the units of the input. written: the
    fraction that somebody gave eps as, "" if none; for people only, two spellings of one threat are equal.
    """

    norm: Norm
    eps: float
    low: float = 0.0
    high: float = 1.0
    written: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise BadInput(f"unknown norm {self.norm!r}", where="threat.norm", fix=f"choices: {', '.join(NORMS)}")
        parse_eps(self.eps)
        if not self.low < self.high:
            raise BadInput(f"bounds [{self.low}, {self.high}] hold no input", where="threat.bounds")

    @classmethod
    def parse(cls, text: str, low: float = 0.0, high: float = 1.0, *, where: str = "threat") -> ThreatModel:
        """The threat model `linf:8/255` or `l2:0.5` for inputs in [low, high]. Raises BadInput."""
        name, colon, eps = text.partition(":")
        norm = next((norm for norm in NORMS if norm == name.strip().lower()), None)
        if not colon:
            raise BadInput(f"{text!r} is not a threat model", where=where, fix="write NORM:EPS, such as linf:8/255")
        if norm is None:
            raise unknown("norm", name, NORMS, where=where)
        found = cls(norm, parse_eps(eps, where=where), low, high, fraction(eps))
        if norm == "linf" and found.eps > high - low:
            raise BadInput(
                f"eps {found.eps_text} is larger than the whole range [{low:g}, {high:g}] of the input",
                where=where,
                fix="give it in the units of the input, such as linf:8/255 for pixels in [0, 1]",
            )
        return found

    def scaled(self, factor: float) -> ThreatModel:
        """The same threat with factor · eps."""
        return ThreatModel(self.norm, self.eps * factor, self.low, self.high)

    def to_json(self) -> dict[str, Any]:
        """What the threat is, whatever its spelling: for keys and comparisons."""
        return {"norm": self.norm, "eps": self.eps, "low": self.low, "high": self.high}

    def record(self) -> dict[str, Any]:
        """`to_json`, and the spelling where eps alone does not give it: for files that people's pages are made from."""
        implied = spell(self.eps, self.low, self.high)
        return self.to_json() | ({"written": self.written} if self.written not in ("", implied) else {})

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> ThreatModel:
        """From `to_json` or `record`. A spelling that is not this eps (somebody edited the file) is left out."""
        eps, written = float(record["eps"]), fraction(record.get("written"))
        if written and parse_eps(written) != eps:
            written = ""
        return cls(record["norm"], eps, float(record["low"]), float(record["high"]), written)

    @property
    def eps_text(self) -> str:
        """eps as it was written, else as `spell` has it."""
        return self.written or spell(self.eps, self.low, self.high)

    def text_of(self, eps: float) -> str:
        """Another radius in the same box, for people."""
        return self.eps_text if eps == self.eps else spell(eps, self.low, self.high)

    def label(self) -> str:
        """Short name for tags and tables, such as `linf-8/255` or `l2-0.5`."""
        return f"{self.norm}-{self.eps_text}"

    def describe(self) -> str:
        """The threat in words, for people who do not read symbols."""
        span = self.high - self.low
        if self.norm == "linf":
            reach = f"every input value may change by at most {self.eps_text} ({self.eps / span:.1%} of its range)"
        else:
            reach = f"all input values together may move by a Euclidean distance of at most {self.eps_text}"
        return f"{reach}, staying within [{self.low:g}, {self.high:g}]"


def require_same(ours: ThreatModel, theirs: ThreatModel, *, what: str) -> None:
    """Raises BadInput where numbers of two different threat models would be compared."""
    if ours != theirs:
        raise BadInput(
            f"{what} were measured under different threat models: {ours.describe()} / {theirs.describe()}",
            fix="judge both under the same threat model (rescore), then compare",
        )
