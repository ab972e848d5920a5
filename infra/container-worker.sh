#!/bin/sh
# What the worker's image runs: container-worker.sh [promoter]. Without a word it makes both pools, deploys prefect.yaml and
# works for `local`; with it, it works for `promoter`, whose flows may move the champion. Compose starts it once both servers
# are healthy. It has no database's address and may have none: Prefect hands a worker's settings on to every flow.
set -eu
if env | grep -q '^\(PREFECT_SERVER_DATABASE\|PREFECT_API_DATABASE\|MLFLOW_BACKEND_STORE_URI\|PGPASSWORD\)'; then
    echo "error: a worker may not know a database" >&2
    exit 2
fi
[ "${1:-}" = promoter ] || sh infra/deploy.sh
exec prefect worker start --pool "${1:-local}" --with-healthcheck
