"""The study on digits with budgets of a third of a second: stopped in the middle, gone on, judged and read as a table;
and its parts by hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robustdistill.data.prepared import Split

CHECKOUT = Path(__file__).parents[2]
METHODS = ["pgd_at", "label_smoothing", "shuffled_classes", "rslad_sharp_adv"]
OPTIONS = ["--data", "digits", "--teacher", "tiny", "--sizes", "nano", "--val", "60", "--n", "40", "--budget", "0.005",
           "--autoattack", "none", "--seeds", "1", "2", "--methods", *METHODS]  # fmt: skip


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(CHECKOUT))


class Killed(BaseException):
    pass


def test_a_study_that_is_killed_goes_on_and_ends_in_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.study import __main__ as study
    from benchmarks.study import run as runs

    from robustdistill.training import checkpoint

    def start(*words: str) -> list[str]:
        study.main([*words, *OPTIONS, "--out", str(tmp_path)])
        return [line for line in capsys.readouterr().out.splitlines() if line.strip()]

    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", 1.0)
    write, victim = checkpoint.Checkpoints.write, "student-nano-rslad_sharp_adv-0"

    def killing(checkpoints: Any, *given: Any) -> None:
        write(checkpoints, *given)
        if checkpoints.folder.name == victim:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.Checkpoints, "write", killing)
        with pytest.raises(Killed):
            start("run", "--stage", "screen")
    done = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").glob("*.json")}
    assert "student-nano-pgd_at-0.json" in {file.name for file in done} and len(done) < 7
    capsys.readouterr()
    printed = start("run", "--stage", "screen")
    assert len(printed) == 7 - len(done) and all(file.stat().st_mtime_ns == was for file, was in done.items())
    record = json.loads((tmp_path / "runs" / f"{victim}.json").read_text(encoding="utf-8"))
    assert record["spent"]["processes"] == 2 and "test" not in record
    assert '"resumed"' in (tmp_path / "journal.jsonl").read_text(encoding="utf-8")
    assert start("run", "--stage", "screen") == []

    confirmed = start("run", "--stage", "confirm")
    assert len(confirmed) == 2 * len(METHODS) + 1
    assert json.loads((tmp_path / "selected.json").read_text())["nano"] == [*METHODS[:3], METHODS[3]]
    record = json.loads((tmp_path / "runs" / "student-nano-pgd_at-1.json").read_text(encoding="utf-8"))
    assert {"plan", "spent", "curve", "selected_epoch", "versions", "cpu", "settings", "threat"} <= set(record)
    assert record["plan"]["seconds"] == 0.3 and record["spent"]["seconds"] > 0.1 and record["test"]["n"] == 40
    assert str(tmp_path) not in json.dumps(record)
    seen = runs.judging.unpack(record["test"]["robust_bits"], 40)
    assert seen.mean() == pytest.approx(record["test"]["robust"])

    text = "\n".join(start("table"))
    confirm = text[text.index("## Confirm") :]
    rows = {line.split(" | ")[1]: line for line in confirm.splitlines() if line.startswith("| nano")}
    assert set(rows) == set(METHODS) and "| control |" in rows["pgd_at"]
    for name in METHODS[1:]:
        cells = [cell.strip() for cell in rows[name].strip("|").split("|")]
        lower, upper = map(float, cells[9].split(" to "))
        assert lower <= float(cells[8]) <= upper and 0 <= float(cells[10]) <= 1 and cells[11]
    assert "p (Holm)" in confirm and "points from the control" in confirm and "power 80 %" in confirm
    assert (tmp_path / "table.md").read_text(encoding="utf-8") and (tmp_path / "confirm.png").stat().st_size > 5000
    with pytest.raises(SystemExit):
        study.main(["table", *OPTIONS, "--budget", "1", "--out", str(tmp_path)])


def test_every_method_can_be_built_and_the_order_is_most_informative_first() -> None:
    from benchmarks.study.objectives import build
    from benchmarks.study.plan import METHODS as ALL
    from benchmarks.study.plan import SIZES, screen

    for method in ALL.values():
        build(method.objective)
    order = screen(list(SIZES), list(ALL))
    assert len({run.key for run in order}) == len(order) == len(ALL) * len(SIZES)
    assert [(run.size, run.method) for run in order[:3]] == [(size, "pgd_at") for size in SIZES]
    assert order[-1].method == "teacher_time"


def test_sections_make_the_examples_that_were_asked_for() -> None:
    from benchmarks.study.budget import examples_for, sections

    split = Split("train", np.zeros((100, 1, 8, 8), np.uint8), np.arange(100) % 10, np.arange(100, dtype=np.int64))
    for wanted, epochs, fewest, most in ((420, 4, 1, 2), (370, 4, 0, 1), (140, 1, 1, 2), (30, 1, 0, 1)):
        part, made = sections(split, wanted, seed=3)
        assert made == epochs and abs(len(part) * made - wanted) < made
        times = Counter((np.where(part.id < 100, part.id, part.id - 0x2545F4914F6CDD1)).tolist())
        assert (min(times.get(k, 0) for k in range(100)), max(times.values())) == (fewest, most)
        assert len(set(part.id.tolist())) == len(part)
    assert examples_for(10, 1000, 0.0, 4000) == 10_000
    assert examples_for(10, 1000, 0.001, 4000) == 6000  # four seconds of answers
    assert examples_for(2, 1000, 0.001, 4000) == 1000  # a quarter of the data, each asked for once


def test_a_shuffled_teacher_keeps_what_it_says_and_nothing_else() -> None:
    from benchmarks.study.objectives import among_classes, among_examples

    logits = torch.linspace(-3, 5, 60).view(6, 10).roll(3, dims=1)
    index = torch.arange(6) * 7919
    mixed = among_classes(logits, index)
    assert torch.equal(mixed.argmax(1), logits.argmax(1)) and torch.equal(mixed.sort(1).values, logits.sort(1).values)
    assert not torch.equal(mixed, logits) and torch.equal(mixed, among_classes(logits, index))
    assert torch.equal(among_classes(logits.flip(0), index.flip(0)), mixed.flip(0))  # an example's own, in any batch
    y = torch.tensor([2, 0, 2, 1, 2, 0])
    turned = among_examples(logits, y)
    assert torch.equal(turned[y.argsort(stable=True)], logits[[5, 1, 3, 2, 4, 0]])


def test_verdicts_come_back_from_their_string() -> None:
    from benchmarks.study.judging import pack, unpack

    flags = torch.arange(37).remainder(3).eq(0).numpy()
    assert (unpack(pack(flags), 37) == flags).all() and len(pack(flags)) == 10


def test_packed_records_make_the_same_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.study import __main__ as study
    from benchmarks.study import packed, table

    own = CHECKOUT / "benchmarks" / "study" / "fashion_mnist.jsonl"
    records = packed.read(own)
    packed.write([{**record, "curve": [1]} for record in records], tmp_path / "again.jsonl")
    assert packed.read(tmp_path / "again.jsonl") == records
    study.main(["table", "--records", str(tmp_path / "again.jsonl")])
    assert capsys.readouterr().out == table.text(records) + "\n"


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"run": 1}'])
def test_other_files_are_no_records(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.study import __main__ as study

    (tmp_path / "records.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        study.main(["table", "--records", str(tmp_path / "records.jsonl")])
    assert ended.value.code == 2
    assert "records.jsonl" in capsys.readouterr().err
