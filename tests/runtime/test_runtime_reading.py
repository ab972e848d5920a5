"""The hash of what a predictor reads beside the weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustdistill.errors import BadInput
from robustdistill.runtime.reading import reading, require_reading

RECORD = {"classes": ["cat", "dog"], "shape": [1, 2, 3], "low": 0.0, "high": 1.0, "parameters": 7}


@pytest.mark.parametrize(
    "change",
    [{"classes": ["dog", "cat"]}, {"shape": [1, 3, 2]}, {"low": -1.0}, {"high": 2.0}, {"resize": True}],
)
def test_whatever_changes_an_answer_changes_it(change: dict[str, object]) -> None:
    require_reading(RECORD, reading(RECORD), Path("export.json"))
    with pytest.raises(BadInput, match="are not those that were registered") as caught:
        require_reading(RECORD | change, reading(RECORD), Path("export.json"))
    assert caught.value.exit_code == 2 and caught.value.where == "export.json" and caught.value.fix


def test_nothing_else_does() -> None:
    backwards = dict(reversed(RECORD.items()))
    assert reading(RECORD) == reading(backwards) == reading(RECORD | {"parameters": 8, "opset": 18})
    require_reading(RECORD, None, Path("export.json"))  # of a version from before there was the hash
    assert (
        reading(RECORD) == "34937c1dacf2c1249da13fc8dd32063c3287640620a7309abb7dd9da40b6e0fc"
    )  # tags of registered versions hold it
