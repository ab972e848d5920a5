"""Names that users chose, made safe to print: a newline or a terminal code in a file name must not forge output."""

from __future__ import annotations

from pathlib import Path


def shown(name: str | Path) -> str:
    """The name with everything unprintable escaped (`\\n`, `\\x1b`, `\\udcff`); letters of any script stay."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(name))
