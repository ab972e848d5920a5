#!/bin/sh
# Prefect's server. Started by infra/Procfile. Its database is known to this process alone.
set -eu
[ "$STACK" = sqlite ] || eval "$(infra/postgres.sh env prefect)"
exec prefect server start --host 127.0.0.1 --port "$PREFECT_PORT"
