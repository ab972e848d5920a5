"""Any legal name of a file or class works: kept where DVC can keep it, else escaped, and never two as one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_layouts import noise, save_image, write_folders

from robustdistill.config import Data
from robustdistill.data import materialise, prepare
from robustdistill.data.names import LONGEST, PASSED_OVER, all_kept, kept, renamed
from robustdistill.errors import BadInput

DATA = Data(source="image_folder")
CAFE = os.fsdecode(b"caf\xe9")
LEGAL = st.binary(min_size=1, max_size=LONGEST).filter(lambda name: not set(b"/\0") & set(name)).map(os.fsdecode)


@pytest.mark.parametrize(
    ("name", "under"),
    [
        ("größer 猫\n'\"", "größer 猫\n'\""),
        ("-rf", "-rf"),
        ("x" * 255, "x" * 255),
        (CAFE, "caf\\xe9"),
        (f"{CAFE}\n.png", "caf\\xe9\\n.png"),
        (".dvc", "\\x2edvc"),
        (".git", "\\x2egit"),
        (".gitx", ".gitx"),
    ],
)
def test_a_name_is_kept_or_escaped(name: str, under: str) -> None:
    assert kept(name) == under


@given(st.lists(LEGAL, unique=True, max_size=6))
def test_kept_names_are_legal_distinct_and_final(names: list[str]) -> None:
    under = renamed(names)
    assert set(under) == set(names) and len(set(under.values())) == len(names)
    for new in under.values():
        assert 0 < len(new.encode("utf-8")) <= LONGEST and "/" not in new and kept(new) == new
        assert new not in PASSED_OVER
    assert renamed(reversed(names)) == under


def test_a_long_name_stays_distinct_and_keeps_its_suffix() -> None:
    one, two = (os.fsdecode(b"\xff" * 250 + end) for end in (b"1.png", b"2.png"))
    assert kept(one) != kept(two) and kept(one).endswith(".png") and kept(one).startswith("\\xff")


def awkward(root: Path) -> Path:
    """Two classes, both with names that DVC cannot keep, and files of every sort of name."""
    write_folders(root, (CAFE, ".git"), n=120)
    names = [b"\xff.png", b"\\xff.png", b"a\nb", "😀 'q\" ".encode(), b"-rf", b".dvc", b".dvcignore", b"\xff" * 255]
    for name in map(os.fsdecode, names):
        save_image(root / "plain.png", noise(name))
        (root / "plain.png").rename(root / CAFE / name)
    return root


def test_names_change_nothing_but_the_names_of_classes(tmp_path: Path) -> None:
    raw = awkward(tmp_path / "raw")
    direct = prepare(raw, tmp_path / "direct", DATA)
    assert direct.classes == ["\\x2egit", "caf\\xe9"]
    materialise("image_folder", tmp_path / "data", path=raw)
    assert all_kept(tmp_path / "data") and not all_kept(raw)
    assert {path.name for path in (tmp_path / "data" / "caf\\xe9").iterdir()} >= {"\\xff.png", "a\nb", "\\x2edvc"}
    assert prepare(tmp_path / "data", tmp_path / "copied", DATA) == direct
    for path in (tmp_path / "direct").iterdir():
        assert path.read_bytes() == (tmp_path / "copied" / path.name).read_bytes()
    plain = tmp_path / "plain"
    for label, folder in enumerate(sorted(raw.iterdir())):
        for i, path in enumerate(sorted(folder.iterdir(), reverse=True)):
            target = plain / direct.classes[label] / f"{i}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    assert prepare(plain, tmp_path / "renamed", DATA).data_digest == direct.data_digest


@pytest.mark.parametrize("parts", [("", ""), ("train", "train"), ("train", "test")])
def test_two_class_folders_that_would_become_one_class_are_refused(tmp_path: Path, parts: tuple[str, str]) -> None:
    write_folders(tmp_path / "raw" / parts[0], ("dog", CAFE), n=3)
    write_folders(tmp_path / "raw" / parts[1], ("caf\\xe9",), n=3)
    with pytest.raises(BadInput, match=r"both written 'caf\\\\xe9'") as caught:
        prepare(tmp_path / "raw", tmp_path / "out", DATA)
    assert "caf\\xe9" in caught.value.where and caught.value.fix
