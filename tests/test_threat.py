"""The threat model: parsing, bounds, comparison, words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustdistill.errors import BadInput
from robustdistill.threat import ThreatModel, parse_eps, require_same, spell


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), ("0.1", 0.1), (0.5, 0.5), (" 2 / 255 ", 2 / 255), ("1e-3", 0.001)]
)
def test_eps_is_a_number_or_a_fraction(text: str | float, value: float) -> None:
    assert parse_eps(text) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "8/0",
        "0",
        "-1/255",
        "nan",
        "inf",
        "eight",
        "",
        "1e99999999",
        "1e-320",
        1e-320,
        0,
        -0.1,
        float("nan"),
        float("inf"),
    ],
)
def test_what_is_no_radius_is_refused(text: str | float) -> None:
    with pytest.raises(BadInput) as caught:
        parse_eps(text)
    assert caught.value.where == "threat.eps" and "8/255" in caught.value.fix


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_a_fraction_is_its_quotient(over: int, under: int) -> None:
    assert parse_eps(f"{over}/{under}") == over / under


@given(st.floats(1e-6, 1e3), st.floats(-5, 4.9), st.sampled_from(["linf", "l2"]))
def test_it_survives_json(eps: float, low: float, norm: str) -> None:
    threat = ThreatModel(norm, eps, low, 5.0)  # type: ignore[arg-type]
    assert ThreatModel.from_json(threat.to_json()) == threat


def test_empty_boxes_and_unknown_norms_are_refused() -> None:
    with pytest.raises(BadInput, match="hold no input"):
        ThreatModel("linf", 0.1, 1.0, 1.0)
    with pytest.raises(BadInput, match="unknown norm"):
        ThreatModel("l7", 0.1)  # type: ignore[arg-type]


def test_numbers_of_two_threats_are_not_compared() -> None:
    require_same(ThreatModel("linf", 0.1), ThreatModel("linf", 0.1), what="two models")
    for other in (ThreatModel("l2", 0.1), ThreatModel("linf", 0.2), ThreatModel("linf", 0.1, -1, 1)):
        with pytest.raises(BadInput, match="different threat models"):
            require_same(ThreatModel("linf", 0.1), other, what="two models")


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        (8 / 255, "8/255"), (0.03137255, "8/255"), (1 / 255, "1/255"), (127.5 / 255, "0.5"), (0.2, "0.2"), (1.0, "1"),
        (0.1, "0.1"), (8.001 / 255, "0.0313765"), (1e-9, "1e-09"),
    ],
)  # fmt: skip
def test_steps_of_an_image_are_spelt_as_such(eps: float, text: str) -> None:
    assert spell(eps) == text
    assert ThreatModel("linf", eps).label() == f"linf-{text}"


def test_another_box_has_no_steps_but_keeps_what_was_written() -> None:
    assert spell(8 / 255, -1.0, 1.0) == "0.0313725"
    threat = ThreatModel.parse("linf: 8 / 255", -1.0, 1.0)
    assert threat.label() == "linf-8/255" and "at most 8/255 (1.6% of its range)" in threat.describe()
    assert ThreatModel.from_json(threat.record()).label() == "linf-8/255"
    assert threat.text_of(threat.eps) == "8/255" and threat.text_of(2 * threat.eps) == "0.0627451"
    assert ThreatModel("linf", 8 / 255).text_of(2 / 255) == "2/255"


def test_the_spelling_distinguishes_nothing() -> None:
    written, plain = ThreatModel.parse("linf:1/10"), ThreatModel.parse("linf:0.1")
    assert written.label() == "linf-1/10" != plain.label()
    assert written == plain and hash(written) == hash(plain) and written.to_json() == plain.to_json()
    require_same(written, plain, what="two models")


def test_files_without_a_spelling_or_with_a_false_one_are_read() -> None:
    old = {"norm": "linf", "eps": 0.1, "low": 0.0, "high": 1.0}
    assert ThreatModel.parse("linf:0.1").record() == ThreatModel.from_json(old).record() == old
    assert ThreatModel.parse("linf:8/255").record() == old | {"eps": 8 / 255}  # nothing to add: eps says it
    assert ThreatModel.from_json(old | {"written": "1/2"}).label() == "linf-0.1"


def test_it_is_said_in_words() -> None:
    assert "12.5% of its range" in ThreatModel("linf", 0.25, -1, 1).describe()
    assert "Euclidean" in ThreatModel("l2", 0.5).describe()
    assert ThreatModel("linf", 8 / 255).scaled(2).eps == pytest.approx(16 / 255)
