"""The faults that one pass over the data found, told together: nobody should mend a thousand files one by one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from robustdistill.errors import BadInput, several

NAMED = 10  # faults told with their places; the rest is counted


class Faults:
    """Gathers BadInput. where: what was read, as shown in the error of several faults."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._first: list[BadInput] = []
        self._count = 0

    def __bool__(self) -> bool:
        return self._count > 0

    def add(self, fault: BadInput) -> None:
        self._count += 1
        if self._count <= NAMED:
            self._first.append(fault)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """What is wrong inside is kept for `raise_any`."""
        try:
            yield
        except BadInput as fault:
            self.add(fault)

    def raise_any(self) -> None:
        """Raises the only fault, or BadInput that names the first NAMED and counts the rest; does nothing if none."""
        if self._count == 1:
            raise self._first[0]
        if self._count:
            raise several(self._first, self._count, where=self._where)
