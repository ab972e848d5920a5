"""What cannot be judged by `robustdistill judge`: each is a sentence and exit code 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judge_any import images

Judge = Callable[..., tuple[int, str, str]]
X, Y = images()


def _labelled(**arrays: Any) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **{"images": X, "labels": Y, **arrays})


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nothere:load", "there is no module nothere"),
        ("own:missing", "module own has no missing"),
        ("own:number", "own:number is no function"),
        ("own:returns_dict", "returns dict, not a torch.nn.Module"),
        ("own:raises", "IndexError"),
        ("own:wrong_size", "the model failed on inputs [8, 1, 8, 8]"),
        ("own:flat", "with shape [32]"),
        ("own:one", "one output"),
        ("own:text", "returns str"),
        ("own:as_numpy", "returns ndarray"),
        ("own:three", "3 classes apart, the data have 4"),
        ("own;rm", "nothing that can be judged"),
        ("own:load()", "names no function"),
        ("nothere.onnx", "no such file"),
        ("nothere.safetensors", "no such file"),
        (".", "export"),
        ("digits@champion", "registry"),
        ("models:/digits/3", "registry"),
    ],
)
def test_a_target_that_is_none_is_a_sentence(judge: Judge, target: str, said: str) -> None:
    code, out, err = judge(target, "--quick")
    assert code == 2 and out == "" and said in err and "Traceback" not in err
    assert not Path("judged").exists()


@pytest.mark.parametrize("target", ["own:wrong_size", "own:flat", "own:text", "own:three"])
def test_a_target_that_does_not_fit_is_named_and_no_file_of_torch(judge: Judge, target: str) -> None:
    _, _, err = judge(target, "--quick")
    assert f"where: {target}" in err and "site-packages" not in err and "fix:" in err


def test_a_shape_that_a_factory_does_not_take_is_told(judge: Judge) -> None:
    _, _, err = judge("own:wrong_size", "--quick")
    assert "inputs [8, 1, 8, 8]" in err and "8x64" in err and "size and channels it was made for" in err


def test_an_error_in_own_code_names_its_line_and_the_traceback_is_for_debug(judge: Judge, here: Path) -> None:
    line = next(n for n, text in enumerate((here / "own.py").read_text().splitlines(), 1) if "zeros(3)[5]" in text)
    _, _, err = judge("own:raises")
    assert f"own.py, line {line}" in err
    assert "Traceback" in judge("own:raises", "--debug")[2]
    for text, cause in (
        ("import nowhere_at_all\n", "nowhere_at_all"),
        ("def f(:\n", "SyntaxError"),
        ("1/0\n", "ZeroDiv"),
    ):
        (here / f"bad_{len(text)}.py").write_text(text)
        code, _, err = judge(f"bad_{len(text)}:load")
        assert code == 2 and cause in err and f"where: {here}/bad_{len(text)}.py, line 1" in err


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (_labelled(images=np.array([{}] * 40, dtype=object)), "object"),
        (_labelled(labels=Y[:39]), "40 images but 39 labels"),
        (_labelled(images=X * 300), "example 0 has values from"),
        (_labelled(images=np.where(X > 0.79, np.nan, X)), "example 39"),
        (_labelled(images=X.astype(bool)), "type bool"),
        (_labelled(labels=Y + 0.5), "not a whole number"),
        (_labelled(labels=Y - 1), "negative"),
        (_labelled(labels=Y + 1), "4 classes apart, the data have 5"),
        (_labelled(labels=Y[:, None]), "labels of shape"),
        (_labelled(images=X.reshape(40, -1)), "images of shape"),
        (_labelled(more=Y), "unexpected array 'more'"),
        (_labelled(images=X[:0], labels=Y[:0]), "no examples"),
        (lambda path: np.savez(path, images=X), "labels is missing"),
        (lambda path: path.write_bytes(b"PK\x03\x04"), "not a readable .npz"),
    ],
)
def test_data_that_cannot_be_judged_are_a_sentence(judge: Judge, write: Callable[[Path], None], said: str) -> None:
    write(Path("bad.npz"))
    code, out, err = judge("own:load", "--quick", data="bad.npz")
    assert code == 2 and out == "" and said in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("threat", "said"),
    [
        ("linf", "write NORM:EPS"),
        ("linff:0.1", "did you mean 'linf'?"),
        ("linf:8/0", "divides by 0"),
        ("linf:-1", "not positive"),
        ("linf:8", "larger than the whole range"),
        ("l2:", "not a number"),
    ],
)
def test_a_threat_with_a_slip_is_a_sentence(judge: Judge, threat: str, said: str) -> None:
    code, _, err = judge("own:load", threat=threat)
    assert code == 2 and said in err and "--threat" in err


@pytest.mark.parametrize(("left_out", "said"), [("data", "--data"), ("threat", "--threat")])
def test_without_a_workspace_data_and_threat_are_needed(judge: Judge, left_out: str, said: str) -> None:
    code, _, err = judge("own:load", **{left_out: None})  # type: ignore[arg-type]
    assert code == 2 and f"{said} must be given" in err


def test_a_device_that_is_not_here_names_the_option(judge: Judge) -> None:
    code, _, err = judge("own:load", "--device", "nonsense")
    assert code == 2 and "where: --device" in err and "fix:" in err


@pytest.mark.parametrize(
    ("other", "said"), [("own:three", "3 classes"), ("own:missing", "no missing"), (".", "export")]
)
def test_a_surrogate_that_does_not_fit_is_a_sentence(judge: Judge, other: str, said: str) -> None:
    code, _, err = judge("own:load", "--quick", "--surrogate", other)
    assert code == 2 and said in err and "Traceback" not in err
