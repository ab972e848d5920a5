"""Any torch module can be judged: honest ones as if they were ours, odd ones without breaking an attack."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from judge_toys import EDGE, Case, judged, write_export
from torch import Tensor, nn

from robustdistill.config import Judge
from robustdistill.data.prepared import Prepared
from robustdistill.engine.devices import Compute
from robustdistill.engine.twin import Twin
from robustdistill.errors import BadInput
from robustdistill.judge import Judgement, evaluate
from robustdistill.judge.foreign import Foreign, columns
from robustdistill.judge.sample import Sample, draw
from robustdistill.judge.served import Served, traced
from robustdistill.judge.subject import Subject

Make = Callable[..., Case]
SHAPE = (1, EDGE, EDGE)


def sample_of(case: Case) -> Sample:
    return draw(Prepared.open(case.prepared).split("test"), 100, case.params.seed)


def evaluated(case: Case, subject: Subject, **protocol: Any) -> Judgement:
    judge: Judge = case.params.judge.model_copy(update=protocol)
    threat = case.params.threat.model(0.0, 1.0)
    return evaluate(subject, sample_of(case), threat, judge, case.tools("foreign"), seed=case.params.seed)


def foreign(module: nn.Module, classes: int = 4) -> Subject:
    return Subject.of_module(module, shape=SHAPE, classes=classes)


class Cut(nn.Module):
    """Hides the way back from its logits to its input."""

    def __init__(self, net: nn.Module, how: str) -> None:
        super().__init__()
        self.net, self.how = net, how
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "no_grad":
            with torch.no_grad():
                return self.net(x)  # type: ignore[no-any-return]
        if self.how == "constant":
            return self.net(torch.zeros_like(x)) * self.scale  # type: ignore[no-any-return]
        return self.net(x.detach()) * self.scale  # type: ignore[no-any-return]


def test_a_module_gets_the_figures_of_the_same_model_from_files(make: Make) -> None:
    case = make(4)
    ours = judged(case)
    theirs = evaluated(case, foreign(case.model.double().float()))
    assert theirs.healthy
    assert theirs.card["robust"] == ours["robust"]
    assert [row["name"] for row in theirs.card["attacks"]] == [row["name"] for row in ours["attacks"]]
    assert theirs.card["subject"]["access"] == "gradient" and theirs.card["subject"]["onnx_sha256"] is None
    np.testing.assert_array_equal(theirs.trial.standing, case.analytic)


@pytest.mark.parametrize("how", ["detach", "no_grad", "constant"])
def test_an_input_that_is_cut_off_has_gradient_zero_and_is_found(make: Make, how: str) -> None:
    case = make(4)
    found = evaluated(case, foreign(Cut(case.model, how)))
    assert not found.healthy
    assert "zero_gradients" in {item["name"] for item in found.card["health"] if not item["ok"]}


def test_a_module_that_is_attacked_stays_as_it_was() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 4))
    subject = foreign(net)
    twin = Twin(subject.model)
    assert twin.model is subject.model and any(isinstance(each, nn.BatchNorm2d) for each in twin.model.modules())
    x = torch.full((3, *SHAPE), 0.5)
    assert torch.equal(twin.logits(x), subject.logits(x))
    assert not net.training and not any(weight.requires_grad for weight in net.parameters())


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (lambda x: x.flatten(1)[:, :5], "shape"),
        (lambda x: x.flatten(), "shape"),
        (lambda x: (x, x), "tuple"),
        (lambda x: x.flatten(1)[:, :4].long(), "int64"),
        (lambda x: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_an_answer_that_is_none_is_bad_input(answer: Callable[[Tensor], Any], cause: str) -> None:
    with pytest.raises(BadInput, match=cause):
        Foreign(answer, 4)(torch.zeros(2, *SHAPE))


@pytest.mark.parametrize(
    ("answer", "cause"), [(lambda x: x.flatten(1)[:, :1], "one output"), (lambda x: x.flatten(), "shape")]
)
def test_classes_are_counted_by_asking(answer: Callable[[Tensor], Any], cause: str) -> None:
    assert columns(nn.Sequential(nn.Flatten(), nn.Linear(36, 7)), torch.zeros(2, *SHAPE)) == 7
    with pytest.raises(BadInput, match=cause):
        columns(answer, torch.zeros(2, *SHAPE))


def test_an_error_in_the_model_names_its_line() -> None:
    def fails(x: Tensor) -> Tensor:
        raise RuntimeError("sizes differ")

    with pytest.raises(BadInput, match="sizes differ") as caught:
        columns(fails, torch.zeros(1, *SHAPE))
    assert caught.value.where.startswith(f"{__file__}, line ")


def test_logits_that_are_no_numbers_end_in_a_finding(make: Make) -> None:
    case = make(4)

    class Nan(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :4] * torch.nan

    found = evaluated(case, foreign(Nan()))
    assert found.card["robust"]["accuracy"] == 0 and not found.healthy
    assert "finite_logits" in {item["name"] for item in found.card["health"] if not item["ok"]}


@pytest.mark.parametrize("value", [torch.inf, -torch.inf])
def test_infinite_logits_end_in_a_finding(make: Make, value: float) -> None:
    case = make(4)

    class Infinite(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits = case.model(x)
            return torch.where(logits > 0.5, value, logits)

    found = evaluated(case, foreign(Infinite()))
    assert "finite_logits" in {item["name"] for item in found.card["health"] if not item["ok"]}
    json.dumps(found.card, allow_nan=False)


def test_a_module_that_writes_into_its_input_is_judged_like_any(make: Make) -> None:
    case = make(4)

    class Writes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = case.model(x.sub_(0.25) + 0.25)
            return logits

    sample = sample_of(case)
    found = evaluated(case, foreign(Writes()))
    assert torch.equal(found.trial.sample.x, sample.x)
    np.testing.assert_array_equal(found.trial.standing, case.analytic)


def test_stored_pieces_are_not_taken_for_those_of_other_code(make: Make) -> None:
    case = make(4)

    class Same(nn.Module):
        def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.net, self.answer = case.model, answer

        def forward(self, x: Tensor) -> Tensor:
            return self.answer(x)

    one, other = foreign(Same(lambda x: case.model(x))), foreign(Same(lambda x: -case.model(x)))
    assert one.key == other.key  # equal class, weights and file
    assert evaluated(case, one).card["clean"]["accuracy"] > 0.5 > evaluated(case, other).card["clean"]["accuracy"]
    folders = list((case.root / "foreign" / "judge").iterdir())
    assert len(folders) == 2


def test_a_scripted_module_is_judged_like_any(make: Make) -> None:
    case = make(4)
    net = nn.Sequential(nn.Flatten(), case.model.net.linear)  # type: ignore[union-attr, arg-type]
    found = evaluated(case, foreign(torch.jit.script(net)))
    assert found.trial.standing.sum() > 0 and found.healthy


def test_a_file_alone_is_attacked_by_scores_and_is_never_healthy(make: Make) -> None:
    case = make(4)
    names = [f"class {number}" for number in range(4)]
    subject = Subject.of_file(case.export / "model.onnx", Compute("cpu", 1), shape=SHAPE, names=names)
    found = evaluated(case, subject)
    assert [row["name"] for row in found.card["attacks"]] == ["square"]
    assert found.card["subject"]["access"] == "scores" and found.card["curve"] == []
    assert {item["name"] for item in found.card["health"] if not item["ok"]} == {"access", "last_word"}
    assert found.card["robust"]["accuracy"] < found.card["clean"]["accuracy"] and not found.healthy


def test_a_surrogate_attacks_what_gives_no_gradients(make: Make) -> None:
    case = make(4)
    names = [f"class {number}" for number in range(4)]
    subject = Subject.of_file(case.export / "model.onnx", Compute("cpu", 1), shape=SHAPE, names=names)
    threat = case.params.threat.model(0.0, 1.0)
    sample, tools = sample_of(case), case.tools("foreign")
    found = evaluate(subject, sample, threat, case.params.judge, tools, surrogates={"twin": case.model})
    row = next(row for row in found.card["attacks"] if row["name"] == "transfer-twin")
    assert row["accuracy"] == case.analytic.mean()  # the surrogate is the very model


def test_a_file_of_a_fixed_batch_size_is_asked_in_parts(tmp_path: Path, make: Make) -> None:
    case = make(2)
    net, path = case.model, tmp_path / "fixed.onnx"
    torch.onnx.export(net, (torch.zeros(4, *SHAPE),), str(path), dynamo=False, input_names=["pixels"])
    x = torch.rand(7, *SHAPE, generator=torch.Generator().manual_seed(0))
    file = Served.foreign(path, 1, SHAPE)
    np.testing.assert_allclose(file.run(x.numpy()), net(x).numpy(), atol=1e-5)
    with pytest.raises(BadInput, match=r"the data are \(or its twin takes\) \[3, 6, 6\]"):
        Served.foreign(path, 1, (3, EDGE, EDGE))


def test_queries_go_to_a_copy_only_where_it_is_a_true_one(make: Make) -> None:
    case = make(4)
    x = sample_of(case).x
    x = x[x[:, 0, 0, 0].argsort()]  # the first batch begins with 0.39, the second with about 0.5

    class Odd(nn.Module):
        def __init__(self, how: str) -> None:
            super().__init__()
            self.net, self.how = case.model, how

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.net(x)
            if self.how == "random":
                return logits + 0.1 * torch.rand_like(logits)
            if self.how == "branches":  # tracing sees one way only
                return logits if float(x.flatten()[0]) > 0.45 else -logits
            if self.how == "nan":
                return logits * torch.nan
            return logits

    copy = traced(foreign(Odd("")).model, x)
    assert copy is not None
    np.testing.assert_allclose(copy.run(x[:5].numpy()), case.model(x[:5]).numpy(), atol=1e-4)
    before = torch.get_rng_state()
    assert [traced(foreign(Odd(how)).model, x) for how in ("random", "branches", "nan")] == [None] * 3
    assert torch.equal(before, torch.get_rng_state())


def test_what_cannot_be_copied_is_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    class Turned(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            theta = torch.diag_embed(1 + x.flatten(1)[:, :2])
            grid = nn.functional.affine_grid(torch.cat([theta, theta[:, :, :1]], 2), list(x.shape))
            return nn.functional.grid_sample(x, grid).flatten(1)[:, :4]

    assert traced(foreign(Turned()).model, torch.rand(3, *SHAPE)) is None
    assert "graph" not in "".join(capfd.readouterr())


def test_names_and_classes_must_agree(make: Make) -> None:
    with pytest.raises(BadInput, match="2 class names"):
        Subject.of_module(nn.Flatten(), shape=SHAPE, classes=3, names=["a", "b"])
    case = make(2)
    write_export(case.model, case.export, 2)
    assert Subject.open(case.export, Compute("cpu", 1)).names == ["class 0", "class 1"]
