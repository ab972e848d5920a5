"""`robustdistill judge` on models of every kind, from the command line to its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from judge_any import CLASSES, EDGE, images, margins
from PIL import Image

from robustdistill import judge as judging_judge
from robustdistill import recipes
from robustdistill.actions.judge_target import Place, short_name
from robustdistill.cli import main
from robustdistill.engine.devices import Compute
from robustdistill.errors import BadInput
from robustdistill.gate.scorecard import Evidence
from robustdistill.judge import autoattack
from robustdistill.models import ModelSpec, build, weights
from robustdistill.release import onnx

Judge = Callable[..., tuple[int, str, str]]
EPS = 0.1
X, Y = images()
FULL_QUERIES = autoattack.QUERIES


def robust(n: int = 40) -> float:
    """The share that stands: each block's mean moves by eps, so a margin of 2 eps is needed."""
    return float((margins(n) > 2 * EPS).mean())


def test_own_code_is_judged_by_one_command(judge: Judge) -> None:
    code, out, err = judge("own:load", "--json")
    said = json.loads(out)
    assert code == 0 and "loading" in err and "Traceback" not in err
    assert said["healthy"] is True and said["robust_accuracy"] == robust() and said["clean_accuracy"] == 1.0
    assert {item["name"] for item in said["checks"]} >= {"zero_gradients", "gradient_free"}
    assert [attack["name"] for attack in said["attacks"]] == ["fgsm", "pgd-20", "pgd-40-margin", "autoattack"]
    assert said["sample"]["n"] == 40 and said["notes"] == []


def test_results_lie_in_one_folder_and_are_never_overwritten(judge: Judge, here: Path) -> None:
    code, out, _ = judge("own:load", "--quick")
    folder = next((here / "judged").iterdir())
    assert code == 0 and str(folder.relative_to(here) / "report.html") in out and "worst case" in out
    assert "not AutoAttack" in out and "not AutoAttack" in (folder / "report.html").read_text()
    assert Evidence.load(folder).robust.mean() == robust()
    assert json.loads((folder / "judgement.json").read_text())["robust_accuracy"] == robust()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, out, err = judge("own:load", "--quick", "--again")
    assert code == 0 and "it is judged anew" in err and "already judged" not in err
    assert sorted(path.name for path in (here / "judged").iterdir()) == [folder.name, f"{folder.name}-2"]
    assert before == {path: path.read_bytes() for path in before}
    again = (here / "judged" / f"{folder.name}-2" / "judgement.json").read_bytes()
    assert again == (folder / "judgement.json").read_bytes()
    code, _, err = judge("own:load", "--out", str(folder))
    assert code == 2 and "the folder exists" in err


def test_what_was_judged_already_is_shown_not_judged_again(
    judge: Judge, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where all that the figures depend on is the same: with other surrogates it is judged."""
    first = json.loads(judge("own:rounded", "--quick", "--json")[1])
    (folder,) = (here / "judged").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(judging_judge, "evaluate", lambda *_, **__: pytest.fail("judged again"))
        code, out, err = judge("own:rounded", "--quick", "--json")
    assert (code, json.loads(out)) == (3, first)
    assert f"already judged: judged/{folder.name}; --again judges anew" in err
    assert "already judged" not in judge("own:rounded", "--quick", "--surrogate", "own:load")[2]
    (folder / "judgement.json").write_text("{")
    assert "it is judged anew" in judge("own:rounded", "--quick")[2]
    assert len(list((here / "judged").iterdir())) == 3


def test_the_page_says_what_was_found_and_needs_nothing_else(judge: Judge, here: Path) -> None:
    judge("own:load", "--quick", "--out", "found")
    page = (here / "found" / "report.html").read_text()
    assert f"{100 * robust():.1f} % robust accuracy under linf-0.1" in page
    assert "no check failed, 1 warned" in page and "all checks hold" not in page  # the last word was left out
    assert page.count("<article>") == 6 + 2 and "data:image/png;base64," in page
    assert "http" not in page.replace("http-equiv", "") and "<script" not in page


@pytest.mark.parametrize(
    "shape", ["float32 n,h,w", "float64 n,h,w,1", "uint8 n,h,w", "uint8 n,h,w,3", "float32 n,3,h,w", "int64 n,h,w"]
)
def test_any_usual_array_of_images_will_do(judge: Judge, shape: str) -> None:
    kind, axes = shape.split()
    x, y = images()
    x = x if kind.startswith("float") else np.rint(x * 255)
    x = {"n,h,w": x, "n,h,w,1": x[..., None], "n,h,w,3": np.stack([x] * 3, -1), "n,3,h,w": np.stack([x] * 3, 1)}[axes]
    np.savez("other.npz", images=x.astype(kind), labels=y.astype("int32"))
    said = json.loads(judge("own:load", "--quick", "--json", data="other.npz")[1])
    assert said["robust_accuracy"] == robust() and said["sample"]["n"] == 40


def test_equal_images_are_all_judged_and_a_part_if_asked(judge: Judge) -> None:
    x, y = images()
    np.savez("twice.npz", images=np.concatenate([x, x]), labels=np.concatenate([y, y]))
    said = json.loads(judge("own:load", "--quick", "--json", data="twice.npz")[1])
    assert said["sample"]["n"] == 80 and said["robust_accuracy"] == robust()
    said = json.loads(judge("own:load", "--quick", "--json", "--n", "7")[1])
    assert said["sample"]["n"] == 7 and said["notes"][1] == "7 of 40 examples were judged"


def test_a_folder_with_a_folder_a_class(judge: Judge, here: Path) -> None:
    x, y = images()
    for number, (image, label) in enumerate(zip(x, y, strict=True)):
        folder = here / "photos" / f"class {label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(folder / f"{number}.png")
    said = json.loads(judge("own:load", "--quick", "--json", data="photos")[1])
    assert said["robust_accuracy"] == robust()
    assert [row["class"] for row in said["per_class"]] == [f"class {number}" for number in range(CLASSES)]
    assert judge("own:five", "--quick", data="photos")[0] == 2


def test_l2_has_its_own_radius(judge: Judge) -> None:
    """The mean of 16 pixels moves by at most eps / 4 in one block, so a margin of sqrt(2) eps / 4 is needed."""
    said = json.loads(judge("own:load", "--json", threat="l2:0.8")[1])
    assert said["threat"]["norm"] == "l2"
    assert said["robust_accuracy"] == (margins(40) > 0.8 * np.sqrt(2) / 4).mean()


@pytest.mark.parametrize("target", ["own:instance", "own:Blocks", "own:Factories.load"])
def test_a_model_a_class_or_an_attribute_will_do(judge: Judge, target: str) -> None:
    assert judge(target, "--quick")[0] == 0


def test_an_unhealthy_evaluation_is_exit_code_3_and_says_why(judge: Judge) -> None:
    code, out, _ = judge("own:rounded", "--json")
    said = json.loads(out)
    assert code == 3 and said["healthy"] is False
    assert "zero_gradients" in {item["name"] for item in said["checks"] if not item["ok"]}
    code, out, _ = judge("own:nan", "--quick")
    assert code == 3 and "NOT HEALTHY" in out and "finite_logits" in out


def test_a_stopped_judgement_goes_on_where_it_was(judge: Judge, monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    whole = judge("own:load", "--out", "whole")[0]
    original, calls = autoattack.AutoAttack.run, []

    def dies(self: Any, *args: Any) -> Any:
        if calls:
            raise KeyboardInterrupt
        calls.append(args[0])
        return original(self, *args)

    monkeypatch.setattr(autoattack.AutoAttack, "run", dies)
    assert judge("own:load")[0] == 130
    again: list[str] = []
    monkeypatch.setattr(autoattack.AutoAttack, "run", lambda self, *a: (again.append(a[0]), original(self, *a))[1])
    assert judge("own:load")[0] == whole == 0
    assert again == ["apgd-t", "fab-t", "square"]
    (folder,) = (here / "judged").iterdir()  # and nothing is left beside it
    assert (folder / "judgement.json").read_bytes() == (here / "whole" / "judgement.json").read_bytes()


def _cnn(folder: Path) -> Path:
    """An export of a real, untrained model of these images, in the way that a workspace makes one."""
    spec = ModelSpec({"name": "small_cnn", "size": "nano"}, (1, EDGE, EDGE), CLASSES, 0.0, 1.0, (0.3,), (0.2,))
    source = folder / "weights"
    source.mkdir()
    weights.save(build(spec, 0, "judge"), source)
    x = torch.from_numpy(images()[0][:2, None])
    onnx.export(source, folder / "export", [str(k) for k in range(CLASSES)], x, np.array([], dtype=np.int64))
    return folder / "export"


def test_one_model_in_all_its_forms_gets_one_figure(judge: Judge, here: Path) -> None:
    export = _cnn(here)
    described = json.loads((export / "model.json").read_text())["spec"]
    described["architecture"] = described.pop("model")
    (here / "net.json").write_text(json.dumps(described))
    (here / "net.safetensors").write_bytes((export / "model.safetensors").read_bytes())
    (here / "net.onnx").write_bytes((export / "model.onnx").read_bytes())
    threat = "linf:0.01"
    figures = [
        json.loads(judge(target, *options, "--quick", "--json", threat=threat)[1])["robust_accuracy"]
        for target, *options in (
            [str(export)],
            [str(export / "model.safetensors")],
            ["net.safetensors", "--config", "net.json"],
            ["net.safetensors"],
            ["net.onnx", "--twin", "net.safetensors"],
        )
    ]
    assert len(set(figures)) == 1
    code, out, _ = judge("net.onnx", "--json", threat=threat)
    said = json.loads(out)
    assert code == 3 and said["subject"]["access"] == "scores" and "black-box" in said["notes"][0]
    assert [attack["name"] for attack in said["attacks"]] == ["square"]
    assert "access" in {item["name"] for item in said["checks"] if not item["ok"]}


def test_a_quick_look_at_a_black_box_is_what_the_help_says(judge: Judge, here: Path) -> None:
    file, few = str(_cnn(here) / "model.onnx"), autoattack.QUICK_QUERIES
    asked: list[int] = []
    original = autoattack.SquareAttack
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autoattack, "SquareAttack", lambda *a, **k: asked.append(k["n_queries"]) or original(*a, **k))
        code, out, _ = judge(file, "--quick", threat="linf:0.01")
        full = json.loads(judge(file, "--json", threat="linf:0.01")[1])
    said = " ".join(out.split())
    assert code == 3 and asked == [few, autoattack.QUERIES]
    assert f"square-{few}: black box: {few} queries of scores for an example" in said
    assert f"a quick look: Square with {few} queries" in said and "PGD" not in said
    assert [attack["name"] for attack in full["attacks"]] == ["square"] and len(full["notes"]) == 1


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"labels": Y + 1}, "label 4 is none of the model's 4 classes"),
        ({"images": X[:, :6]}, "the data are (1, 6, 8)"),
        ({"images": np.stack([X] * 3, -1)}, "the data are (3, 8, 8)"),
    ],
)
def test_an_export_and_other_data_do_not_go_together(
    judge: Judge, here: Path, arrays: dict[str, Any], said: str
) -> None:
    np.savez("bad.npz", **{"images": X, "labels": Y, **arrays})
    code, _, err = judge(str(_cnn(here)), "--quick", data="bad.npz")
    assert code == 2 and said in err


def test_a_twin_that_is_another_model_is_noticed(judge: Judge, here: Path) -> None:
    export = _cnn(here)
    code, out, _ = judge(str(export / "model.onnx"), "--twin", "own:load", "--quick", "--json")
    assert code == 3 and "parity" in {item["name"] for item in json.loads(out)["checks"] if not item["ok"]}


def test_absent_classes_are_noted_and_a_test_part_comes_first(judge: Judge) -> None:
    np.savez("parts.npz", images=X, labels=Y, test_images=X[Y < 3], test_labels=Y[Y < 3])
    said = json.loads(judge("own:five", "--quick", "--json", data="parts.npz")[1])
    assert said["sample"]["n"] == 30
    assert said["notes"][-1] == "2 of the model's 5 classes have no example here"


def test_short_names_are_plain(here: Path) -> None:
    assert short_name("pkg.models:load") == "pkg-models-load"
    assert short_name("models:/digits/3") == "digits-3"
    assert short_name("digits@champion") == "digits-champion"


def test_a_twin_is_for_onnx_only(here: Path) -> None:
    from robustdistill.actions.judge_target import find

    with pytest.raises(BadInput, match="only an ONNX file"):
        find("own:load", Place(None, here, Compute("cpu", 1)), "own:load")


def test_a_twin_gives_gradients(judge: Judge, here: Path) -> None:
    file = str(_cnn(here) / "model.onnx")
    code, _, err = judge(file, "--twin", file, "--quick")
    assert code == 2 and "gives none of" in err and "--twin" in err


def test_help_teaches(judge: Judge, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["judge", "--help"])
    said = capsys.readouterr().out
    assert f"Square with {autoattack.QUICK_QUERIES} queries, not {FULL_QUERIES}" in " ".join(said.split())
    for word in ("package.module:factory", "model.onnx", "digits@champion", "--threat linf:8/255", "Exit codes"):
        assert word in said


def test_recipes_and_this_command_use_the_same_attacks() -> None:
    from robustdistill.actions.judge_case import OWN
    from robustdistill.attacks import build as attack

    of_recipe = recipes.load("digits").params.judge.attacks
    assert [attack(spec).config for spec in of_recipe] == [attack(spec).config for spec in OWN]


def test_examples_made_for_another_model_are_tried_too(judge: Judge) -> None:
    code, out, _ = judge("own:load", "--quick", "--json", "--surrogate", "own:load", "--surrogate", "own:rounded")
    rows = {attack["name"]: attack["accuracy"] for attack in json.loads(out)["attacks"]}
    assert code in (0, 3) and rows["transfer-1-own-load"] == robust() == rows["pgd-40-margin"]
    assert "transfer-2-own-rounded" in rows
