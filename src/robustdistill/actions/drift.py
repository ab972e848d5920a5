"""Whether the champion's robustness has fallen since its promotion, though its weights have not changed.

The same examples are attacked harder (more steps) and with draws of today's date, so that what it withstood was not the
luck of one seed. An example counts as robust only if it withstood both judgements; the fall is beyond the recorded
interval if that share is below the interval's lower bound. On another test set the two shares are of other examples,
and the interval of the recorded one is what allows for that.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from robustdistill.actions.register import threat_tag
from robustdistill.actions.rescored import rescored
from robustdistill.actions.session import Session
from robustdistill.gate.scorecard import Evidence

METRIC = "champion/robust_harder"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fall:
    """robust: today's share under both judgements. recorded, lower: of the promoted version's scorecard."""

    robust: float
    recorded: float
    lower: float

    @property
    def beyond(self) -> bool:
        return self.robust < self.lower

    @property
    def sentence(self) -> str:
        was = f"{self.recorded:.1%} (not below {self.lower:.1%}) was recorded"
        held = "it has drifted" if self.beyond else "within what was recorded"
        return f"attacked harder with fresh draws {self.robust:.1%}, {was}: {held}"

    def to_json(self) -> dict[str, float]:
        return {"robust": self.robust, "recorded": self.recorded, "lower": self.lower}


def measure(current: Session, export: Path, found: Evidence) -> Fall | None:
    """The champion in `export`, judged today (`found`), attacked harder; None if its record does not compare.

    Costs one more judgement a day, with twice the steps of our own attacks.
    """
    card = _recorded(export)
    if card is None or threat_tag(card) != threat_tag(found.card):
        _LOG.info("no comparison with the promotion: its scorecard is missing, or of another threat model")
        return None
    harder = rescored(current.workspace, export, current.run, up_to_date=False, harder=today())
    fall = compare(card["robust"], found, harder)
    current.figures[METRIC] = fall.robust
    return fall


def today() -> int:
    """The date in UTC as a seed, 20260131: another one every day, the same for a run that is started again."""
    return int(datetime.now(UTC).strftime("%Y%m%d"))


def compare(recorded: Mapping[str, Any], found: Evidence, harder: Evidence) -> Fall:
    """recorded: {"accuracy", "lower"}. Where the two judged other examples, the lower share counts."""
    if np.array_equal(found.ids, harder.ids):
        robust = float((found.robust & harder.robust).mean())
    else:
        robust = min(float(found.robust.mean()), float(harder.robust.mean()))
    return Fall(robust, float(recorded["accuracy"]), float(recorded["lower"]))


def _recorded(export: Path) -> dict[str, Any] | None:
    """The scorecard that the version was registered with; None if there is none that can be read."""
    try:
        card: dict[str, Any] = json.loads((export / "scorecard.json").read_text(encoding="utf-8"))
        float(card["robust"]["accuracy"]), float(card["robust"]["lower"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return card
