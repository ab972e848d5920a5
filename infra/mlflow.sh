#!/bin/sh
# MLflow's server with basic auth, and its users:
#   infra/mlflow.sh serve | secrets | grant MODEL | env ROLE
# `env ROLE` prints what admin, trainer, promoter or reader exports. `serve` is started by infra/Procfile: its databases and
# its bucket are known to it alone, and once it answers each role is granted what infra/rights/mlflow_rights.py says.
# Passwords are made at the first start and lie in STACK_HOME/mlflow/secrets (0700). A role's is changed by removing its file
# and starting again; the admin's is MLflow's own from the first start on, and is changed there, then in its file.
# Settings: STACK_HOME, MLFLOW_PORT, PUBLIC_HOSTS and PUBLIC_ORIGINS (a proxy's names and origins, comma-separated).
set -eu
umask 077
me=mlflow
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=infra/lib.sh
. "$here/lib.sh"
stack=${STACK_HOME:-$here/../.work/stack}
home=$stack/mlflow
port=${MLFLOW_PORT:-5000}
secrets=$home/secrets

secrets() { keep_secret "$secrets/admin" "$secrets/trainer" "$secrets/promoter" "$secrets/reader" "$secrets/forms"; }

environment() {
    named "$1" "admin trainer promoter reader"
    [ -s "$secrets/$1" ] || stop_with 2 "there is no password of $1 yet" "make stack, which makes it"
    echo "export MLFLOW_TRACKING_URI=http://127.0.0.1:$port"
    echo "export MLFLOW_TRACKING_USERNAME=$1 MLFLOW_TRACKING_PASSWORD=$(cat "$secrets/$1")"
}

settings() { # address of the database of users, without a password
    grep -v '^database_uri' "$here/rights/mlflow_auth.ini" >"$home/auth.ini"
    echo "database_uri = $1" >>"$home/auth.ini"
}

grant() { # the registered model
    [ -n "$1" ] || stop_with 2 "which model?" "$0 grant MODEL"
    found=$(environment admin) # not within eval, which would hide that it failed
    eval "$found"
    TRAINER_PASSWORD=$(cat "$secrets/trainer") PROMOTER_PASSWORD=$(cat "$secrets/promoter")
    READER_PASSWORD=$(cat "$secrets/reader")
    export TRAINER_PASSWORD PROMOTER_PASSWORD READER_PASSWORD
    python "$here/wait.py" "$MLFLOW_TRACKING_URI/health"
    python "$here/rights/mlflow_rights.py" "$1"
}

serve() {
    secrets
    if [ "$STACK" = sqlite ]; then
        export MLFLOW_BACKEND_STORE_URI="sqlite:///$stack/mlflow.db"
        settings "sqlite:///$home/auth.db"
        artifacts=$stack/mlartifacts
    else
        found=$("$here/postgres.sh" env mlflow_auth)
        eval "$found"
        settings "postgresql+psycopg2://$PGUSER@$PGHOST:$PGPORT/$PGDATABASE"
        echo "$PGHOST:$PGPORT:$PGDATABASE:$PGUSER:$PGPASSWORD" >"$secrets/pgpass"
        export PGPASSFILE="$secrets/pgpass"
        found=$("$here/postgres.sh" env mlflow)
        eval "$found"
        unset PGPASSWORD # or it would be taken for both; this one stands in MLFLOW_BACKEND_STORE_URI
        found=$("$here/s3.sh" env mlflow)
        eval "$found"
        artifacts=s3://mlflow/artifacts
        # S3 that is away is said in seconds; the flow tries again by itself
        export AWS_RETRY_MODE=standard AWS_MAX_ATTEMPTS=2
    fi
    MLFLOW_AUTH_ADMIN_PASSWORD=$(cat "$secrets/admin") MLFLOW_FLASK_SERVER_SECRET_KEY=$(cat "$secrets/forms")
    export MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY MLFLOW_AUTH_CONFIG_PATH="$home/auth.ini"
    export MLFLOW_SERVER_ALLOWED_HOSTS="localhost:$port,127.0.0.1:$port${PUBLIC_HOSTS:+,$PUBLIC_HOSTS}"
    export MLFLOW_SERVER_CORS_ALLOWED_ORIGINS="http://localhost:$port,http://127.0.0.1:$port${PUBLIC_ORIGINS:+,$PUBLIC_ORIGINS}"
    STACK_HOME=$stack "$0" grant "$ROBUSTDISTILL_MODEL" &
    exec mlflow server --app-name basic-auth --host 127.0.0.1 --port "$port" --workers 1 --artifacts-destination "$artifacts"
}

case "${1:-}" in
serve | secrets) "$1" ;;
grant) grant "${2:-}" ;;
env) environment "${2:-}" ;;
*) stop_with 2 "unknown command '${1:-}'" "$0 serve | secrets | grant MODEL | env ROLE" ;;
esac
