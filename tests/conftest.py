"""Two workers share two cores: each test process computes with one thread, and so do the processes it starts. What is
trained is trained in float32, whatever were faster here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ROBUSTDISTILL_PRECISION", "float32")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """small_disk(megabytes) -> an empty file system of that size. Skips where this process may not mount one."""
    mounted: list[Path] = []

    def mount(megabytes: int) -> Path:
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("a full disk needs `mount`, which is not installed")
        if done.returncode != 0:
            pytest.skip(f"a full disk needs a file system of its own: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path, *, leave: int) -> Path:
    """Writes a file that leaves `leave` bytes of the file system free, to the block; returns it."""
    filler = disk / "filler"
    block = os.statvfs(disk).f_frsize
    with filler.open("wb") as stream:
        free = os.statvfs(disk).f_bavail * block - leave
        os.posix_fallocate(stream.fileno(), 0, max(free // block * block, block))
    return filler


@pytest.fixture(name="fill")
def _fill() -> Callable[..., Path]:
    return fill
