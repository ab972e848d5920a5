#!/bin/sh
# What the worker's image runs: container-worker.sh [promoter]. Without a word it makes both pools, deploys prefect.yaml and
# works for `local`; with it, it works for `promoter`, whose flows may move the champion. Compose starts it once both servers
# are healthy. It has no database's address and may have none: Prefect hands a worker's settings on to every flow.
set -eu
if env | grep -q '^\(PREFECT_SERVER_DATABASE\|PREFECT_API_DATABASE\|MLFLOW_BACKEND_STORE_URI\|PGPASSWORD\)'; then
    echo "error: a worker may not know a database" >&2
    exit 2
fi
if [ "${1:-}" != promoter ]; then
    # the watch's schedule sleeps while there is no source to watch
    ROBUSTDISTILL_WATCHES=true
    [ -n "${ROBUSTDISTILL_SOURCE:=}" ] || ROBUSTDISTILL_WATCHES=false
    export ROBUSTDISTILL_SOURCE ROBUSTDISTILL_WATCHES
    for pool in local promoter; do
        prefect --no-prompt work-pool create $pool --type process --overwrite
    done
    prefect --no-prompt deploy --all
fi
exec prefect worker start --pool "${1:-local}" --with-healthcheck
