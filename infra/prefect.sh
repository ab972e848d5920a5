#!/bin/sh
# Prefect's server, which asks every client for one pair of name and password:
#   infra/prefect.sh serve | secrets | env
# `env` prints what a client exports. `serve` is started by infra/Procfile; its database is known to it alone. The password is
# made at the first start and lies in STACK_HOME/prefect/secrets (0700); a removed one is made anew at the next start.
# Settings: STACK_HOME, PREFECT_PORT, PUBLIC_ORIGINS (a proxy's origins, comma-separated).
set -eu
umask 077
me=prefect
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=infra/lib.sh
. "$here/lib.sh"
port=${PREFECT_PORT:-4200}
secret=${STACK_HOME:-$here/../.work/stack}/prefect/secrets/api

secrets() { keep_secret "$secret"; }

environment() {
    [ -s "$secret" ] || stop_with 2 "there is no password yet" "make stack, which makes it"
    echo "export PREFECT_API_URL=http://127.0.0.1:$port/api PREFECT_API_AUTH_STRING=robustdistill:$(cat "$secret")"
}

serve() {
    secrets
    if [ "$STACK" != sqlite ]; then
        found=$("$here/postgres.sh" env prefect) # not within eval, which would hide that it failed
        eval "$found"
    fi
    PREFECT_SERVER_API_AUTH_STRING=robustdistill:$(cat "$secret")
    export PREFECT_SERVER_API_AUTH_STRING
    export PREFECT_SERVER_CORS_ALLOWED_ORIGINS="http://localhost:$port,http://127.0.0.1:$port${PUBLIC_ORIGINS:+,$PUBLIC_ORIGINS}"
    exec prefect server start --host 127.0.0.1 --port "$port"
}

case "${1:-}" in
serve | secrets) "$1" ;;
env) environment ;;
*) stop_with 2 "unknown command '${1:-}'" "$0 serve | secrets | env" ;;
esac
