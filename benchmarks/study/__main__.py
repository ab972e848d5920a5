"""The project's own evidence: which methods of distillation help, at equal cost, judged so that it can be believed.

    python -m benchmarks.study run --data fashion_mnist --stage screen --workers 2 --out FOLDER
    python -m benchmarks.study run --data fashion_mnist --stage confirm --workers 2 --out FOLDER
    python -m benchmarks.study table --data fashion_mnist --out FOLDER
    python -m benchmarks.study pack --data fashion_mnist --out FOLDER --records FILE.jsonl
    python -m benchmarks.study table --records FILE.jsonl

The screen trains every method once at each size and looks at validation images only; confirm trains the best four and
the controls with five fresh seeds and judges them on test images by AutoAttack. One JSON for each finished run in
FOLDER/runs; what is there is not done again, and a training that was killed goes on from its checkpoint. `pack` puts
all records into one file, from which the table can be made anew without the models; that of this project's own study is
benchmarks/study/fashion_mnist.jsonl.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import astuple
from pathlib import Path
from typing import Any

from benchmarks.study import packed, plan, table
from benchmarks.study.material import needed
from benchmarks.study.plan import METHODS, SIZES, TEACHERS, Run
from benchmarks.study.run import execute
from benchmarks.study.select import selected
from benchmarks.study.world import Settings, World

from robustdistill.engine.devices import apply
from robustdistill.errors import RobustDistillError

CHECKOUT = Path(__file__).parents[2]
POLL_SECONDS = 0.5


def arguments_of(given: list[str] | None = None) -> Any:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["run", "table", "pack", "one"], help="one: a single run, --run says which")
    parser.add_argument("--out", type=Path, help="folder of the study")
    parser.add_argument("--records", type=Path, help="file of packed records, for pack and table")
    parser.add_argument("--data", default="fashion_mnist", choices=["digits", "fashion_mnist"], help="recipe")
    parser.add_argument("--path", type=Path, default=None, help="where the raw data are, if not in the usual place")
    parser.add_argument("--stage", default="screen", choices=["screen", "confirm"])
    parser.add_argument("--workers", type=int, default=1, help="processes side by side, of one thread each")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(plan.CONFIRM_SEEDS), help="of the confirmation")
    parser.add_argument("--partial", action="store_true", help="confirm although the screen is not complete")
    parser.add_argument("--teacher", default="wide", choices=list(TEACHERS))
    parser.add_argument("--budget", type=float, default=1.0, help="scales the seconds of every training")
    parser.add_argument("--equal", default="seconds", choices=["seconds", "epochs"], help="what runs have in common")
    parser.add_argument("--val", type=int, default=2000, help="validation images of the screen")
    parser.add_argument("--n", type=int, default=1000, help="test images of the confirmation")
    parser.add_argument("--autoattack", default="standard", choices=["standard", "none"])
    parser.add_argument("--run", default=None, help=argparse.SUPPRESS)
    found = parser.parse_args(given)
    if found.out is None and not (found.command == "table" and found.records):
        parser.error("--out is needed, or for a table --records")
    if found.command == "pack" and found.records is None:
        parser.error("pack needs --records")
    return found


def world_of(arguments: Any) -> World:
    names = ("data", "teacher", "budget", "equal", "val", "n", "autoattack")
    settings = Settings(**{name: getattr(arguments, name) for name in names})
    return World(arguments.out.resolve(), settings, arguments.path).open()


def runs_of(arguments: Any, world: World) -> list[Run]:
    """In the order in which they are begun, where what they need is there."""
    first = plan.teachers(arguments.teacher)
    if arguments.stage == "screen":
        return [*first, *plan.screen(arguments.sizes, arguments.methods)]
    chosen = selected(world, arguments.sizes, arguments.methods, partial=arguments.partial)
    return [*first, *plan.confirm(arguments.teacher, chosen, arguments.seeds)]


def work(arguments: Any, given: list[str]) -> None:
    world = world_of(arguments)
    left = [run for run in runs_of(arguments, world) if world.read(run) is None]
    if arguments.workers > 1:
        _side_by_side(left, given, world, arguments.workers)
        return
    for run in left:
        _one(run, world)


def _one(run: Run, world: World) -> None:
    begun = time.monotonic()
    if execute(run, world):
        print(f"{table.line(world.read(run) or {})}  {time.monotonic() - begun:.0f} s in all", flush=True)


def _side_by_side(left: list[Run], given: list[str], world: World, workers: int) -> None:
    """Each run in a process of its own; one that dies does not stop the others."""
    waiting, busy = list(left), dict[Run, subprocess.Popen[bytes]]()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    while waiting or busy:
        busy = {run: process for run, process in busy.items() if process.poll() is None}
        # What is neither done nor under way nor to come (it died, or was not asked for) the run will do itself.
        ready = [run for run in waiting if not {*waiting, *busy}.intersection(needed(run, world))]
        for run in ready[: workers - len(busy)]:
            waiting.remove(run)
            words = ["/".join(map(str, astuple(run))), "--out", str(world.out), "--workers", "1"]
            command = [sys.executable, "-m", "benchmarks.study", "one", *given, "--run", *words]
            busy[run] = subprocess.Popen(command, cwd=CHECKOUT, env=environment)
        time.sleep(POLL_SECONDS)
    missing = [run.key for run in left if world.read(run) is None]
    if missing:
        print(f"not done: {', '.join(missing)}: start again to go on", file=sys.stderr)


def named(text: str) -> Run:
    role, size, method, seed, stage = text.split("/")
    return Run(role, size, method, int(seed), stage)  # type: ignore[arg-type]


def main(given: list[str] | None = None) -> None:
    given = sys.argv[1:] if given is None else given
    arguments = arguments_of(given)
    try:
        if arguments.command == "table" and arguments.records:
            print(table.text(packed.read(arguments.records)))
            return
        world = world_of(arguments)
        if arguments.command == "table":
            print(table.write(world))
            return
        if arguments.command == "pack":
            packed.write(world.records(), arguments.records)
            return
        apply(world.compute)
        if arguments.command == "one":
            _one(named(arguments.run), world)
        else:
            work(arguments, [word for word in given if word != "run"])
    except RobustDistillError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
