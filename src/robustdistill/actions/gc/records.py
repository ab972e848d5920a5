"""Old runs and candidates in MLflow, with their models.

A candidate goes first, then its model, then the runs: whatever is cut off leaves no version without its files, and what
is left is found again by the same rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from robustdistill.actions.gc import kept
from robustdistill.actions.gc.item import Item, Policy
from robustdistill.actions.intent import HELD
from robustdistill.actions.register import candidates
from robustdistill.actions.sizes import size
from robustdistill.errors import BadInput
from robustdistill.services.mlflow_address import VARIABLE, Address
from robustdistill.services.mlflow_bin import Bin, Model, Record, local
from robustdistill.services.mlflow_registry import Version
from robustdistill.services.mlflow_store import ENDED, Store
from robustdistill.workspace import Workspace

SUMMARY = "summary.json"  # in .work: a flow run came to an end here
ADMIN = "mlflow gc --backend-store-uri DATABASE --tracking-uri {place} --older-than 30d"


@dataclass(frozen=True)
class Found:
    """items: in the order in which they go. commits, flow_runs: of what stays; teachers: hashes that versions name."""

    items: list[Item]
    commits: list[str]
    flow_runs: set[str]
    models: set[str]
    teachers: set[str]
    notes: list[str]


def find(workspace: Workspace, policy: Policy, *, purge: bool) -> Found:
    """purge: what gc put into MLflow's bin goes for good. Raises BadInput where only an administrator can do that,
    ServiceFailed if MLflow is away: without it nobody knows what is needed."""
    address = Address.find(None, workspace.work)
    if address.database is not None and not address.database.exists():
        _require_same_registry(workspace, address, known=False)
        return Found([], [], set(), set(), set(), ["nothing has been recorded in MLflow yet"])
    stored = Bin(Store.open(None, workspace.work))
    admin = ADMIN.format(place=address.shown)
    if purge and not stored.can_empty:
        cause = "a client of MLflow's server cannot empty its bin"
        raise BadInput(cause, where="--purge", fix=f"its administrator can, where the database is: {admin}")
    experiment = stored.experiment(workspace.name)
    stays = kept.registered(workspace, stored)
    _require_same_registry(workspace, address, known=bool(stays.versions or (experiment and not _promoted(workspace))))
    found = kept.families(stored.runs(experiment)) if experiment else {}
    gone = kept.going(workspace, found, stays, policy.keep_runs, policy.before)
    ids = {run.id for flow_run in gone for run in found[flow_run]}
    active = {run.id for family in found.values() for run in family}
    leaving = _old_candidates(workspace, stored, stays.others, ids, active, policy)
    items = [_candidate(workspace, stored, version) for version in leaving]
    if experiment:
        items += _models(workspace, stored, experiment, leaving, ids, policy)
        items += [_family(stored, flow_run, found[flow_run]) for flow_run in found if flow_run in gone]
        items += _binned(workspace, stored, experiment, items) if purge else []
    left = [each for each in stays.others if each not in leaving]
    return Found(
        items,
        kept.commits(stored, stays, found, gone),
        {*found} - gone,
        {version.tags.get("robustdistill.sha256", "") for version in (*stays.all_kept, *left)},
        {version.tags.get("robustdistill.teacher_sha256", "") for version in (*stays.all_kept, *left)},
        _notes(stored, items, admin, purge=purge),
    )


def _promoted(workspace: Workspace) -> bool:
    return (workspace.work / HELD).exists()


def _require_same_registry(workspace: Workspace, address: Address, *, known: bool) -> None:
    """Where the records of this workspace are not at hand (another MLflow, an emptied one), nobody knows what is
    needed. known: the registry has what it ought to have. Raises BadInput."""
    if not known and (_promoted(workspace) or (workspace.work / SUMMARY).exists()):
        fix = f"is {VARIABLE} set as it is for the flows?"
        raise BadInput("this MLflow does not know the runs of this workspace", where=address.shown, fix=fix)


def _notes(stored: Bin, items: list[Item], admin: str, *, purge: bool) -> list[str]:
    if not items or purge:
        return []
    if stored.can_empty:
        return ["runs and models go into MLflow's bin, from where they can be brought back; --purge frees their room"]
    return [f"runs and models go into the bin of MLflow's server; its administrator frees their room: {admin}"]


def _old_candidates(
    workspace: Workspace, stored: Bin, others: list[Version], going: set[str], active: set[str], policy: Policy
) -> list[Version]:
    """Those whose runs go too, or are gone already."""
    if not others:
        return []
    made = stored.made(candidates(workspace.name))
    old = {number for number, at in made.items() if at < policy.before}
    listed = [each for each in others if each.number in old]
    return [each for each in listed if each.run in going or (each.run not in active and _is_gone(stored, each.run))]


def _is_gone(stored: Bin, run: str) -> bool:
    """A run of somebody else's, without our tags, is none that is gone."""
    return bool(run) and stored.lifecycle(run) != "active"


def _candidate(workspace: Workspace, stored: Bin, version: Version) -> Item:
    def remove() -> bool:
        """Asked again right before: somebody may promote it this moment."""
        if kept.needed(workspace, stored, version):
            return False
        stored.drop_version(version.name, version.number)
        return True

    return Item("candidates", f"{version.name} version {version.number}", remove)


def _models(
    workspace: Workspace, stored: Bin, experiment: str, leaving: list[Version], going: set[str], policy: Policy
) -> Iterator[Item]:
    """Models that no version serves: those of the candidates that go, and what an upload that failed has left."""
    versions = stored.store.registry.versions(candidates(workspace.name))
    served = {each.source for each in versions if each not in leaving} | _served(workspace, stored)
    for model in stored.models(experiment):
        if model.place not in served and model.made < policy.before and _free(stored, model, going):
            yield _model(stored, model)


def _served(workspace: Workspace, stored: Bin) -> set[str]:
    name = workspace.name
    return {stored.place(name, version.number) for version in stored.store.registry.versions(name)}


def _free(stored: Bin, model: Model, going: set[str]) -> bool:
    return model.run in going or _is_gone(stored, model.run)


def _model(stored: Bin, model: Model) -> Item:
    def remove() -> bool:
        if stored.serves(model.place):
            return False
        stored.drop_model(model.id)
        return True

    return Item("models", model.id, remove, _bytes(model.place))


def _family(stored: Bin, flow_run: str, family: kept.Family) -> Item:
    def remove() -> bool:
        """Neither taken up again meanwhile, nor of a version that has stayed."""
        ids = {run.id for run in family}
        if stored.named_by_version(ids) or any(stored.status(each) not in ENDED for each in ids):
            return False
        for run in family:
            stored.drop_run(run.id)
        return True

    return Item("runs", flow_run, remove, sum_known(family), len(family))


def sum_known(family: kept.Family) -> float | None:
    sizes = [_bytes(run.place) for run in family]
    return None if None in sizes else sum(each for each in sizes if each is not None)


def _bytes(place: str) -> float | None:
    folder = local(place)
    return size(folder) if folder is not None else None


def _binned(workspace: Workspace, stored: Bin, experiment: str, items: list[Item]) -> Iterator[Item]:
    """What an earlier gc put into the bin, and, when this one is through, what it puts there itself."""
    listed: list[Record | Model] = [*stored.runs(experiment, binned=True), *stored.binned_models(experiment)]
    weight = sum(_bytes(each.place) or 0.0 for each in listed)

    def remove() -> None:
        served = _served(workspace, stored)
        for model in stored.binned_models(experiment):
            if model.place not in served:
                stored.empty_model(model)
        for run in stored.runs(experiment, binned=True):
            stored.empty_run(run)

    if listed or any(item.kind in ("runs", "models") for item in items):
        yield Item(
            "emptied from the bin", f"{len(listed)} runs and models, and those above", remove, weight, len(listed)
        )
