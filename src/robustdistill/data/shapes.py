"""The shapes of a pass over the images: all have to be the same, and if not, one fault tells which there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from robustdistill.data.faults import Faults
from robustdistill.errors import BadInput
from robustdistill.inputs.pixels import GRAY

NAMED = 4  # sizes told; the rest is counted
SMALL = 32  # edge that is quick to train on
SMALLEST = 4  # of data.resize

Shape = tuple[int, ...]


class Shapes:
    """Gathers shapes (C, H, W), and for each the first image that has it."""

    def __init__(self) -> None:
        self._counts: dict[Shape, int] = {}
        self._first: dict[Shape, int] = {}

    def see(self, shape: Shape, position: int) -> None:
        self._counts[shape] = self._counts.get(shape, 0) + 1
        self._first.setdefault(shape, position)

    def tell(self, faults: Faults, place: Callable[[int], str], where: str) -> None:
        """Adds a fault if there are gray and coloured images, and one if there are several sizes.

        place(i): where image i is, as shown in errors. where: the data as a whole.
        """
        channels = self._grouped(lambda shape: "gray" if shape[0] == GRAY else "RGB")
        if len(channels) > 1:
            kinds = _told(channels, "", place)
            faults.add(BadInput(f"gray and RGB images: {kinds}", where=where, fix="make all images gray or all RGB"))
        sizes = self._grouped(lambda shape: f"{shape[2]} × {shape[1]}")
        if len(sizes) > 1:
            edge = max(SMALLEST, min(SMALL, *(min(shape[1:]) for shape in self._counts)))
            fix = f"set data.resize: {edge} in params.yaml, or another edge in pixels (--resize {edge} of "
            fix += "`robustdistill init` and `data add` does it), or make all images one size"
            faults.add(
                BadInput(f"images of {len(sizes)} sizes: {_told(sizes, ' pixels', place)}", where=where, fix=fix)
            )

    def _grouped(self, name: Callable[[Shape], str]) -> dict[str, tuple[int, int]]:
        """{name: (images, the first of them)}, the most frequent first."""
        groups: dict[str, tuple[int, int]] = {}
        for shape, count in self._counts.items():
            images, first = groups.get(name(shape), (0, self._first[shape]))
            groups[name(shape)] = (images + count, first)
        return dict(sorted(groups.items(), key=lambda group: -group[1][0]))


def _told(groups: Mapping[str, tuple[int, int]], unit: str, place: Callable[[int], str]) -> str:
    """Each with its count, and an example of all but the most frequent."""
    told = [
        f"{images} {'of ' if unit else ''}{name}{unit}" + (f" (for example {place(first)})" if number else "")
        for number, (name, (images, first)) in enumerate(groups.items())
    ]
    return ", ".join([*told[:NAMED], *([f"and {len(told) - NAMED} more sizes"] if len(told) > NAMED else [])])
