from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from robustdistill.data import files


def write(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "a").write_text(text)


def tree(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("exchange", [True, False], ids=["one step", "two renames"])
def test_a_folder_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    folder = tmp_path / "data"
    files.replace_folder(folder, lambda new: [(new / name).write_text("old") for name in ("a", "gone")])
    files.replace_folder(folder, write("new"))
    assert tree(folder) == ["a"] and (folder / "a").read_text() == "new"
    assert tree(tmp_path) == ["data"]


def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    files.replace_folder(folder, write("old"))

    def fail(new: Path) -> None:
        (new / "a").write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        files.replace_folder(folder, fail)
    assert (folder / "a").read_text() == "old" and tree(tmp_path) == ["data"]


def test_a_process_that_dies_leaves_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    files.replace_folder(folder, write("old"))
    script = (
        "import os, sys; from pathlib import Path; from robustdistill.data import files\n"
        "files.replace_folder(Path(sys.argv[1]), lambda new: ((new / 'a').write_text('half'), os._exit(9)))"
    )
    assert subprocess.run([sys.executable, "-c", script, str(folder)], check=False).returncode == 9
    assert (folder / "a").read_text() == "old"
    files.replace_folder(folder, write("new"))
    assert (folder / "a").read_text() == "new" and tree(tmp_path) == ["data"]


def test_a_crash_between_two_renames_is_mended_by_the_next_call(tmp_path: Path) -> None:
    (tmp_path / ".data.old").mkdir()
    (tmp_path / ".data.old" / "a").write_text("old")

    def fail(new: Path) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        files.replace_folder(tmp_path / "data", fail)
    assert (tmp_path / "data" / "a").read_text() == "old"


def test_arrays_and_json_are_byte_stable(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.int64).reshape(2, 3)
    contents = set()
    for variant in (array, np.asfortranarray(array), array.astype(">i8")):
        files.write_npy(tmp_path / "a.npy", variant)
        contents.add((tmp_path / "a.npy").read_bytes())
    assert len(contents) == 1
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array)
    files.write_json(tmp_path / "a.json", {"b": 1, "a": ["ä"]})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    "\\u00e4"\n  ],\n  "b": 1\n}\n'
    assert tree(tmp_path) == ["a.json", "a.npy"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, 1)
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, float("nan"))
    with pytest.raises(ValueError, match="Object arrays"):
        files.write_npy(path, np.array([{}]))
    assert path.read_text() == "1\n" and tree(tmp_path) == ["a.json"]


def test_a_full_disk_is_an_error_before_a_pixel_is_written(
    small_disk: Callable[[int], Path], fill: Callable[..., Path]
) -> None:
    """A sparse file would be taken here, and end the process (SIGBUS) when its pixels are written."""
    disk = small_disk(1)
    filler = fill(disk, leave=64 * 1024)
    for write in (
        lambda path: files.new_memmap(path, (100, 1, 64, 64)),
        lambda path: files.write_npy(path, np.zeros(2**17, np.uint8)),
        lambda path: files.write_json(path, "x" * 2**17),
    ):
        with pytest.raises(OSError, match="No space left") as caught:
            write(disk / "x.npy")
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(disk / "x.npy"))
        (disk / "x.npy").unlink(missing_ok=True)
        assert tree(disk) == ["filler"]
    filler.unlink()
    pixels = files.new_memmap(disk / "x.npy", (100, 1, 64, 64))
    pixels[:] = 7
    pixels.flush()
    assert np.load(disk / "x.npy").min() == 7
