"""A version that is asked for and is not there: what there is instead, and which command leads to one."""

from __future__ import annotations

from robustdistill.actions.intent import CHAMPION
from robustdistill.actions.register import candidates, same
from robustdistill.errors import BadInput
from robustdistill.services.mlflow_registry import NAMED, Registry
from robustdistill.workspace import workspace_option


def absent(registry: Registry, name: str, asked: str) -> BadInput:
    """The error for a version or alias `asked` that NAME does not have."""
    numbers, rivals = _numbers(registry, name), _numbers(registry, candidates(name))
    where = f"{name} in {registry.address.shown}"
    if asked == CHAMPION:
        return BadInput(f"{name} has no champion", where=where, fix=_ways(registry, numbers, rivals))
    if not numbers:
        fix = f"name a candidate: {candidates(name)}/{rivals[0]}" if rivals else registry.instead()
        return BadInput(f"nothing is registered as {name}", where=where, fix=fix)
    there = ", ".join([*_listed(numbers), *sorted(registry.aliases(name))])
    return BadInput(f"{name} has no version or alias {asked!r}", where=where, fix=f"name one that it has: {there}")


def no_way_back(registry: Registry, name: str) -> BadInput:
    """The error for a rollback from the first champion of NAME, or from none at all."""
    champion = registry.aliases(name).get(CHAMPION)
    if champion is None:
        return absent(registry, name, CHAMPION)
    others = [number for number in _numbers(registry, name) if number != champion]
    tags = registry.version(name, champion).tags  # to promote the champion again leads nowhere
    rivals = [item.number for item in registry.versions(candidates(name)) if not same(item.tags, tags)]
    fix = _ways(registry, others, rivals)
    cause = f"{name} has no earlier champion: version {champion} " + (
        "is the first that stands" if others else "is all"
    )
    return BadInput(cause, where=f"{name} in {registry.address.shown}", fix=fix)


def already(registry: Registry, name: str, number: int) -> BadInput:
    """The error for a rollback to the champion itself."""
    others = [other for other in _numbers(registry, name) if other != number]
    fix = f"nothing is to be done, or name another: {', '.join(_listed(others))}" if others else "nothing is to be done"
    cause = f"{name} version {number} is the champion already"
    return BadInput(cause, where=f"{name} in {registry.address.shown}", fix=fix)


def _ways(registry: Registry, versions: list[int], rivals: list[int]) -> str:
    """The commands that make a champion of what there is, and the one that always can."""
    ways, command = [], f"robustdistill{workspace_option(registry.workspace)}"
    if versions:
        ways.append(f"{command} rollback --to N --why WHY, N: {', '.join(_listed(versions))}")
    if rivals:
        ways.append(f"{command} promote N --why WHY if it passes the gate, N: {', '.join(_listed(rivals))}")
    return "; or ".join([*ways, f"{registry.flow} trains, judges and promotes one that passes the gate"])


def _numbers(registry: Registry, name: str) -> list[int]:
    return [version.number for version in registry.versions(name)]


def _listed(numbers: list[int]) -> list[str]:
    return [*map(str, numbers[:NAMED]), *["…"][: len(numbers) > NAMED]]
