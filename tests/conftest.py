"""Two workers share two cores: each test process computes with one thread, and so do the processes it starts."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
