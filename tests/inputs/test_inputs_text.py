from __future__ import annotations

import pytest

from robustdistill.inputs import shown


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("Katze-größer 猫", "Katze-größer 猫"),
        ("two\nlines", "two\\nlines"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("not utf-8 \udcff", "not utf-8 \\xff"),
        ("turned \u202e round", "turned \\u202e round"),
    ],
)
def test_names_are_printed_without_what_could_forge_output(name: str, printed: str) -> None:
    assert shown(name) == printed
    assert shown(name).encode("utf-8")
