"""What all runs of a study share: settings, data, threat, folders, the teacher."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.study.plan import NATURAL_RUN, TEACHERS, Run, teachers

from robustdistill import data, recipes
from robustdistill.config import Params, Spec
from robustdistill.data.files import write_json
from robustdistill.data.prepared import Prepared
from robustdistill.engine.devices import Compute
from robustdistill.errors import BadInput
from robustdistill.models import Classifier, ModelSpec, weights
from robustdistill.models.ensemble import average
from robustdistill.threat import ThreatModel


@dataclass(frozen=True)
class Settings:
    """What must not change within a study. budget: scales all seconds. equal: what runs of a size have in common.
    val, n: images of the validation screen and of the test."""

    data: str
    teacher: str
    budget: float
    equal: str
    val: int
    n: int
    autoattack: str


@dataclass(frozen=True)
class World:
    """out: folder of the study. path: where the raw data are, if not in the usual place."""

    out: Path
    settings: Settings
    path: Path | None = None

    def open(self) -> World:
        """Settings kept or compared, data prepared. Raises BadInput for a folder of another study."""
        self.out.mkdir(parents=True, exist_ok=True)
        file = self.out / "settings.json"
        if file.is_file() and json.loads(file.read_text(encoding="utf-8")) != asdict(self.settings):
            raise BadInput("the folder is of a study with other settings", where=str(file), fix="give another --out")
        write_json(file, asdict(self.settings))
        if not (self.out / "prepared" / "manifest.json").is_file():
            data.materialise(self.params.data.source, self.out / "raw", path=self.path)
            data.prepare(self.out / "raw", self.out / "prepared", self.params.data)
        return self

    @cached_property
    def params(self) -> Params:
        return recipes.load(self.settings.data).params

    @cached_property
    def prepared(self) -> Prepared:
        return Prepared.open(self.out / "prepared")

    @property
    def threat(self) -> ThreatModel:
        return self.params.threat.model(self.prepared.manifest.low, self.prepared.manifest.high)

    @property
    def compute(self) -> Compute:
        return Compute("cpu", 1)

    def model_spec(self, model: Spec) -> ModelSpec:
        made = self.prepared.manifest
        return ModelSpec(dict(model), made.shape, len(made.classes), made.low, made.high, made.mean, made.std)

    def record(self, run: Run) -> Path:
        return self.out / "runs" / f"{run.key}.json"

    def home(self, run: Run) -> Path:
        return self.out / "models" / run.key

    def scratch(self, run: Run) -> Path:
        return self.out / "scratch" / run.key

    def read(self, run: Run) -> dict[str, Any] | None:
        """The record of a finished run."""
        try:
            found: dict[str, Any] = json.loads(self.record(run).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return found

    def records(self) -> list[dict[str, Any]]:
        files = sorted((self.out / "runs").glob("*.json"))
        return [json.loads(file.read_text(encoding="utf-8")) for file in files]

    def members(self) -> list[Run]:
        return [run for run in teachers(self.settings.teacher) if run.role == "member"]

    def teacher(self) -> Classifier:
        """The one teacher: its member, or the average of its members."""
        homes = [self.home(run) for run in self.members()]
        found = [(weights.load(home), weights.digest(home / "model.safetensors")) for home in homes]
        return found[0][0] if len(found) == 1 else average(found)

    def teacher_seconds(self) -> float:
        """CPU seconds that the teacher's own training took, all members together."""
        return sum(found["spent"]["seconds"] for run in self.members() if (found := self.read(run)))

    def natural(self) -> Classifier:
        """The undefended teacher, for methods that ask for two."""
        return weights.load(self.home(NATURAL_RUN))

    def architecture(self, run: Run) -> Spec:
        if run.role == "member":
            return TEACHERS[run.size][0][run.seed]
        return {"name": "small_cnn", "size": run.size}

    @contextmanager
    def locked(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Nobody else holds this name meanwhile; False if somebody does. wait: until they let go."""
        file = self.out / "scratch" / f"{name}.lock"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True


def fingerprint(runs: Sequence[Path]) -> str:
    """A hash of the members' weights: what names the teacher in a record."""
    return hashlib.sha256("".join(weights.digest(home / "model.safetensors") for home in runs).encode()).hexdigest()
