"""What a run comes to that ends before there is a student to decide on, though nothing is wrong with it."""

from __future__ import annotations

from robustdistill.actions.session import Session
from robustdistill.actions.summary import Summary
from robustdistill.errors import OutOfTime, Superseded


def out_of_time(current: Session, minutes: float, error: OutOfTime) -> Summary:
    """The time budget was spent: nothing is registered or committed, and what was done is kept in the workspace."""
    current.withheld = dict.fromkeys(current.due, "out of time")
    sentence = f"the budget of {minutes:g} minutes was spent: {error.cause}; nothing was registered, no champion moved"
    root = str(current.workspace.root)
    return Summary(root, "out of time", sentence, stages=current.stage_rows(), pointers=[("next", error.fix)])


def superseded(current: Session, error: Superseded) -> Summary:
    """The data the run was asked for are not those of the workspace any more: whoever brought these asked for a run."""
    pointers = [("next", error.fix)]
    return Summary(str(current.workspace.root), "superseded", error.cause, pointers=pointers)
