"""The workspaces and commands of the flows' tests, for tests of what they run on."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "flows"))
