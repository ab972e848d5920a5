"""The comparison with published code, on a repository that the test makes: no network, and nothing of anybody's."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from robustdistill.errors import BadInput

CHECKOUT = Path(__file__).parents[2]
sys.path.append(str(CHECKOUT))  # as `python -m benchmarks.parity` has it

from benchmarks.parity import __main__ as script  # noqa: E402
from benchmarks.parity import source as sources  # noqa: E402
from benchmarks.parity.cases import CASES  # noqa: E402
from benchmarks.parity.code import Code, Halting  # noqa: E402
from benchmarks.parity.compare import HEAD, IN_TRAINING_MODE, OWN, Case, Row, compare, markdown  # noqa: E402
from benchmarks.parity.scene import EPS, STEP, Probed, scene  # noqa: E402
from benchmarks.parity.source import Clones, Source  # noqa: E402
from benchmarks.parity.strength import strength, strengths  # noqa: E402

# A training script as they are published: it cannot be imported, and leaves a mark where it is run.
SCRIPT = """
import a_package_that_nobody_has
open(MARK, "w").write("was run")
SCALE = 1
student = Model().cuda()

@a_package_that_nobody_has.decorated
def attacked(model, x, y, mode, grow):
    model.train(mode)
    x_adv = x.detach() + 0.001 * torch.randn(x.shape).cuda()
    for _ in range(grow):
        x_adv.requires_grad_()
        loss = F.cross_entropy(model(x_adv), y)
        grad = torch.autograd.grad(loss, [x_adv])[0]
        x_adv = x_adv.detach() + STEP * grad.sign()
        x_adv = torch.min(torch.max(x_adv, x - EPS), x + EPS).clamp(0, 1)
    model.train()
    return x_adv.detach()

def whole(model, x, y, detached=False):
    x_adv = attacked(model, x, y, False, 3)
    clean = F.log_softmax(model(x), dim=1)
    adversarial = F.log_softmax(model(x_adv), dim=1)
    target = clean.detach() if detached else clean
    return F.nll_loss(clean, y) + 6 * F.kl_div(adversarial, target.exp(), reduction="batchmean")

for epoch in range(100):
    for x, y in enumerate(test_loader):
        raise ValueError("not this loop")
    for i, (x, y) in enumerate(loader):
        if i > 0:
            break
        optimizer.zero_grad()
        x_adv = attacked(student, x.float(), y, MODE, 3)
        loss = SCALE * F.cross_entropy(student(x_adv), y)
        loss.backward()
        optimizer.step()
        raise ValueError("not after the update")

def idle():
    for x in loader:
        continue
"""
PGD = {"name": "pgd", "steps": 3, "start": "gaussian"}


@pytest.fixture
def published(tmp_path: Path) -> tuple[Source, Clones]:
    """A clone OWNER/NAME of a repository with the script, whose name is then overwritten in a later commit."""
    clone = tmp_path / "clones" / "owner" / "name"
    clone.mkdir(parents=True)
    text = SCRIPT.replace("MARK", repr(str(tmp_path / "mark")))
    (clone / "train.py").write_text(text, encoding="utf-8")
    commit = _committed(clone)
    (clone / "train.py").write_text("raise ValueError('another version')\n", encoding="utf-8")
    _committed(clone)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return Source("owner/name", commit, {"train.py": sha256}), Clones(tmp_path / "clones", offline=True)


def _committed(clone: Path) -> str:
    git = ("git", "-C", str(clone), "-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "more")):
        subprocess.run([*git, *words], check=True, capture_output=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def _whole(detached: bool) -> Callable[..., Any]:
    def theirs(code: Code, given: Any) -> Any:
        code.names |= {"EPS": EPS, "STEP": STEP}
        code.take("train.py", "attacked", "whole")
        return code.call("whole", model=given.student, x=given.x, y=given.y, detached=detached)

    return theirs


def _looped(mode: bool) -> Callable[..., Any]:
    def theirs(code: Code, given: Any) -> Any:
        code.names |= {"EPS": EPS, "STEP": STEP, "MODE": mode}
        code.take("train.py", "attacked", "SCALE")
        return code.step(
            "train.py", "loader", student=given.student, x=given.x, y=given.y, i=0, optimizer=given.optimizer
        )

    return theirs


def _same(row: Row) -> bool:
    gaps = (row.moved, row.loss, row.input_gap, row.weight_gap)
    return max(gaps) < 1e-9 and min(row.input_cosine, row.weight_cosine) > 1 - 1e-9


def test_an_equal_step_is_equal_and_a_script_is_never_run(published: tuple[Source, Clones], tmp_path: Path) -> None:
    source, clones = published
    case = Case("trades", {"name": "trades", "attack": PGD | {"goal": "kl"}}, (source,), _whole(False))
    own, at_theirs = compare(case, clones)
    assert own.point == "own attack" and own.moved > 0.1  # the script attacks CE, ours the KL
    assert at_theirs.point == "theirs" and _same(at_theirs) and at_theirs.ours > 0
    assert not (tmp_path / "mark").exists()


def test_a_detached_target_has_the_same_loss_and_is_noticed(published: tuple[Source, Clones]) -> None:
    source, clones = published
    row = compare(Case("trades", {"name": "trades"}, (source,), _whole(True)), clones)[-1]
    assert row.loss < 1e-9 and row.input_cosine < 0.999 and row.weight_gap > 0.01


def test_a_loop_is_run_once_up_to_the_update(published: tuple[Source, Clones]) -> None:
    source, clones = published
    rows = compare(Case("pgd_at", {"name": "pgd_at", "attack": PGD}, (source,), _looped(False)), clones)
    assert [row.point for row in rows] == ["own attack", "theirs"] and all(map(_same, rows))


def test_an_attack_in_training_mode_is_told_apart(published: tuple[Source, Clones]) -> None:
    source, clones = published
    case = Case("pgd_at", {"name": "pgd_at", "attack": PGD}, (source,), _looped(True), ways=(OWN, IN_TRAINING_MODE))
    own, as_theirs, at_theirs = compare(case, clones)
    assert own.moved > 0.1 and not _same(own)
    assert _same(as_theirs) and _same(at_theirs)
    judged, trained = strength(case, clones)
    assert judged.ours > judged.theirs and judged.ours > judged.clean  # each attack is best at what it saw
    assert trained.theirs > trained.ours and trained.theirs > trained.clean


def test_another_content_is_refused(published: tuple[Source, Clones], tmp_path: Path) -> None:
    source, clones = published
    forged = Source(source.repository, source.commit, {"train.py": "0" * 64})
    with pytest.raises(BadInput, match="it is not run"):
        clones.read(forged, "train.py")
    with pytest.raises(BadInput, match="git cannot read it"):
        clones.read(Source(source.repository, "1" * 40, source.files), "train.py")
    with pytest.raises(BadInput, match="no clone"):
        clones.read(Source("owner/other", source.commit, source.files), "train.py")


def test_what_is_missing_is_cloned_unless_offline(
    published: tuple[Source, Clones], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, clones = published
    monkeypatch.setattr(sources, "ADDRESS", str(clones.folder / "{repository}"))
    fresh = Clones(tmp_path / "fresh")
    assert "def attacked" in fresh.read(source, "train.py") and (tmp_path / "fresh/owner/name/HEAD").is_file()
    with pytest.raises(BadInput, match="git cannot clone it"):
        fresh.read(Source("owner/other", source.commit, source.files), "train.py")


def test_parts_that_are_not_there_or_reach_for_files(published: tuple[Source, Clones], tmp_path: Path) -> None:
    source, clones = published
    code = Code(clones, source)
    for call, words in (
        (lambda: code.take("train.py", "absent"), "defines no 'absent'"),
        (lambda: code.step("train.py", "nothing"), "no loop over 'nothing'"),
        (lambda: code.step("train.py", "loader", "idle", loader=[0]), "updates nothing"),
    ):
        with pytest.raises(BadInput, match=words):
            call()
    with pytest.raises(NameError, match="open"):
        exec("open('mark')", code.names)
    with pytest.raises(ImportError):
        exec("import os", code.names)


def test_two_scenes_are_equal_and_share_nothing() -> None:
    one, other = scene(), scene()
    for first, second in zip(one.student.parameters(), other.student.parameters(), strict=True):
        assert torch.equal(first, second) and first.data_ptr() != second.data_ptr()
    right = (one.teacher(one.x).argmax(dim=1) == one.y).double().mean()
    assert 0.3 < right < 0.8 and float(one.x.min()) > EPS and float(one.x.max()) < 1 - EPS
    assert bool((scene(edge=True).x == 0).any()) and isinstance(one.optimizer, Halting)


def test_the_probe_sums_the_gradients_of_all_inputs() -> None:
    model = Probed(torch.nn.Flatten()).double()
    x = torch.rand(20, 3, 8, 8, dtype=torch.float64)
    torch.autograd.backward(2 * model(x).sum() + 3 * model(x + 1).sum())
    assert model.probe.grad is not None and bool((model.probe.grad == 5).all())
    assert len(model.asked) == 2 and len(model.points(x)) == 1


def test_nothing_is_run_unless_asked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert script.main([]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in CASES) and not (tmp_path / "clones").exists()
    assert script.main(["--run-their-code", "--offline", "--source", str(tmp_path / "clones"), "trades"]) == 2
    assert "there is no clone" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.main(["trade"])


def test_the_document_holds_a_table_of_all_cases_at_their_commits() -> None:
    text = (CHECKOUT / "docs" / "parity.md").read_text(encoding="utf-8")
    assert markdown([]) in text
    cells = [line.split(" | ") for line in text.splitlines() if line.count("|") == len(HEAD) + 1]
    told = {(row[0].removeprefix("| "), row[1], row[2]) for row in cells}
    for case in CASES.values():
        points = {way.label for way in case.ways} | {"theirs"}
        assert {(case.name, case.sources[0].commit[:10], point) for point in points} <= told, "print the table anew"
    assert strengths([]) in text
    assert "(parity.md)" in (CHECKOUT / "docs" / "methods.md").read_text(encoding="utf-8")
