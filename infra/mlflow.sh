#!/bin/sh
# MLflow's server. Started by infra/Procfile. Its database and its bucket are known to this process alone.
set -eu
if [ "$STACK" = sqlite ]; then
    export MLFLOW_BACKEND_STORE_URI="sqlite:///$STACK_HOME/mlflow.db"
    artifacts=$STACK_HOME/mlartifacts
else
    eval "$(infra/postgres.sh env mlflow)"
    eval "$(infra/s3.sh env mlflow)"
    artifacts=s3://mlflow/artifacts
    # S3 that is away is said in seconds; the flow tries again by itself
    export AWS_RETRY_MODE=standard AWS_MAX_ATTEMPTS=2
fi
exec mlflow server --host 127.0.0.1 --port "$MLFLOW_PORT" --workers 1 --artifacts-destination "$artifacts"
