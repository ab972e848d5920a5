"""The comparison of two suites on verdicts made by hand, and one small run that is stopped and goes on."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "suite_agreement.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("suite_agreement", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_net_excess_by_hand(benchmark: ModuleType) -> None:
    """2 models, 2 seeds, 4 images. Image 0 of model 0: theirs broke it with one seed, ours with none: + 1/2 of a
    verdict of 8. Image 1 of model 1: ours broke it with both, theirs with none: − 1."""
    ours, theirs = np.ones((2, 2, 4), dtype=bool), np.ones((2, 2, 4), dtype=bool)
    theirs[0, 1, 0] = ours[1, :, 1] = False
    found = benchmark.net_excess(ours, theirs)
    assert found["net_excess"] == pytest.approx((0.5 - 1) / 8 * 100)
    assert found["they_broke_we_missed"] == pytest.approx(0.5 / 8 * 100)
    assert found["we_broke_they_missed"] == pytest.approx(1 / 8 * 100)
    assert list(benchmark.missed(ours, theirs)) == [(0, 0)] and list(benchmark.missed(theirs, ours)) == [(1, 1)]


def test_the_bound_treats_all_verdicts_on_one_image_as_one(benchmark: ModuleType) -> None:
    """400 images, 4 of which theirs alone break: 1 point, standard error 0.5 points however many models and seeds say
    the same. Resampled as if independent, 9 of them would give a third of that."""
    ours, theirs = np.ones((3, 3, 400), dtype=bool), np.ones((3, 3, 400), dtype=bool)
    theirs[:, :, :4] = False
    found = benchmark.net_excess(ours, theirs)
    assert found["net_excess"] == 1.0 and 1.6 < found["upper_95"] < 2.1
    same = benchmark.net_excess(theirs, theirs)
    assert same["net_excess"] == same["upper_95"] == 0.0


def test_a_run_that_was_stopped_goes_on_and_refuses_other_settings(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--models", "trades", "--seeds", "1", "--n", "24", "--steps", "4", "--queries", "10", "--epochs", "1"]
    monkeypatch.setattr(benchmark.autoattack, "ITERATIONS", 100)  # restored afterwards
    monkeypatch.setattr(benchmark.autoattack, "QUERIES", 5000)

    def run(*more: str) -> Any:
        return benchmark.run(benchmark.arguments_of([*options, "--out", str(tmp_path), *more]))

    first = run()
    assert first["images"] == 24 and first["models"] == ["trades"]
    part = tmp_path / "trades-theirs-0.json"
    record = json.loads(part.read_text(encoding="utf-8"))
    assert list(record["left"]) == ["apgd-ce", "apgd-t", "fab-t", "square"] and len(record["robust"]) == 24
    (tmp_path / "trades-ours-0.json").unlink()
    part.write_text(json.dumps(record | {"robust": [False] * 24}), encoding="utf-8")  # it is read, not made again
    again = run()
    assert again["robust"]["theirs"] == {"trades": [0.0]} and again["robust"]["ours"] == first["robust"]["ours"]
    with pytest.raises(SystemExit, match="other settings"):
        run("--steps", "5")
