#!/bin/sh
# What compose runs once before the servers: databases and their tables, buckets and their policies. May be run again.
set -eu
python infra/rights/databases.py
mlflow=postgresql+psycopg2://mlflow@$PGHOST
PGUSER=mlflow PGPASSWORD=$MLFLOW_DB_PASSWORD mlflow db upgrade "$mlflow/mlflow"
PGUSER=mlflow PGPASSWORD=$MLFLOW_DB_PASSWORD python -m mlflow.server.auth db upgrade --url "$mlflow/mlflow_auth"
PGUSER=prefect PGPASSWORD=$PREFECT_DB_PASSWORD \
    PREFECT_SERVER_DATABASE_CONNECTION_URL=postgresql+asyncpg://prefect@$PGHOST/prefect prefect server database upgrade -y
python infra/rights/buckets.py
