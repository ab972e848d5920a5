"""The evidence on one model: its scorecard and, for every judged example, whether each attack left it right.

Files of `artifacts/score/M`: scorecard.json, ids.npy, labels.npy, predictions.npy (each int64 [N]) and
outcomes/<attack>.npy (bool [N], right under that attack). Numbers and flags must agree, else nothing is decided.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robustdistill.errors import BadInput
from robustdistill.threat import ThreatModel, require_same

SCHEMA = 1
REPLAYED = "transfer-"  # begins the name of an attack made for another model, which not every model faces
Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,80}")
_VECTORS = ("ids", "labels", "predictions")
_PROTOCOL = ("chunk", "split")  # what must agree, besides threat and attacks, before two samples are compared
_FIX = "judge the model again: dvc repro --force --single-item score@MODEL, or rescore the version"


class Health(NamedTuple):
    """One check of the evaluation itself."""

    name: str
    ok: bool
    level: str
    sentence: str

    @property
    def failed(self) -> bool:
        return not self.ok and self.level != "warning"


@dataclass(frozen=True, eq=False)
class Evidence:
    """card: scorecard.json. ids, labels, predictions [N]; outcomes[attack] [N]: right under that attack."""

    card: Mapping[str, Any]
    ids: Ints
    labels: Ints
    predictions: Ints
    outcomes: Mapping[str, Flags]

    @classmethod
    def load(cls, folder: Path) -> Evidence:
        """Reads and cross-checks a folder that the judge wrote. Raises BadInput for anything missing or at odds."""
        card = _card(folder / "scorecard.json")
        try:
            n, names = int(card["sample"]["n"]), [str(attack["name"]) for attack in card["attacks"]]
            ids, labels, predictions = (_integers(folder / f"{stem}.npy", n) for stem in _VECTORS)
            for name in names:
                if not _NAME.fullmatch(name):
                    raise BadInput(f"attack name {name!r} is not a plain name", where=str(folder), fix=_FIX)
            outcomes = {name: _vector(folder / "outcomes" / f"{name}.npy", n, "b") for name in names}
            evidence = cls(card, ids, labels, predictions, outcomes)
            evidence._check(folder)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(f"the scorecard lacks or garbles a field: {error!r}", where=str(folder), fix=_FIX) from error
        return evidence

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def clean(self) -> Flags:
        """Right without an attack [N]."""
        flags: Flags = self.predictions == self.labels
        return flags

    @cached_property
    def robust(self) -> Flags:
        """Right without an attack and under every attack [N]: the per-example worst case, never an average."""
        flags: Flags = np.all([self.clean, *self.outcomes.values()], axis=0)
        return flags

    @property
    def threat(self) -> ThreatModel:
        return ThreatModel.from_json(self.card["threat"])

    @property
    def attacks(self) -> tuple[str, ...]:
        return tuple(self.outcomes)

    @property
    def sha256(self) -> str:
        return str(self.card["subject"]["sha256"])

    @property
    def health(self) -> list[Health]:
        return [
            Health(str(item["name"]), item["ok"] is True, str(item["level"]), str(item["sentence"]))
            for item in self.card["health"]
        ]

    def worst_class(self) -> tuple[str, float]:
        """The class with the lowest robust accuracy, and that accuracy; a class without examples counts as 0."""
        value, name = min((_share(row), str(row["class"])) for row in self.card["per_class"])
        return name, value

    def under(self, names: Collection[str]) -> Evidence:
        """The evidence of some of the attacks; the card stays that of all."""
        return replace(self, outcomes={name: flags for name, flags in self.outcomes.items() if name in names})

    def at(self, positions: Ints) -> Evidence:
        """The evidence on some of the examples; the card stays that of the whole sample."""
        outcomes = {name: flags[positions] for name, flags in self.outcomes.items()}
        vectors = {name: getattr(self, name)[positions] for name in _VECTORS}
        return replace(self, outcomes=outcomes, **vectors)

    def _check(self, folder: Path) -> None:
        where = str(folder)
        if not self.outcomes:
            raise BadInput("the scorecard holds no attack, so it says nothing about robustness", where=where, fix=_FIX)
        if len(self.outcomes) != len(self.card["attacks"]):
            raise BadInput("the scorecard names an attack twice", where=where, fix=_FIX)
        if len(np.unique(self.ids)) != len(self):
            raise BadInput("an example was judged twice", where=where, fix=_FIX)
        try:
            _ = self.threat
        except BadInput as error:
            raise BadInput(error.cause, where=where, fix=_FIX) from error
        self._check_parts()
        self._check_sums(where)

    def _check_parts(self) -> None:
        """Touches every field the verdict reads, so that a garbled one is found at loading."""
        _ = self.sha256, self.health, str(self.card["subject"]["access"])
        _ = [self.card["sample"][key] for key in (*_PROTOCOL, "digest")]
        rows = self.card["per_class"]
        if not all(0 <= _share(row) <= 1 for row in rows):
            raise ValueError("a robust accuracy of a class is not in [0, 1]")
        if sum(int(row["n"]) for row in rows) != len(self):
            raise ValueError("the classes do not add up to the sample")

    def _check_sums(self, where: str) -> None:
        """The card must say what the flags say. Not where health failed: logits that are not numbers never count as
        right on the card, whatever class they point at, and no decision rests on the figures then."""
        if any(item.failed for item in self.health):
            return
        by_class = sum(row["n"] * _share(row) for row in self.card["per_class"]) / len(self)
        robust = float(self.robust.mean())
        claims = [
            ("clean accuracy", self.card["clean"]["accuracy"], float(self.clean.mean())),
            ("robust accuracy", self.card["robust"]["accuracy"], robust),
            ("the classes' robust accuracy", by_class, robust),
        ]
        for name, claim, share in claims:
            if not math.isclose(float(claim), share, abs_tol=1e-6):
                cause = f"{name} is {float(claim):.6g} on the card but {share:.6f} in the outcomes"
                raise BadInput(cause, where=where, fix=_FIX)


class Pair(NamedTuple):
    """Two models on the same examples. For clean and for robust: b = right only for ours, c = only for theirs."""

    ours: Evidence
    theirs: Evidence

    def discordant(self, measure: str) -> tuple[int, int]:
        """(b, c) for measure "clean" or "robust"."""
        ours, theirs = getattr(self.ours, measure), getattr(self.theirs, measure)
        return int(np.sum(ours & ~theirs)), int(np.sum(theirs & ~ours))


def align(ours: Evidence, theirs: Evidence, *, what: str) -> Pair:
    """Both on the examples that both were judged on: none that either was trained on, since the judge leaves them out.
    And under the attacks that both faced: what was made for other models counts for floors, not in a comparison with
    a model that was spared it.

    Raises BadInput if threat model, protocol or attacks differ, a label differs, or no example is left.
    """
    require_same(ours.threat, theirs.threat, what=what)
    for key in _PROTOCOL:
        if ours.card["sample"][key] != theirs.card["sample"][key]:
            raise BadInput(f"{what} were judged with different sample protocols ({key})", fix=_FIX)
    shared = {*ours.attacks} & {*theirs.attacks}
    spared = {*ours.attacks} ^ {*theirs.attacks}
    if not shared or any(not name.startswith(REPLAYED) for name in spared):
        named = f"{', '.join(ours.attacks)} / {', '.join(theirs.attacks)}"
        raise BadInput(f"{what} were judged by different attacks: {named}", fix=_FIX)
    _, left, right = np.intersect1d(ours.ids, theirs.ids, assume_unique=True, return_indices=True)
    if not len(left):
        raise BadInput(f"{what} have no judged example in common", fix=_FIX)
    pair = Pair(ours.under(shared).at(left), theirs.under(shared).at(right))
    if not np.array_equal(pair.ours.labels, pair.theirs.labels):
        raise BadInput(f"{what} disagree about the label of an example", fix="judge both on the same prepared data")
    return pair


def _share(row: Mapping[str, Any]) -> float:
    """Robust accuracy of a class; none of its examples judged is as bad as all broken."""
    return float(row["robust"]) if row["n"] else 0.0


def _card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput("there is no scorecard", where=str(path), fix=_FIX) from error
    except (OSError, ValueError) as error:
        raise BadInput(f"the scorecard is not JSON: {error}", where=str(path), fix=_FIX) from error
    if not isinstance(card, dict) or card.get("schema") != SCHEMA:
        found = card.get("schema") if isinstance(card, dict) else type(card).__name__
        raise BadInput(f"scorecard schema {found!r} is not {SCHEMA}", where=str(path), fix=_FIX)
    return card


def _integers(path: Path, n: int) -> Ints:
    return _vector(path, n, "iu").astype(np.int64)


def _vector(path: Path, n: int, kinds: str) -> NDArray[Any]:
    """A one-dimensional array of length n; kinds: numpy kind letters allowed. Never unpickles."""
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise BadInput("a file of the scorecard is missing", where=str(path), fix=_FIX) from error
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise BadInput(f"not a readable array: {error}", where=str(path), fix=_FIX) from error
    if not isinstance(mapped, np.ndarray) or mapped.shape != (n,) or mapped.dtype.kind not in kinds or n < 1:
        shape = getattr(mapped, "shape", None)
        raise BadInput(f"expected {n} values, found shape {shape}", where=str(path), fix=_FIX)
    return np.array(mapped)
