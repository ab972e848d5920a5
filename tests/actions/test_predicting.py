"""predict: the champion is looked up anew each time, its hashes are checked, and MLflow is imported only if it must."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustdistill import recipes
from robustdistill.actions import champion, serving
from robustdistill.actions.promote import promote
from robustdistill.actions.register import READ, SHA
from robustdistill.cli import main
from robustdistill.services import mlflow_glance
from robustdistill.services.mlflow_address import Address
from robustdistill.services.mlflow_store import Store

IN_A_NEW_PROCESS = """
import sys
from robustdistill.cli import guarded, main
try:
    main(sys.argv[1:])
finally:
    heavy = {"mlflow", "torch", "sqlalchemy", "pandas"} & set(sys.modules)
    print("HEAVY", *sorted(heavy), file=sys.stderr)
"""


@pytest.fixture
def home(work: Path) -> Path:
    """A workspace of the model `toy`, with an image of its size."""
    recipes.write(recipes.load("digits", model_name="toy"), work.parent)
    Image.fromarray(np.arange(0, 240, 40, dtype=np.uint8).reshape(2, 3)).save(work.parent / "image.png")
    return work.parent


def _promoted(store, work, number):
    return promote(store, "toy", number, verdict={"verdict": "pass"}, record={}, by="me", work=work).version


def _predict(home: Path, capsys, *options: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["--workspace", str(home), "predict", str(home / "image.png"), *options])
    return int(caught.value.code or 0), *capsys.readouterr()


def _record(store, number: int) -> Path:
    location = store.client.get_model_version_download_uri("toy", str(number))
    return Path(location.removeprefix("file://")) / "export.json"


def _rename(path: Path) -> None:
    text = path.read_text()
    assert text.count('"cat"') == 1
    path.write_text(text.replace('"cat"', '"wolf"'))


@pytest.mark.parametrize("change", [{"classes": ["dog", "cat", "eel"]}, {"high": 2.0}, {"resize": True}])
def test_an_artifact_that_is_read_in_another_way_is_refused(home, store, work, registered, change, capsys):
    _promoted(store, work, registered(1.0))
    path = _record(store, 1)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    code, out, err = _predict(home, capsys)
    assert code == 2 and out == ""
    assert "class names, input range or scaling are not those that were registered" in err
    assert "toy version 1 in sqlite:///" in err and "robustdistill versions" in err
    assert not [path for path in (work / "models").iterdir() if path.is_dir()]


def test_a_copy_with_other_names_is_fetched_anew(home, store, work, registered, capsys):
    _promoted(store, work, registered(1.0))
    folder = champion.fetch(store, "toy", "champion", work / "models")
    _rename(folder / "export.json")
    code, out, err = _predict(home, capsys, "--json")
    assert code == 0 and set(json.loads(out)[0]["probabilities"]) == {"cat", "dog", "eel"}
    assert serving.OPENING in err and "note" not in err


def test_an_older_version_loads_with_a_note(home, store, work, registered, capsys):
    _promoted(store, work, registered(1.0))
    store.client.delete_model_version_tag("toy", "1", READ)
    for _ in range(2):  # fetched, then kept
        code, out, err = _predict(home, capsys)
        assert code == 0 and out and "note: toy version 1 is from before class names" in err


def test_mlflow_is_imported_once_and_another_champion_is_noticed(home, store, work, registered, make_student):
    _promoted(store, work, registered(1.0))
    command = [sys.executable, "-c", IN_A_NEW_PROCESS, "--workspace", str(home), "predict", str(home / "image.png")]
    done = [subprocess.run(command, capture_output=True, text=True, check=False) for _ in range(2)]
    assert [each.returncode for each in done] == [0, 0] and done[0].stdout == done[1].stdout
    assert "mlflow" in done[0].stderr.partition("HEAVY")[2]
    assert done[1].stderr.split() == ["HEAVY"]
    _promoted(store, work, registered(1.0, classes=["cat", "wolf", "eel"]))
    last = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert "wolf" in json.loads(last.stdout)[0]["probabilities"], last.stderr


def test_a_glance_sees_what_mlflow_sees_or_nothing(store, work, registered, tmp_path):
    address = Address.find(None, work)
    assert mlflow_glance.version(address, "toy", "champion") is None
    _promoted(store, work, registered(1.0)), _promoted(store, work, registered(2.0))
    for alias, number in (("champion", 2), ("previous", 1)):
        seen = mlflow_glance.version(address, "toy", alias)
        assert seen == store.registry.version("toy", number) and seen.tags[SHA]
    assert mlflow_glance.version(address, "toy", "chmpion") is None
    assert mlflow_glance.version(Address("http://127.0.0.1:1"), "toy", "champion") is None
    assert mlflow_glance.version(Address(f"sqlite:///{tmp_path}/none.db"), "toy", "champion") is None
    store.client.delete_model_version("toy", "1")
    assert mlflow_glance.version(address, "toy", "previous") is None
    with sqlite3.connect(work / "mlflow.db") as connection:
        connection.execute("ALTER TABLE registered_model_aliases RENAME COLUMN alias TO nickname")
    assert mlflow_glance.version(address, "toy", "champion") is None
    assert not (tmp_path / "none.db").exists()


def test_the_address_of_the_environment_comes_first(home, store, work, registered, monkeypatch, capsys):
    """A workspace's own database is not asked where a record elsewhere is named."""
    _promoted(store, work, registered(1.0))
    champion.fetch(store, "toy", "champion", work / "models")
    other = home / "other"
    other.mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other / 'mlflow.db'}")
    Store.open(None, other)
    code, _, err = _predict(home, capsys)
    assert code == 2 and "toy has no champion" in err
