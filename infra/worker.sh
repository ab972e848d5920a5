#!/bin/sh
# A worker with the rights of a role, once both servers answer and its user may read the model: infra/worker.sh ROLE
#   trainer    pool `local`: deploys prefect.yaml, trains, judges, registers candidates, and cannot move the champion
#   promoter   pool `promoter`: judges anew what waits, and moves the champion; writes the records
# Started by infra/Procfile. It has a role's credentials and no database's: Prefect hands a worker's settings on to every flow.
set -eu
role=$1
found=$(infra/mlflow.sh env "$role") # not within eval, which would hide that it failed
eval "$found"
found=$(infra/prefect.sh env)
eval "$found"
if [ "$STACK" = server ]; then
    found=$(infra/s3.sh env "$role")
    eval "$found"
    [ "$role" != promoter ] || export ROBUSTDISTILL_RECORDS="${ROBUSTDISTILL_RECORDS:-s3://records}"
fi
python infra/wait.py "$MLFLOW_TRACKING_URI/health" "$PREFECT_API_URL/health" \
    "$MLFLOW_TRACKING_URI/api/2.0/mlflow/registered-models/get?name=$ROBUSTDISTILL_MODEL"
case $role in
trainer)
    sh infra/deploy.sh
    exec prefect worker start --pool local
    ;;
promoter)
    python infra/wait.py "$PREFECT_API_URL/work_pools/promoter"
    exec prefect worker start --pool promoter
    ;;
esac
