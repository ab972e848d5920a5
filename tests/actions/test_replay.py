"""The stored adversarial set against a registered version: the file that was judged passes, another one does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from linear_model import SHAPE, linear

from robustdistill.actions import package
from robustdistill.actions.replay import Replay, replay
from robustdistill.errors import BadInput, ServiceFailed
from robustdistill.gate.scorecard import Evidence
from robustdistill.inputs.pixels import to_unit

N = 40
THREAT = {"norm": "linf", "eps": 0.1, "low": 0.0, "high": 1.0}


@pytest.fixture
def judged(tmp_path: Path) -> tuple[Path, Path, Evidence]:
    """(version, adversaries, evidence): the set holds more than the sample, in another order."""
    version, adversaries = tmp_path / "version", tmp_path / "adversaries"
    for folder in (version, adversaries):
        folder.mkdir()
    onnx.save_model(linear(1.0), str(version / "model.onnx"))
    x_adv = np.random.default_rng(0).integers(0, 256, (N + 5, *SHAPE), dtype=np.uint8)
    ids = np.random.default_rng(1).permutation(N + 5).astype(np.int64)
    np.save(adversaries / "test_x_adv.npy", x_adv)
    np.save(adversaries / "test_id.npy", ids)
    by_id = np.argsort(ids)[:N]
    answers = package.logits(version / "model.onnx", to_unit(x_adv[by_id], 0.0, 1.0)).argmax(1)
    labels = answers.copy()
    labels[:10] = (labels[:10] + 1) % 3  # broken when it was judged
    card: dict[str, Any] = {"threat": THREAT}
    return version, adversaries, Evidence(card, np.arange(N), labels, labels, {"transfer": answers == labels})


def test_the_judged_file_answers_as_it_did(judged: tuple[Path, Path, Evidence]) -> None:
    assert replay(*judged) == Replay(examples=N, right=N - 10, lost=0)


def test_another_file_is_refused(judged: tuple[Path, Path, Evidence]) -> None:
    onnx.save_model(linear(-1.0), str(judged[0] / "model.onnx"))
    with pytest.raises(ServiceFailed, match="not what was judged"):
        replay(*judged)


def test_without_a_transfer_row_there_is_nothing_to_replay(judged: tuple[Path, Path, Evidence]) -> None:
    version, adversaries, evidence = judged
    other = Evidence(evidence.card, evidence.ids, evidence.labels, evidence.predictions, {"pgd": evidence.clean})
    assert replay(version, adversaries, other) == Replay(0, 0, 0)


def test_a_damaged_set_is_named(judged: tuple[Path, Path, Evidence]) -> None:
    (judged[1] / "test_id.npy").write_bytes(b"")
    with pytest.raises(BadInput, match="incomplete or damaged"):
        replay(*judged)
