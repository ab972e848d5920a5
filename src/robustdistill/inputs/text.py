"""Names that users chose, made safe to print: a newline or a terminal code in a file name must not forge output."""

from __future__ import annotations

from pathlib import Path


def shown(name: str | Path) -> str:
    """The name with everything unprintable escaped (`\\n`, `\\x1b`; `\\xe9` for a byte that is not UTF-8).

    Letters of any script stay.
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in str(name))


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python spells a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
