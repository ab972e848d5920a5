"""The report: complete, self-contained, accessible, deterministic, safe against hostile names, and never in the way."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_artifacts import MODELS, build

from robustdistill.config import Floors, Margins, Policy
from robustdistill.gate.qualify import qualify
from robustdistill.gate.scorecard import Evidence
from robustdistill.gate.verdict import verdict
from robustdistill.release.plots import Series, interval_chart, line_chart, nice_ticks
from robustdistill.release.report import Settled, render

FACTS = {"data": "1ad7.dir", "reproduce": "dvc pull\ndvc repro"}
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Text, tags and attributes; fails on tags that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def decide(root: Path) -> dict[str, Any]:
    found = {name: Evidence.load(root / "score" / name) for name in MODELS}
    floors, margins = Floors(clean=0.5, robust=0.3), Margins(clean=0.1, robust=0.2)
    policy = Policy(teacher=floors, student=floors, champion=margins, best=margins)
    return verdict(policy, found["student"], found["control"], {"champion": found["control"]}, {}).to_json()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("report") / "artifacts")


@pytest.fixture
def artifacts(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "artifacts"))


@pytest.fixture(scope="module")
def page(whole: Path) -> Page:
    return Page(render(whole, title="digits", verdict=decide(whole), facts=FACTS))


def test_it_says_what_was_decided_first(page: Page) -> None:
    assert page.words.index("Passed: the student may be promoted") < page.words.index("The models compared")


@pytest.mark.parametrize(
    ("settled", "headline", "line"),
    [
        (
            Settled(
                "promoted", "digits version 2 is champion, before it version 1", "digits version 2, alias champion"
            ),
            "Promoted: digits version 2, alias champion",
            "digits version 2 is champion, before it version 1",
        ),
        (
            Settled("unchanged", "this student is the champion already", "digits version 1, alias champion"),
            "Passed, nothing to move: digits version 1, alias champion",
            "this student is the champion already",
        ),
        (
            Settled("challenger", "it waits", "digits-candidates version 3, alias challenger"),
            "Passed, waits for a person: digits-candidates version 3, alias challenger",
            "it waits",
        ),
    ],
)
def test_it_names_the_version_that_the_verdict_led_to(whole: Path, settled: Settled, headline: str, line: str) -> None:
    page = Page(render(whole, title="digits", verdict=decide(whole), facts=FACTS, settled=settled))
    start = page.words[: page.words.index("The models compared")]
    assert headline in start and line in start and "may be promoted" not in page.words


def test_a_refusal_says_what_stays_in_use(whole: Path) -> None:
    refused = {**decide(whole), "verdict": "fail"}
    settled = Settled("refused", "it did not pass; digits version 1, alias champion, stays in use", "digits version 1")
    for record, headline in ((refused, "Refused: the student is not promoted"), (None, "No verdict")):
        page = Page(render(whole, title="digits", verdict=record, facts=FACTS, settled=settled))
        assert headline in page.words and "digits version 1, alias champion, stays in use" in page.words


def test_a_refusal_that_names_the_failing_rule_says_it_once(whole: Path) -> None:
    rule = {"rule": "robust", "status": "fail", "sentence": "robust accuracy is below the floor", "by": None}
    record = {**decide(whole), "verdict": "fail", "rules": [rule]}
    settled = Settled("refused", "not worth it: robust accuracy is below the floor; toy stays in use")
    words = Page(render(whole, title="digits", verdict=record, facts=FACTS, settled=settled)).words
    start = words[: words.index("The models compared")]
    assert start.count("robust accuracy is below the floor") == 1 and "rules hold" not in start


def test_the_gain_is_answered_among_the_rules(page: Page) -> None:
    told = page.words[page.words.index("gain does not decide") :][:200]
    assert told.startswith("gain does not decide undecided: with its teacher the student is")


def test_a_strength_of_attack_is_spelt_as_it_was_given(artifacts: Path) -> None:
    for card in artifacts.glob("score/*/scorecard.json"):
        record = json.loads(card.read_text())
        card.write_text(json.dumps(record | {"threat": {**record["threat"], "eps": 8 / 255}}))
        curve = card.with_name("curve.csv")
        curve.write_text(f"factor,eps,accuracy,n\n0.25,{2 / 255},0.9,50\n1.0,{8 / 255},0.7,50\n")
    words = Page(render(artifacts, title="digits", verdict=None, facts={})).words
    assert "In linf-8/255 , every input value may change by at most 8/255 (3.1% of its range)" in words
    assert "student 2/255 90.0 %" in words and "student 8/255 70.0 %" in words and "0.0313" not in words


def test_what_the_student_alone_faced_and_its_weakest_class_are_shown(artifacts: Path) -> None:
    path = artifacts / "score" / "student" / "scorecard.json"
    record = json.loads(path.read_text())
    record["attacks"].append({"name": "transfer-teacher", "note": "made for teacher", "accuracy": 0.875})
    sides = {"clean": {"class": "3", "n": 9, "accuracy": 0.9}, "robust": {"class": "8", "n": 12, "accuracy": 0.25}}
    path.write_text(json.dumps(record | {"worst_class": sides}))
    words = Page(render(artifacts, title="digits", verdict=None, facts={})).words
    assert "worst class 25.0 % 8, 12 examples; clean: 90.0 % for 3" in words
    assert "transfer-teacher, 87.5 %: made for teacher." in words and "not run" not in words
    path.write_text(json.dumps(record | {"worst_class": {"robust": 1}}))
    assert "worst class" not in Page(render(artifacts, title="digits", verdict=None, facts={})).words


def test_every_section_is_filled(page: Page) -> None:
    for expected in (
        "240,010", "9,034", "1/27 of the teacher", "autoattack", "worst case",  # models
        "champion_robust", "Did the student gain from its teacher?", "undecided",  # gate
        "Attacks made against the initial model", "Attacks made against the student",
        "at most 0.1 (10.0% of its range)", "160 test examples were attacked by fgsm, autoattack",
        "1ad7.dir", "dvc repro", "d1ad1a", "student-sha", "PGD and AutoAttack differ by 6 points",
        "validation accuracy under PGD fell", "autoattack: stands in for it.",
    ):  # fmt: skip
        assert expected in page.words
    assert len(page.named("polyline")) == 4 + 3 * 4  # the curve, and clean, PGD and loss of each model
    assert not [note for note in page.named("p") if note.get("class") == "note"][1:]  # only the alarm


def test_it_needs_nothing_else(page: Page, whole: Path) -> None:
    html = render(whole, title="digits", verdict=decide(whole), facts=FACTS)
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r'"data:image/png;base64,[^"]*"', "", html))
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for key in ("src", "href"):
            assert (attributes.get(key) or "#").startswith(("data:image/png;base64,", "#"))
    assert len(html) < 200_000


def test_images_have_alternatives_and_links_have_targets(page: Page) -> None:
    images = page.named("img")
    assert len(images) == 3 * (4 + 4)
    assert all(image["alt"] for image in images)
    for drawing in page.named("svg"):
        assert drawing.get("aria-label") or drawing.get("aria-hidden") == "true"
    ids = {attributes["id"] for _, attributes in page.tags if attributes.get("id")}
    assert {(link["href"] or "").removeprefix("#") for link in page.named("a")} <= ids
    assert page.named("html")[0]["lang"] == "en"
    assert any(meta.get("name") == "viewport" for meta in page.named("meta"))


def test_the_same_artifacts_give_the_same_bytes(whole: Path, artifacts: Path) -> None:
    first = render(whole, title="digits", verdict=decide(whole), facts=FACTS)
    assert render(artifacts, title="digits", verdict=decide(artifacts), facts=FACTS) == first
    assert str(whole) not in first


def test_predictions_are_those_of_the_exported_files(page: Page) -> None:
    """Every attack in the first gallery was chosen because it fools the initial model."""
    said = [
        attributes.get("class") for attributes in page.named("div") if attributes.get("class") in ("right", "wrong")
    ]
    assert said[:12:3] == ["wrong"] * 4
    assert said[2 + 12 :: 3] == ["wrong", "wrong", "right", "right"]


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    evil = "</style><script>alert(1)</script>\u202e\x1b"
    names = [f"{evil}{k}" for k in range(10)]
    root = build(tmp_path / "a", classes=names)
    html = render(root, title=evil, verdict=decide(root), facts={evil: evil, "b": f"\n{evil}"})
    page = Page(html)
    assert "script" not in {tag for tag, _ in page.tags}
    assert "alert(1)" in page.words
    assert "\u202e" not in html
    assert "\x1b" not in html


def test_a_refused_teacher(artifacts: Path) -> None:
    for part in ("student", "control", "score/student", "score/control", "export/student", "export/control"):
        shutil.rmtree(artifacts / part)
    floors, margins = Floors(clean=0.5, robust=0.99), Margins(clean=0.1, robust=0.2)
    policy = Policy(teacher=floors, student=floors, champion=margins, best=margins)
    refused = qualify(policy, Evidence.load(artifacts / "score" / "teacher")).to_json()
    page = Page(render(artifacts, title="digits", verdict=refused, facts={}))
    assert "Refused: the teacher is not worth distilling" in page.words
    assert "Not judged in this run: control, student." in page.words
    assert "No training in this run: control, student." in page.words
    assert "No attacked examples of the student to show." in page.words
    assert "not exported" in page.words


def test_nothing_at_all(tmp_path: Path) -> None:
    page = Page(render(tmp_path / "none", title="digits", verdict=None, facts={}))
    assert "No verdict: nothing was decided in this run" in page.words
    assert "Not judged in this run: initial, teacher, control, student." in page.words


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "card": (lambda a: (a / "score/student/scorecard.json").write_text("{"), "score/student/scorecard.json cannot be"),
    "card parts": (lambda a: (a / "score/student/scorecard.json").write_text("{}"), "is not a scorecard"),
    "history": (lambda a: (a / "teacher/history.csv").write_text("epoch\nmany\n"), "teacher/history.csv cannot be"),
    "curve": (lambda a: (a / "score/teacher/curve.csv").write_text("a,b\n1,2\n"), "files for this part cannot be read"),
    "x_adv": (lambda a: (a / "score/student/x_adv.npy").unlink(), "x_adv.npy is not there"),
    "x_adv shape": (lambda a: np.save(a / "score/student/x_adv.npy", np.zeros((3, 1, 8, 8))), "do not fit each other"),
    "pickle": (
        lambda a: np.save(a / "score/student/ids.npy", np.array([{}], dtype=object), allow_pickle=True),
        "cannot be read (ValueError)",
    ),
    "onnx": (lambda a: (a / "export/teacher/model.onnx").write_bytes(b"x"), "export/teacher/model.onnx cannot be run"),
    "test ids": (lambda a: np.save(a / "prepare/test_id.npy", np.arange(300)), "not in the test data"),
    "manifest": (lambda a: (a / "prepare/manifest.json").write_text("[]"), "prepare/manifest.json cannot be read"),
    "no images": (lambda a: (a / "prepare/manifest.json").write_text('{"shape": [64], "classes": []}'), "no images"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_said_where_it_is(damage: str, artifacts: Path) -> None:
    record = decide(artifacts)
    change, sentence = DAMAGE[damage]
    change(artifacts)
    page = Page(render(artifacts, title="digits", verdict=record, facts=FACTS))
    assert sentence in page.words
    assert "Passed: the student may be promoted" in page.words


def test_many_classes_are_cut_to_the_weakest(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustdistill.release.report.MOST_CLASSES", 3)
    page = Page(render(whole, title="digits", verdict=None, facts={}))
    assert "The 3 weakest of 10 classes" in page.words


def test_chart_leaves_out_what_is_not_finite() -> None:
    series = Series("a", "student", [(0.0, 0.5), (1.0, float("nan")), (2.0, 1.0)], [(0, 1), (0, 1), (0, 1)])
    chart = str(line_chart([series], title="t", x_label="x"))
    assert len(re.findall(r"\d,\d", chart.split("points=")[1].split("/>")[0])) == 2
    assert "nan" not in chart
    assert line_chart([Series("a", "student", [])], title="t", x_label="x") == ""


@pytest.mark.parametrize("points", [[(3.0, 0.2)], [(1.0, 0.0), (2.0, 0.0)], [(1.0, -2.0), (2.0, 5.0)]])
def test_chart_of_degenerate_numbers(points: list[tuple[float, float]]) -> None:
    chart = str(line_chart([Series("a", "student", points)], title="<t>", x_label="x", percent=False, mark=2.0))
    assert "&lt;t&gt;" in chart
    assert "nan" not in chart
    assert "inf" not in chart


def test_interval_chart_puts_zero_in_the_middle() -> None:
    chart = str(interval_chart(-0.02, -0.05, 0.01, title="t"))
    left, right = (float(x) for x in re.findall(r'class="student whisker" x1="([\d.]+)" x2="([\d.]+)"', chart)[0])
    assert left < 234 < right


@pytest.mark.parametrize(("low", "high", "whole"), [(0, 1, False), (1, 12, True), (0.3, 0.7, False), (1, 2, True)])
def test_ticks_are_round_and_inside(low: float, high: float, whole: bool) -> None:
    ticks = nice_ticks(low, high, whole=whole)
    assert 2 <= len(ticks) <= 8
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
    assert not whole or all(tick == round(tick) for tick in ticks)


def test_a_teacher_that_was_trained_anew_is_told(artifacts: Path) -> None:
    path = artifacts / "teacher" / "summary.json"
    news = "trained anew instead of from the champion's teacher: that one has classes 3, the data have 2"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"news": news}))
    assert f"teacher: {news}" in Page(render(artifacts, title="digits", verdict=None, facts=FACTS)).words


def test_the_worst_case_is_the_first_figure_of_a_model(whole: Path) -> None:
    """So a phone shows it without scrolling."""
    html = render(whole, title="digits", verdict=decide(whole), facts=FACTS)
    table = html[html.index('aria-label="accuracies of the models"') :]
    columns = re.findall(r'<th scope="col">([^<]*)</th>', table[: table.index("</thead>")])
    assert columns == ["model", "worst case", "clean", "fgsm", "autoattack", "parameters"]
    cells = re.findall(
        r"<td>(?:<b>)?([\d.,]+)", table[table.index("<tbody>") : table.index("</tr>", table.index("<tbody>"))]
    )
    card = json.loads((whole / "score" / "initial" / "scorecard.json").read_text())
    assert cells[0] == f"{100 * card['robust']['accuracy']:.1f}" and cells[-1] == "240,010"
