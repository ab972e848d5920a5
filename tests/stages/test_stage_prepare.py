from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from robustdistill import journal
from robustdistill.config import Data
from robustdistill.data import Prepared, materialise
from robustdistill.errors import BadInput
from robustdistill.stages import prepare


def run(tmp_path: Path, **data: Any) -> Path:
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    params = SimpleNamespace(data=Data(**{"source": "digits"} | data))
    tools = SimpleNamespace(journal=journal.Journal(tmp_path / "journal.jsonl", "prepare"))
    prepare.run(params, {"data": tmp_path / "data"}, out, tools)  # type: ignore[arg-type]
    return out


def test_it_writes_prepared_data_and_tells_the_journal(tmp_path: Path) -> None:
    materialise("digits", tmp_path / "data")
    out = run(tmp_path, limit=300)
    prepared = Prepared.open(out)
    assert len(prepared.split("train")) == 300
    last = [record for _, record in journal.read(tmp_path / "journal.jsonl")][-1]
    assert (last["event"], last["done"], last["total"], last["unit"]) == ("progress", 1797, 1797, "images")


def test_it_writes_the_same_bytes_again(tmp_path: Path) -> None:
    materialise("digits", tmp_path / "data")
    first = {path.name: path.read_bytes() for path in run(tmp_path).iterdir()}
    assert {path.name: path.read_bytes() for path in run(tmp_path).iterdir()} == first


# If this changes, raise the revision of `prepare` in stages/catalog.py.
GOLDEN = "5eba84e41b38f2e85e11a117fb78dfc4b55fc4e9938096cfb5863ed0bf293e47"


def test_its_behaviour_does_not_change_unnoticed(tmp_path: Path) -> None:
    materialise("digits", tmp_path / "data")
    assert Prepared.open(run(tmp_path)).manifest.data_digest == GOLDEN


def test_an_unknown_source_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unknown data source 'digitz'") as caught:
        run(tmp_path, source="digitz")
    assert "did you mean 'digits'?" in caught.value.fix


def test_bad_data_are_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no data"):
        run(tmp_path)
