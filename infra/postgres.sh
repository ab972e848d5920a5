#!/bin/sh
# PostgreSQL on 127.0.0.1, with a database and a role of its own for each name in POSTGRES_DATABASES:
#   infra/postgres.sh start | stop | status | install | env NAME
# `env NAME` prints what the owner of database NAME exports, `env admin` the same for the superuser. Passwords are made at
# the first start and lie in POSTGRES_HOME/secrets (0700); a removed one is made anew at the next start.
# Settings: POSTGRES_HOME, POSTGRES_PORT, POSTGRES_DATABASES, POSTGRES_BIN (the folder with initdb and pg_ctl).
set -eu
umask 077
me=postgres
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=infra/lib.sh
. "$here/lib.sh"
home=${POSTGRES_HOME:-${STACK_HOME:-$here/../.work/stack}/postgres}
port=${POSTGRES_PORT:-5433}
databases=${POSTGRES_DATABASES:-mlflow mlflow_auth prefect}
secrets=$home/secrets

programs() {
    bin=${POSTGRES_BIN:-}
    for folder in /usr/lib/postgresql/*/bin; do
        [ -n "${POSTGRES_BIN:-}" ] || [ ! -x "$folder/initdb" ] || bin=$folder # the newest comes last
    done
    [ -x "$bin/initdb" ] && [ -x "$bin/pg_ctl" ] && [ -x "$bin/psql" ]
}

require_programs() {
    programs || stop_with 2 "PostgreSQL is not installed" \
        "$0 install, which runs: apt-get install --no-install-recommends postgresql"
}

install() {
    programs && return
    drop=/etc/postgresql-common/createcluster.d/none-by-itself.conf # the package would start a server of its own
    root=""
    [ "$(id -u)" = 0 ] || root=sudo
    $root mkdir -p "${drop%/*}"
    echo "create_main_cluster = false" | $root tee "$drop" >/dev/null
    apt_install postgresql
    $root rm -f "$drop"
}

as_owner() { # PostgreSQL refuses to run as root
    if [ "$(id -u)" = 0 ]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi
}

is_running() { [ -s "$home/data/PG_VERSION" ] && as_owner "$bin/pg_ctl" -D "$home/data" status >/dev/null 2>&1; }

secret() { [ -s "$secrets/$1" ] || password >"$secrets/$1"; }

create() {
    mkdir -p "$secrets"
    secret admin
    if [ "$(id -u)" = 0 ]; then
        chmod 711 "$home"
        mkdir -p "$home/data"
        chown postgres "$home/data"
        as_owner test -x "$home" || stop_with 2 "the user postgres cannot enter $home" \
            "make the folders above it passable (chmod o+x), or set POSTGRES_HOME to another place"
    fi
    cp "$secrets/admin" "$home/password"
    [ "$(id -u)" != 0 ] || chown postgres "$home/password"
    as_owner "$bin/initdb" -D "$home/data" -U admin --pwfile="$home/password" --auth=scram-sha-256 -E UTF8 --locale=C.UTF-8 \
        >"$home/initdb.log" 2>&1 || { rm -f "$home/password"; stop_with 4 "initdb failed: $(tail -1 "$home/initdb.log")" "see $home/initdb.log"; }
    rm -f "$home/password"
}

admin_sql() {
    PGPASSWORD=$(cat "$secrets/admin") "$bin/psql" -XqtA -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$port" -U admin -d postgres
}

# A role that owns one database, and may not enter another. The statements hold a password: the server's log shall not.
give() {
    secret "$1"
    admin_sql <<SQL
SET log_min_error_statement = panic;
SELECT 'CREATE ROLE "$1" LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '$1') \gexec
ALTER ROLE "$1" PASSWORD '$(cat "$secrets/$1")';
SELECT 'CREATE DATABASE "$1" OWNER "$1"' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '$1') \gexec
REVOKE ALL ON DATABASE "$1", postgres, template1 FROM PUBLIC;
SQL
}

start() {
    require_programs
    [ -s "$home/data/PG_VERSION" ] || create
    if ! is_running; then
        # no socket in a shared folder, no address but loopback; the log stays beside the data
        as_owner "$bin/pg_ctl" -D "$home/data" -l "$home/data/server.log" -w -t 60 \
            -o "-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories=''" start >/dev/null ||
            stop_with 4 "PostgreSQL did not start: $(grep -hE 'FATAL|could not' "$home/data/server.log" | tail -2)" \
                "see $home/data/server.log; another port: POSTGRES_PORT"
    fi
    for name in $databases; do give "$name"; done
    say "up on 127.0.0.1:$port"
}

stop() {
    require_programs
    ! is_running || as_owner "$bin/pg_ctl" -D "$home/data" -m fast -w -t 60 stop >/dev/null
    say "stopped"
}

status() {
    require_programs
    is_running && "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" && echo "up on 127.0.0.1:$port" && return
    echo "down"
    return 1
}

environment() {
    named "$1" "admin $databases"
    [ -s "$secrets/$1" ] || stop_with 2 "there is no password of $1 yet" "$0 start"
    echo "export PGHOST=127.0.0.1 PGPORT=$port PGUSER=$1 PGPASSWORD=$(cat "$secrets/$1")"
    case $1 in
    admin) echo "export PGDATABASE=postgres" ;;
    *) echo "export PGDATABASE=$1" ;;
    esac
    case $1 in
    mlflow) echo "export MLFLOW_BACKEND_STORE_URI=postgresql+psycopg2://$1:$(cat "$secrets/$1")@127.0.0.1:$port/$1" ;;
    prefect) echo "export PREFECT_SERVER_DATABASE_CONNECTION_URL=postgresql+asyncpg://$1:$(cat "$secrets/$1")@127.0.0.1:$port/$1" ;;
    esac
}

case "${1:-}" in
start | stop | status | install) "$1" ;;
env) environment "${2:-}" ;;
*) stop_with 2 "unknown command '${1:-}'" "$0 start | stop | status | install | env NAME" ;;
esac
