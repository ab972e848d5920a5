#!/bin/sh
# Waits for both servers, deploys prefect.yaml, and works. Started by infra/Procfile. It has the keys of the bucket for
# data and results, and no database's: Prefect hands a worker's settings on to every flow.
set -eu
[ "$STACK" = sqlite ] || eval "$(infra/s3.sh env robustdistill)"
python - "$MLFLOW_TRACKING_URI/health" "$PREFECT_API_URL/health" <<'PYTHON'
import sys, time, urllib.request

for address in sys.argv[1:]:
    for attempt in range(240):
        try:
            urllib.request.urlopen(address, timeout=2).close()
            break
        except OSError:
            time.sleep(0.5)
    else:
        sys.exit(f"no answer from {address}")
PYTHON

# what prefect.yaml asks; the watch's schedule sleeps while there is no source to watch
[ -n "${ROBUSTDISTILL_MODEL:-}" ] || ROBUSTDISTILL_MODEL=$(python -c '
import sys; from pathlib import Path; from robustdistill.workspace import Workspace
print(Workspace.find(Path(sys.argv[1])).name)' "$ROBUSTDISTILL_WORKSPACE")
ROBUSTDISTILL_WATCHES=true
[ -n "${ROBUSTDISTILL_SOURCE:=}" ] || ROBUSTDISTILL_WATCHES=false
export ROBUSTDISTILL_MODEL ROBUSTDISTILL_SOURCE ROBUSTDISTILL_WATCHES
prefect --no-prompt work-pool create local --type process --overwrite
prefect --no-prompt deploy --all
exec prefect worker start --pool local
