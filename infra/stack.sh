#!/bin/sh
# MLflow, Prefect and a worker on one machine, for one model's workspace, until Ctrl-C:
#   make stack WORKSPACE=/models/mine
# All listen on 127.0.0.1 only. Records lie in STACK_HOME; SQLite, so one worker. Ports: MLFLOW_PORT, PREFECT_PORT.
set -eu
cd "$(dirname "$0")/.."
if [ ! -f "${ROBUSTDISTILL_WORKSPACE:-}/params.yaml" ]; then
    echo "error: '${ROBUSTDISTILL_WORKSPACE:-}' is not a workspace" >&2
    echo "  fix:   make stack WORKSPACE=DIR, with a folder made by robustdistill init" >&2
    exit 2
fi
ROBUSTDISTILL_WORKSPACE=$(cd "$ROBUSTDISTILL_WORKSPACE" && pwd)
export ROBUSTDISTILL_WORKSPACE ROBUSTDISTILL_HOME="$PWD"
export STACK_HOME="${STACK_HOME:-$PWD/.work/stack}" MLFLOW_PORT="${MLFLOW_PORT:-5000}" PREFECT_PORT="${PREFECT_PORT:-4200}"
export MLFLOW_TRACKING_URI="http://127.0.0.1:$MLFLOW_PORT" PREFECT_API_URL="http://127.0.0.1:$PREFECT_PORT/api"
export PREFECT_HOME="$STACK_HOME/prefect" PREFECT_SERVER_ANALYTICS_ENABLED=false
export DO_NOT_TRACK=true MLFLOW_DISABLE_TELEMETRY=true DVC_NO_ANALYTICS=1 MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
mkdir -p "$STACK_HOME"
chmod 700 "$STACK_HOME"
echo "MLflow $MLFLOW_TRACKING_URI   Prefect ${PREFECT_API_URL%/api}   Ctrl-C stops all"
exec honcho start --procfile infra/Procfile --app-root "$PWD"
