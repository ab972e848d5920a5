"""The single training loop, whatever the objective: schedules, averaging, alarms, exact checkpoints."""

from robustdistill.training.job import Job, Result
from robustdistill.training.loop import fit, forget
from robustdistill.training.validation import measured

__all__ = ["Job", "Result", "fit", "forget", "measured"]
