"""Attack after attack on one model: who still stands, and the worst input found for each example.

Own attacks see every example; the last word, AutoAttack, only those still standing, as in its official form. An
example is broken if PyTorch or the exported file errs on it. A model that errs without an attack is broken from the
start. Each finished piece is stored, so an evaluation that was killed and started again ends with the same figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustdistill.attacks import Access, Attack
from robustdistill.attacks.suite import Own, parts
from robustdistill.attacks.types import Target
from robustdistill.config import Spec
from robustdistill.engine.twin import Twin
from robustdistill.judge import autoattack
from robustdistill.judge.progress import Heard, Piece, Progress, queries
from robustdistill.judge.rescaled import Rescaled, copied, scale_of
from robustdistill.judge.resume import Arrays, Pieces
from robustdistill.judge.sample import Sample
from robustdistill.judge.served import traced
from robustdistill.judge.subject import BATCH, Subject
from robustdistill.rng import Draws
from robustdistill.threat import ThreatModel

Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass
class Row:
    """One attack's result. right [N]: classified rightly under it. replayed_only: broken by the exported file alone.

    blind [N]: broken by a part that needs no gradient, after all those that do; None where there is no such part.
    """

    name: str
    right: Flags
    kind: str
    parts: list[str] = field(default_factory=list)
    note: str = ""
    replayed_only: int = 0
    blind: Flags | None = None


@dataclass(frozen=True)
class Span:
    """One part of an attack that has `count` of them. queries: that it takes at most for a piece."""

    number: int = 0
    count: int = 1
    part: str = ""
    queries: int = 1

    def share(self, done: float) -> float:
        """Of the whole attack, when this share of the part is done."""
        return (self.number + done) / self.count


@dataclass
class Trial:
    """The state of one evaluation. standing [N]: not broken so far. worst: float32 [N, *shape], see `_keep`."""

    subject: Subject
    sample: Sample
    threat: ThreatModel
    seed: int
    chunk: int
    pieces: Pieces
    progress: Progress

    def __post_init__(self) -> None:
        self.fresh = copied(self.subject.model)  # what health asks of attacked inputs first
        self.first = self.subject.logits(self.sample.x[:BATCH])
        self.scale = scale_of(self.subject.logits(self.sample.x))
        plain = self.scale == 1.0 or self.subject.access < Access.GRADIENT
        self.attacked = self.subject.model if plain else Rescaled(self.subject.model, self.scale)
        self.twin = Twin(self.attacked)  # answers are checked on the model itself
        reply = self.subject.reply(self.sample.x, self.sample.y)
        self.clean: Flags = reply.right
        self.standing: Flags = reply.right.copy()
        self.worst: Tensor = self.sample.x.clone()
        self._margin = reply.margin.copy()
        self.rows: list[Row] = []
        self.warnings: list[str] = []
        self.found_by: dict[str, int] = {}

    def own(self, name: str, attack: Attack, kind: str, target: Target | None = None) -> Row:
        """One of the project's attacks, on all examples. target: another model that it is made for, then replayed."""
        row = Row(name, self.clean.copy(), kind, [attack.name])
        draws = Draws(self.seed).fold(f"judge/{name}")
        if isinstance(attack.config, Own.Config) and target is None:
            self._in_parts(row, parts(attack.config, self.subject.classes, self.subject.shape), draws)
        else:
            self._attacked(row, name, attack, draws, np.arange(len(self.sample)), Span(), target)
        self.rows.append(row)
        return row

    def _in_parts(self, row: Row, found: dict[str, Attack], draws: Draws) -> None:
        """The project's suite, each part on what those before it left: as the attack itself does, but told apart."""
        for number, (part, attack) in enumerate(found.items()):
            left = row.right.copy()
            span = Span(number, len(found), part)
            self._attacked(row, f"{row.name}-{part}", attack, draws.fold(part), np.flatnonzero(left), span, None)
            if attack.needs < Access.GRADIENT:
                row.blind = left & ~row.right

    def _attacked(
        self, row: Row, key: str, attack: Attack, draws: Draws, positions: Ints, span: Span, target: Target | None
    ) -> None:
        # What breaks another model may stand here.
        asked = Heard(target, self.progress) if target else Heard(self.twin, self.progress, attack.needs)

        def attacked(at: Ints, piece: int) -> tuple[Tensor, list[str]]:
            return attack(asked, self.sample.batch(at), self.threat, draws), []

        cost = queries(attack, self.subject.classes, self.subject.shape)
        self._run(row, key, positions, attacked, replace(span, queries=cost))

    def transfer(self, x_adv: Tensor, known: Flags, note: str) -> Row:
        """Stored adversarial examples of another model. known [N]: whether there is one for this example."""
        row = Row("transfer", self.clean.copy(), "transfer", ["stored"], note)

        def stored(positions: Ints, piece: int) -> tuple[Tensor, list[str]]:
            return x_adv[torch.from_numpy(positions).to(x_adv.device)], []

        self._run(row, "transfer", np.flatnonzero(known), stored)
        self.rows.append(row)
        return row

    def last_word(self, suite: autoattack.Suite, *, rand: bool) -> Row:
        """AutoAttack, or what stands in for it, on the examples still standing; all others count as broken."""
        row = self._suite(suite, "last_word", rand=rand)
        if suite.parts[-1] == "square":
            after = float(self.standing.mean())
            self.warnings += autoattack.square_warning(after + self.found_by["square"] / len(self.sample), after)
        return row

    def black_box(self, suite: autoattack.Suite) -> Row:
        """Parts that ask for scores only, on the examples still standing."""
        return self._suite(suite, "free", rand=False)

    def _suite(self, suite: autoattack.Suite, role: str, *, rand: bool) -> Row:
        kind = autoattack.RandAutoAttack if rand else autoattack.AutoAttack
        classes, device = self.subject.classes, self.sample.x.device
        served = self._queries(rand=rand) if device.type == "cpu" else None
        attack = kind(
            self.twin.model, self.threat, classes, self.seed,
            device=str(device), served=served, heard=self.progress.heard, queries=suite.queries,
        )  # fmt: skip
        first = self.sample.batch(np.arange(min(self.chunk, len(self.sample))))
        self.warnings += attack.warnings(first.x, first.y, rand=rand)
        row = Row(suite.name, self.standing.copy(), role, list(suite.parts), suite.note)
        for number, part in enumerate(suite.parts):
            before = int(self.standing.sum())

            def attacked(positions: Ints, piece: int, part: str = part) -> tuple[Tensor, list[str]]:
                batch = self.sample.batch(positions)
                return attack.run(part, batch.x, batch.y, piece)

            span = Span(number, len(suite.parts), part, attack.cost(part))
            self._run(row, f"{suite.name}-{part}", np.flatnonzero(self.standing), attacked, span)
            self.found_by[part] = before - int(self.standing.sum())
        row.note = f"{suite.note}; run on the examples that no earlier attack broke".lstrip("; ")
        self.rows.append(row)
        return row

    def _queries(self, *, rand: bool) -> autoattack.Served | None:
        """What answers faster than the module where no gradient is asked: what is served, or a copy made for this."""
        if self.subject.file is not None:
            return self.subject.served
        if rand or self.subject.access < Access.GRADIENT:
            return None
        copy = traced(self.subject.model, torch.cat([self.sample.x, self.worst]))
        return None if copy is None else lambda x: copy.run(x.numpy())

    def _run(
        self,
        row: Row,
        key: str,
        positions: Ints,
        attack: Callable[[Ints, int], tuple[Tensor, list[str]]],
        span: Span = Span(),
    ) -> None:
        """Attacks in pieces of `chunk` and takes note."""
        total = len(self.sample)
        if span.number == 0 and len(positions):
            self.progress.attack(row.name, 0.0, total, self._left())
        for piece, chosen in enumerate(self._chunks(positions)):
            begin, end = (span.share(min(1.0, done * self.chunk / len(positions))) for done in (piece, piece + 1))
            elsewhere = self._left() - int(self.standing[chosen].sum())
            self.progress.begin(
                Piece(row.name, span.part, begin, end, total, self._left(), elsewhere, max(1, span.queries))
            )
            stored = self.pieces.get(f"{key}-{piece}", chosen, lambda c=chosen, p=piece: self._piece(attack, c, p))  # type: ignore[misc]
            self._note(row, chosen, stored)
            self.progress.attack(row.name, end, total, self._left())

    def _left(self) -> int:
        return int(self.standing.sum())

    def _chunks(self, positions: Ints) -> Iterator[Ints]:
        for begin in range(0, len(positions), self.chunk):
            yield positions[begin : begin + self.chunk]

    def _piece(self, attack: Callable[[Ints, int], tuple[Tensor, list[str]]], positions: Ints, piece: int) -> Arrays:
        x_adv, heard = attack(positions, piece)
        reply = self.subject.reply(x_adv, self.sample.batch(positions).y)
        return {"x_adv": x_adv.cpu().numpy(), **reply._asdict(), "heard": np.array(heard, dtype=np.str_)}

    def _note(self, row: Row, positions: Ints, piece: Arrays) -> None:
        right, only = piece["right"], piece["only_served_wrong"]
        row.replayed_only += int((only & row.right[positions] & self.clean[positions]).sum())
        row.right[positions] &= right
        broken = self.standing[positions] & ~right
        # The worst input: the first that broke the example; until then the one nearest to breaking it.
        nearer = self.standing[positions] & (broken | (piece["margin"] > self._margin[positions]))
        at, kept = positions[nearer], torch.from_numpy(piece["x_adv"][nearer])
        self.worst[torch.from_numpy(at).to(self.worst.device)] = kept.to(self.worst.device)
        self._margin[at] = piece["margin"][nearer]
        self.standing[positions] &= right
        self.warnings += [text for text in piece["heard"].tolist() if text not in self.warnings]


def label(spec: Spec, attack: Attack, taken: list[str]) -> str:
    """A plain, unique name: fgsm, pgd-20, pgd-40-margin, pgd-20x5."""
    config = attack.config
    name = attack.name
    if hasattr(config, "steps"):
        name += f"-{config.steps}"
    if getattr(config, "restarts", 1) > 1:
        name += f"x{config.restarts}"
    if config.goal != "ce":
        name += f"-{config.goal}"
    count = sum(other == name or other.startswith(f"{name}.") for other in taken)
    return f"{name}.{count + 1}" if count else name


def kind_of(attack: Attack) -> str:
    """What health compares: "single" step, "iterative", or "free" of gradients."""
    if attack.needs < Access.GRADIENT:
        return "free"
    return "iterative" if getattr(attack.config, "steps", 1) > 1 else "single"
