"""What is compared: one entry a published step. A new one goes into the file of its kind and into `CASES`."""

from __future__ import annotations

from benchmarks.parity.cases import companions, seen_on_x, seen_on_x_adv, teacher_free, two_teachers
from benchmarks.parity.compare import Case

CASES: dict[str, Case] = {
    case.name: case
    for kind in (teacher_free, companions, seen_on_x, seen_on_x_adv, two_teachers)
    for case in vars(kind).values()
    if isinstance(case, Case)
}
