"""A flow as a command: options from its parameters, and a mistake said before a server is started."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from robustdistill import launch


class Flow:
    """As much of a Prefect flow as the launcher uses."""

    name = "retrain"

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}

    @staticmethod
    def fn(by: str, workspace: str = ".", version: int | None = None, dry_run: bool = False) -> None:
        """Data to verdict."""


def test_parameters_become_options() -> None:
    command = launch.command(Flow(), {"by": "who answers for it"})
    options = {option.name: option for option in command.params}
    assert options["by"].required and options["by"].help == "who answers for it"  # type: ignore[attr-defined]
    assert options["dry_run"].is_flag and options["version"].type.name == "integer"  # type: ignore[attr-defined]
    assert {"as_json", "debug"} <= set(options)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--by", "me", "--workspace", "nowhere"], 2, "this is not a workspace"),
        (["--workspace", "."], 2, "Missing option '--by'"),
        (["--by", "me", "--versoin", "3"], 2, "--version"),
        (["--help"], 0, ""),
    ],
)
def test_a_mistake_is_a_sentence_and_a_code(
    arguments: list[str], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["retrain.py", *arguments])
    with pytest.raises(SystemExit) as caught:
        launch.main(Flow(), {})
    assert caught.value.code == code
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said
