"""How far a judgement is, told from inside its attacks: every forward pass of the attacked model is counted.

So each attack tells, those of pyautoattack too, and none of them knows of it. Only passes and the size of their batches
are looked at, never an answer: nothing can change a verdict.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from torch import Tensor

from robustdistill import budget
from robustdistill.attacks import Attack
from robustdistill.attacks.goals import TARGETED
from robustdistill.attacks.suite import Own, parts
from robustdistill.attacks.types import Access, Batch, Goal, Target
from robustdistill.journal import Journal

EVERY = 1.0  # seconds between two reports from inside one piece


@dataclass(frozen=True)
class Piece:
    """Examples that are attacked together. part: of the attack `name`, which may consist of several.

    begin, end: shares of the attack before and after this piece. total: examples of the sample. standing: of these,
    when the piece begins; elsewhere: those of them that are not in it. queries: forward passes that it takes at most.
    """

    name: str
    part: str
    begin: float
    end: float
    total: int
    standing: int
    elsewhere: int
    queries: int


class Progress:
    """Writes into the journal where the judge is: when told, and from inside a piece or a phase now and then."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._inside: Piece | str = ""
        self._asked, self._fewest, self._said = 0, 0, 0.0

    def attack(self, name: str, share: float, total: int, robust: int) -> None:
        """Between two pieces. share: of the attack, done. robust: examples that stand."""
        self._inside = ""
        done = round(share * total)
        self._journal.write("attack", name=name, done=done, total=total, robust=robust, share=share)

    def begin(self, piece: Piece) -> None:
        """What is heard from now on belongs to this piece."""
        self._inside, self._asked, self._fewest, self._said = piece, 0, piece.total, time.monotonic()

    def phase(self, name: str) -> None:
        """What is heard from now on is of no attack that has a row; said at once. Raises OutOfTime."""
        budget.require(f"stopped before the judge's {name}; the attacks are kept")
        self._inside, self._asked, self._said = name, 0, time.monotonic()
        self._journal.write("note", message=name)

    def heard(self, standing: int | None = None) -> None:
        """The attacked model is asked once. standing: examples that it is asked about, where what breaks is asked about
        no more: the fewest of a piece bound how many of it stand."""
        self._asked += 1
        if standing is not None:
            self._fewest = min(self._fewest, standing)
        now = time.monotonic()
        if now - self._said >= EVERY:
            self._said = now
            self._tell()

    def _tell(self) -> None:
        piece = self._inside
        if isinstance(piece, str):
            if piece:
                self._journal.write("note", message=f"{piece}: {self._asked} queries")
            return
        share = piece.begin + (piece.end - piece.begin) * min(1.0, self._asked / piece.queries)
        self._journal.write(
            "attack",
            name=piece.name,
            part=piece.part,
            done=round(piece.begin * piece.total),
            total=piece.total,
            robust=min(piece.standing, piece.elsewhere + self._fewest),
            share=share,
            query=min(self._asked, piece.queries),
            queries=piece.queries,
        )


class Heard:
    """A Target that is asked in another's place and says so.

    tells: the kind of question whose batches hold what still stands; None where that is not known. (FAB, for one, asks
    for scores of some that it has found, and for gradients of all that stand.)
    """

    def __init__(self, target: Target, progress: Progress, tells: Access | None = None) -> None:
        self._target, self._progress, self._tells = target, progress, tells

    @property
    def access(self) -> Access:
        return self._target.access

    def predict(self, x: Tensor) -> Tensor:
        self._say(x, Access.SCORES)
        return self._target.predict(x)

    def logits(self, x: Tensor) -> Tensor:
        self._say(x, Access.SCORES)
        return self._target.logits(x)

    def gradient(self, batch: Batch, goal: Goal) -> Tensor:
        self._say(batch.x, Access.GRADIENT)
        return self._target.gradient(batch, goal)

    def _say(self, x: Tensor, kind: Access) -> None:
        self._progress.heard(len(x) if kind == self._tells else None)


def queries(attack: Attack, classes: int, shape: tuple[int, ...]) -> int:
    """Forward passes of one of the project's attacks on a batch of which nothing breaks, a handful more or less."""
    config = attack.config
    if isinstance(config, Own.Config):
        return sum(queries(part, classes, shape) for part in parts(config, classes, shape).values())
    once = getattr(config, "queries", 0) or getattr(config, "steps", 1)
    each = min(config.targets, classes - 1) if attack.name == "fab" or config.goal in TARGETED else 1
    return int(once * each * getattr(config, "restarts", 1)) * (2 if attack.name == "fab" else 1)
