"""Plain text for people: columns with a header, and long lines that wrap under their own beginning."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence

WIDEST = 110


def columns(header: Sequence[str], rows: Iterable[Sequence[str]], width: int | None = None) -> str:
    """Aligned, with `header` above. width: where lines end, what is cut off said by an ellipsis; default nowhere."""
    table = [header, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)
    return "\n".join(_cut(line.rstrip(), width) for line in lines)


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else f"{line[: width - 1].rstrip()}…"


def labelled(rows: Iterable[tuple[str, str]], width: int | None = None) -> str:
    """`label  text`, the text wrapped within its column. width: of a line, default the terminal's, WIDEST at most."""
    listed = list(rows)
    width = width or min(shutil.get_terminal_size().columns, WIDEST)
    indent = max(len(label) for label, _ in listed) + 2
    lines = []
    for label, text in listed:
        lines += textwrap.wrap(
            text,
            width,
            initial_indent=label.ljust(indent),
            subsequent_indent=" " * indent,
            break_long_words=False,  # a path or a digest is copied whole
            break_on_hyphens=False,
        )
    return "\n".join(lines)
