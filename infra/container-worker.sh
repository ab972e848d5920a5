#!/bin/sh
# What the worker's image runs: deploys prefect.yaml, then works. Compose starts it once both servers are healthy. It has no
# database's address and may have none: Prefect hands a worker's settings on to every flow.
set -eu
if env | grep -q '^\(PREFECT_SERVER_DATABASE\|PREFECT_API_DATABASE\|MLFLOW_BACKEND_STORE_URI\|PGPASSWORD\)'; then
    echo "error: a worker may not know a database" >&2
    exit 2
fi
# the watch's schedule sleeps while there is no source to watch
ROBUSTDISTILL_WATCHES=true
[ -n "${ROBUSTDISTILL_SOURCE:=}" ] || ROBUSTDISTILL_WATCHES=false
export ROBUSTDISTILL_SOURCE ROBUSTDISTILL_WATCHES
prefect --no-prompt work-pool create local --type process --overwrite
prefect --no-prompt deploy --all
exec prefect worker start --pool local --with-healthcheck
