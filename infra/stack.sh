#!/bin/sh
# MLflow, Prefect and a worker on one machine, for one model's workspace, until Ctrl-C:
#   make stack WORKSPACE=/models/mine                  records in PostgreSQL, artifacts in S3 (infra/postgres.sh, infra/s3.sh)
#   make stack WORKSPACE=/models/mine STACK=sqlite     records and artifacts in files
# All listen on 127.0.0.1 only, ask for a password (infra/mlflow.sh env ROLE, infra/prefect.sh env), and keep what they keep
# in STACK_HOME. Ports: MLFLOW_PORT, PREFECT_PORT, POSTGRES_PORT, S3_PORT.
set -eu
cd "$(dirname "$0")/.."
me=stack
# shellcheck source=infra/lib.sh
. infra/lib.sh
if [ ! -f "${ROBUSTDISTILL_WORKSPACE:-}/params.yaml" ]; then
    stop_with 2 "'${ROBUSTDISTILL_WORKSPACE:-}' is not a workspace" \
        "make stack WORKSPACE=DIR, with a folder made by robustdistill init"
fi
export STACK="${STACK:-server}"
case $STACK in
server | sqlite) ;;
*) stop_with 2 "STACK=$STACK is no form of it" "STACK=server (PostgreSQL and S3) or STACK=sqlite" ;;
esac
ROBUSTDISTILL_WORKSPACE=$(cd "$ROBUSTDISTILL_WORKSPACE" && pwd)
export ROBUSTDISTILL_WORKSPACE ROBUSTDISTILL_HOME="$PWD"
export STACK_HOME="${STACK_HOME:-$PWD/.work/stack}" MLFLOW_PORT="${MLFLOW_PORT:-5000}" PREFECT_PORT="${PREFECT_PORT:-4200}"
export MLFLOW_TRACKING_URI="http://127.0.0.1:$MLFLOW_PORT" PREFECT_API_URL="http://127.0.0.1:$PREFECT_PORT/api"
export PREFECT_HOME="$STACK_HOME/prefect" PREFECT_SERVER_ANALYTICS_ENABLED=false
export DO_NOT_TRACK=true MLFLOW_DISABLE_TELEMETRY=true DVC_NO_ANALYTICS=1 MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
unset MLFLOW_TRACKING_USERNAME MLFLOW_TRACKING_PASSWORD PREFECT_API_AUTH_STRING PREFECT_SERVER_API_AUTH_STRING
unset MLFLOW_BACKEND_STORE_URI PREFECT_SERVER_DATABASE_CONNECTION_URL PREFECT_API_DATABASE_CONNECTION_URL PGPASSWORD
mkdir -p "$STACK_HOME/prefect"
chmod 711 "$STACK_HOME" # PostgreSQL's own user passes through; what lies in it is closed to others
umask 077
chmod 700 "$STACK_HOME/prefect"
infra/mlflow.sh secrets # before the processes that read them, which start at once
infra/prefect.sh secrets
name_of='import sys; from pathlib import Path; from robustdistill.workspace import Workspace
print(Workspace.find(Path(sys.argv[1])).name)'
ROBUSTDISTILL_MODEL=$(python -c "$name_of" "$ROBUSTDISTILL_WORKSPACE") ||
    stop_with 2 "the model has no name" "mend params.yaml"
export ROBUSTDISTILL_MODEL

started=""
begin() { # a service; one that runs already is only completed (users, databases) and goes on afterwards, too
    "infra/$1.sh" status >/dev/null 2>&1 || started="$1 $started"
    "infra/$1.sh" start || {
        code=$?
        echo "         or STACK=sqlite, which needs neither PostgreSQL nor S3" >&2
        exit $code
    }
}
servers=""
end() {
    [ -z "$servers" ] || kill -TERM "$servers" 2>/dev/null || true
    while [ -n "$servers" ] && kill -0 "$servers" 2>/dev/null; do wait "$servers" || true; done
    for service in $started; do "infra/$service.sh" stop || true; done
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
python -c 'import flask_wtf' 2>/dev/null || stop_with 2 "MLflow cannot ask for passwords: flask_wtf is missing" \
    "uv pip install --require-hashes -r requirements/server.txt, as make stack does"
if [ "$STACK" = server ]; then
    python -c 'import psycopg2' 2>/dev/null || stop_with 2 "MLflow cannot speak to PostgreSQL: psycopg2 is missing" \
        "uv pip install --require-hashes -r requirements/server.txt, as make stack does, or STACK=sqlite"
    unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_PROFILE # each process gets its own
    begin postgres
    begin s3
fi
echo "MLflow $MLFLOW_TRACKING_URI   Prefect ${PREFECT_API_URL%/api}   Ctrl-C stops all"
echo "as a client: eval \"\$(infra/mlflow.sh env promoter)\"; eval \"\$(infra/prefect.sh env)\""
honcho start --procfile infra/Procfile --app-root "$PWD" &
servers=$!
wait "$servers"
