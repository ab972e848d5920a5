"""The promoter's half of the hand-over: what a flow without the right to move the champion left as `waiting`.

The alias says what waits, not the event: that only wakes this up, so one that was lost or came twice does no harm. The
candidate is judged anew, because its tags and files are within a trainer's reach.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from robustdistill.actions import by_hand, champion, decide, promote
from robustdistill.actions.intent import WAITING, settle
from robustdistill.actions.register import SHA, candidates
from robustdistill.actions.summary import Summary

if TYPE_CHECKING:
    from robustdistill.actions.session import Session
    from robustdistill.gate.verdict import Verdict
    from robustdistill.workspace import Workspace

ANSWER = "robustdistill.answer"  # on a candidate that waited: what became of it
POLL_SECONDS = 2.0


def wait_until_free(workspace: Workspace, minutes: float) -> None:
    """Until no other run holds the workspace, for so long at most: the run that hands over may not have ended yet."""
    deadline = time.monotonic() + 60 * minutes
    while workspace.holder() is not None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def take_over(current: Session, *, by: str, why: str) -> Summary:
    """Judges the candidate that waits, and promotes it, refuses it, or leaves it to a person as policy.yaml says."""
    mended = decide.reconciled(current)
    name, store = current.workspace.name, current.store
    number = store.registry.aliases(candidates(name)).get(WAITING)
    if number is None:
        said = f"; {'; '.join(mended)}" if mended else ""
        sentence = f"nothing waits for the promoter; {champion.stays(store, name)}{said}"
        return Summary(str(current.workspace.root), "unchanged", sentence)
    summary = _decided(current, number, by, why)
    told = {"outcome": summary.outcome, "sentence": summary.sentence, "by": by, "run": current.run}
    store.registry.tag(candidates(name), number, {ANSWER: json.dumps(told, sort_keys=True)})
    if summary.outcome != "challenger":
        settle(store.registry, name, number)
    elif store.registry.aliases(candidates(name)).get(WAITING) == number:
        store.registry.point(candidates(name), WAITING, None)
    return summary


def _decided(current: Session, number: int, by: str, why: str) -> Summary:
    name, store, root = current.workspace.name, current.store, str(current.workspace.root)
    here = f"{candidates(name)} version {number}"
    gone = champion.withdrawn(store, name, store.registry.version(candidates(name), number).tags.get(SHA, ""))
    if gone is not None:
        back = f"{here} is version {gone}, which a rollback withdrew; robustdistill promote {number} brings it back"
        return Summary(root, "unchanged", f"{champion.stays(store, name)}: {back}", registry=[here])
    result = by_hand.judge_candidate(current, number)
    asked = _asks_a_person(current, result)
    if asked:
        promote.challenger(store, name, number)
        waits = f"{here} passed and waits as `challenger` ({asked}): robustdistill promote {number}"
        waits += f"; until then {champion.stays(store, name)}"
        return Summary(root, "challenger", waits, verdict=result.to_json(), registry=[here])
    return by_hand.promote_candidate(current, number, result, by=by, why=why)


def _asks_a_person(current: Session, result: Verdict) -> str:
    """Why what passed is not promoted without a person; "" if it is, or if it did not pass."""
    if result.verdict == "challenger":
        return "promote: person"
    if result.verdict != "pass":
        return ""
    if current.workspace.policy().gain == "block":
        return "gain: block, and a candidate comes without its control"
    return current.incomparable
