"""The record of a flow run in MLflow, written by a thread of its own so that no stage ever waits for a server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from robustdistill.actions import owner
from robustdistill.actions.mirror import Ending, Mirror, Opening
from robustdistill.actions.run_facts import Samples, dataset, stage_params, standing_tags
from robustdistill.errors import RobustDistillError, ServiceFailed
from robustdistill.services.mlflow_address import configure_environment
from robustdistill.services.mlflow_store import Store

EVERY_SECONDS = 1.0
RETRY_SECONDS = 15.0
FINISH_SECONDS = 180.0


class Recorder:
    """One flow run. `start` and `finish` never raise for MLflow; what went wrong stands in `errors`."""

    def __init__(
        self,
        workspace_root: Path,
        *,
        run: str,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        description: str,
        work: Path,
        journal: Path,
        model_name: str,
    ) -> None:
        self.errors: list[str] = []
        self._root, self._run, self._work, self._model = workspace_root, run, work, model_name
        self._opening = Opening(
            name=name,
            model=model_name,
            tags={**tags, **standing_tags(), "mlflow.note.content": description, owner.TAG: owner.here()},
            params=dict(params),
            started=time.time(),
        )
        self._mirror = Mirror(work, journal)
        self._samples = Samples()
        self._opened: Store | None = None
        self._store: Store | None = None  # opened, and this run is in it
        self._failure: ServiceFailed | None = None
        self._attempts = 0
        self._changed, self._mirroring = threading.Condition(), threading.Lock()
        self._stop, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mlflow-mirror", daemon=True)

    def start(self) -> None:
        """Writes down that the run has begun, and opens MLflow in the background (seconds, on a fresh store)."""
        configure_environment()  # here and not in the thread: nobody else reads the environment yet
        self._opening.stage_params = stage_params(self._root)
        self._opening.dataset = dataset(self._root)
        self._mirror.announce(self._run, self._opening)
        self._thread.start()

    def store(self, timeout: float) -> Store:
        """The open store, once the run exists in it. Raises ServiceFailed after `timeout` seconds at most."""
        with self._changed:
            attempts = self._attempts
            self._wake.set()  # no need to sit out a pause
            self._changed.wait_for(lambda: self._store is not None or self._attempts > attempts, timeout)
            if self._store is None:
                raise self._failure or ServiceFailed(
                    f"MLflow did not open within {timeout:.0f} s", where=str(self._work)
                )
            return self._store

    @property
    def parent_id(self) -> str:
        """The id of this run in MLflow. Raises ServiceFailed before `store` has been reached."""
        found = self._mirror.parents.get(self._run)
        if found is None:
            raise ServiceFailed("this run is not recorded in MLflow yet", fix="reach the store first")
        return found

    def finish(
        self,
        status: str,
        *,
        artifacts: Mapping[str, Sequence[Path]],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
    ) -> bool:
        """Ends the run as FINISHED, FAILED or KILLED, with files (folder -> paths), metrics and tags.

        What MLflow does not take now is kept in the workspace and told by the next run's recorder. False if not even
        the workspace could take it.
        """
        if not self._thread.is_alive():
            return False
        kept = True
        with self._mirroring:
            try:
                self._opening.dataset = dataset(self._root)
                self._mirror.conclude(self._run, Ending(status, time.time(), dict(metrics), dict(tags)), artifacts)
            except OSError as error:
                kept = False
                self._note(ServiceFailed(f"the run's end was not written down: {error}", where=str(self._work)))
        self._stop.set()
        self._wake.set()
        self._thread.join(FINISH_SECONDS)
        if self._thread.is_alive():
            self._note(ServiceFailed(f"MLflow took longer than {FINISH_SECONDS:.0f} s; the next run tells it the rest"))
        return kept

    def _follow(self) -> None:
        while True:
            last = self._stop.is_set()
            self._samples.take()
            pause = EVERY_SECONDS
            try:
                self._send()
            except Exception as error:  # recording must never end a run, whatever MLflow or a plug-in of it raises
                self._note(error)
                pause = RETRY_SECONDS
            with self._changed:
                self._attempts += 1
                self._changed.notify_all()
            if last:
                return
            self._wake.wait(pause)
            self._wake.clear()

    def _send(self) -> None:
        self._opened = self._opened or Store.open(None, self._work)
        samples = self._samples.pending()
        with self._mirroring:
            self._mirror.send(self._opened, {self._run: samples})
        self._samples.sent(samples)
        self._store = self._opened

    def _note(self, error: Exception) -> None:
        known = isinstance(error, RobustDistillError)
        text = str(error) if known else f"unexpected {type(error).__name__} while recording: {error}"
        self._failure = error if isinstance(error, ServiceFailed) else ServiceFailed(text)
        if text not in self.errors:
            self.errors.append(text)


def reap(store: Store, model_name: str, alive: Callable[[str], bool] = owner.alive) -> list[str]:
    """Ends as KILLED the runs of this model that say RUNNING though their process is gone; returns their names.

    alive: takes the owner of a run as `owner.here` writes it.
    """
    gone = []
    for run in store.runs(store.experiment(model_name), status="RUNNING"):
        holder = run.tags.get(owner.TAG, "")
        if holder and holder != owner.here() and not alive(holder):
            store.status(run.id, "KILLED", ended=time.time())
            gone.append(run.name)
    return gone
