#!/bin/sh
# A real S3 server on 127.0.0.1: Ceph's gateway with one monitor and one disk, as plain processes from Debian's packages:
#   infra/s3.sh start | stop | status | install | env NAME
# Each name in S3_BUCKETS is a bucket and the user who owns it. Each in S3_ROLES is a user without one, who may do what
# infra/rights/buckets says: in `robustdistill`, and in `records`, which is the owner's and locked (object lock). `env NAME`
# prints what a user exports. Ceph makes the keys at the first start; they lie in S3_HOME/secrets (0700). For one machine:
# objects are kept once. Settings: S3_HOME, S3_PORT, S3_CLUSTER_PORT (it and the 40 after it), S3_BUCKETS, S3_ROLES (empty:
# none, and no `records`), RECORD_MODE and RECORD_DAYS (of the lock), S3_BYTES (how much fits).
set -eu
umask 077
me=s3
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=infra/lib.sh
. "$here/lib.sh"
home=${S3_HOME:-${STACK_HOME:-$here/../.work/stack}/s3}
mkdir -p "$home"
home=$(cd "$home" && pwd)
port=${S3_PORT:-9000}
cluster=${S3_CLUSTER_PORT:-6900}
buckets=${S3_BUCKETS:-mlflow robustdistill}
roles=${S3_ROLES-owner trainer promoter reader}
bytes=${S3_BYTES:-21474836480}
secrets=$home/secrets conf=$home/ceph.conf
PACKAGES="ceph-mon ceph-osd radosgw curl"

programs() {
    for program in ceph ceph-mon ceph-osd ceph-authtool monmaptool radosgw radosgw-admin curl; do
        command -v "$program" >/dev/null || return 1
    done
}

require_programs() {
    programs || stop_with 2 "Ceph is not installed ($program is missing)" \
        "$0 install, which runs: apt-get install --no-install-recommends $PACKAGES"
}

# shellcheck disable=SC2086 # a list
install() { programs || apt_install $PACKAGES; }

pid_of() { cat "$home/run/$1.pid" 2>/dev/null; }

# By its command line: a number may have passed to somebody else's process, and a zombie has none.
is_running() { # mon.a, osd.0 or client.rgw
    pid=$(pid_of "$1") && { tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF -- "-c $conf "; } 2>/dev/null
}

wait_for() { # seconds, what, command...
    left=$(($1 * 5)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ $left -gt 0 ] || stop_with 4 "$what did not come up" "see $home/log; other ports: S3_PORT, S3_CLUSTER_PORT"
        sleep 0.2
    done
}

admin() { ceph -c "$conf" --connect-timeout 5 "$@"; }

configure() {
    cat >"$conf" <<CONF
[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
mon initial members = a
mon host = [v2:127.0.0.1:$cluster]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind port min = $((cluster + 1))
ms bind port max = $((cluster + 40))
keyring = $home/keys/\$name
run dir = $home/run
crash dir = $home/run
admin socket = $home/run/\$type.\$id.asok
pid file = $home/run/\$type.\$id.pid
log file = $home/log/\$type.\$id.log
auth allow insecure global id reclaim = false
# one disk: no copies, few groups
mon allow pool size one = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon max pg per osd = 1000
[mon]
mon data = $home/mon
[osd]
osd data = $home/osd
osd objectstore = bluestore
bluestore block create = true
bluestore block size = $bytes
bluestore fsck on mkfs = false
[client.rgw]
rgw data = $home/rgw
rgw frontends = beast endpoint=127.0.0.1:$port
rgw enable apis = s3
rgw enable usage log = false
rgw run sync thread = false
CONF
}

# Every daemon has a key of its own: others on this machine can reach the ports, too.
create_monitor() {
    mkdir -p "$home/keys" "$home/run" "$home/log" "$home/mon" "$home/osd" "$home/rgw" "$secrets"
    configure
    fsid=$(sed -n 's/^fsid = //p' "$conf")
    {
        ceph-authtool -C "$home/keys/client.admin" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *'
        ceph-authtool -C "$home/keys/mon." --gen-key -n mon. --cap mon 'allow *'
        ceph-authtool "$home/keys/mon." --import-keyring "$home/keys/client.admin"
        monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:$cluster]" --clobber "$home/monmap.new"
        ceph-mon -c "$conf" --mkfs -i a --monmap "$home/monmap.new" --keyring "$home/keys/mon."
    } >>"$home/log/create.log" 2>&1
    mv "$home/monmap.new" "$home/monmap"
}

create_disk() {
    [ -s "$home/disk" ] || cat /proc/sys/kernel/random/uuid >"$home/disk" # started twice, it still is the same disk
    uuid=$(cat "$home/disk")
    admin osd new "$uuid" >>"$home/log/create.log"
    admin auth get-or-create osd.0 mon 'allow profile osd' osd 'allow *' -o "$home/keys/osd.0"
    admin auth get-or-create client.rgw mon 'allow rw' osd 'allow rwx' -o "$home/keys/client.rgw"
    ceph-osd -c "$conf" -i 0 --mkfs --osd-uuid "$uuid" >>"$home/log/create.log" 2>&1
    touch "$home/osd/created"
}

disk_is_up() { admin osd stat | grep -q '1 up'; }
is_answering() { curl -s -o /dev/null "http://127.0.0.1:$port"; }

field() { sed -n "s/^ *\"$1\": \"\(.*\)\".*/\1/p" "$2" | head -1 | tr -d '\134'; }

# A user, its keys, and, with a second word, the bucket that is its own. Keys go by files and pipes: a command line can be read by all.
give() {
    [ ! -s "$secrets/$1" ] || return 0
    radosgw-admin -c "$conf" user info --uid="$1" >"$secrets/$1.json" 2>/dev/null ||
        radosgw-admin -c "$conf" user create --uid="$1" --display-name="$1" >"$secrets/$1.json" 2>>"$home/log/create.log"
    key=$(field access_key "$secrets/$1.json") secret=$(field secret_key "$secrets/$1.json")
    [ -z "${2:-}" ] || curl -sS --fail-with-body -X PUT --aws-sigv4 aws:amz:us-east-1:s3 \
        -H "x-amz-content-sha256: UNSIGNED-PAYLOAD" -K - "http://127.0.0.1:$port/$2" >>"$home/log/create.log" <<CURL || stop_with 4 "the bucket $2 was not made" "see $home/log/create.log"
user = "$key:$secret"
CURL
    printf '%s\n%s\n' "$key" "$secret" >"$secrets/$1"
    rm -f "$secrets/$1.json"
}

# What each role may do, as the owners of the buckets say it.
rights() {
    python=python
    "$python" -c 'import boto3' 2>/dev/null || python=$here/../.venv/bin/python
    "$python" -c 'import boto3' 2>/dev/null || stop_with 2 "no Python with boto3, which sets the rights of the roles" \
        "make install, or S3_ROLES= for buckets without roles"
    for pair in robustdistill:robustdistill owner:records; do
        [ -s "$secrets/${pair%:*}" ] || continue
        (
            eval "$(environment "${pair%:*}")"
            S3_PRINCIPAL='arn:aws:iam:::user/{}' "$python" "$here/rights/buckets.py" "${pair#*:}" >>"$home/log/create.log" 2>&1
        ) || stop_with 4 "the rights in the bucket ${pair#*:} were not set: $(tail -1 "$home/log/create.log")" "see $home/log/create.log"
    done
}

start() {
    require_programs
    [ -s "$home/monmap" ] || create_monitor
    is_running mon.a || ceph-mon -c "$conf" -i a >>"$home/log/start.log" 2>&1
    wait_for 30 "the monitor" admin mon stat
    [ -e "$home/osd/created" ] || create_disk
    is_running osd.0 || ceph-osd -c "$conf" -i 0 >>"$home/log/start.log" 2>&1
    wait_for 60 "the disk" disk_is_up
    is_running client.rgw || radosgw -c "$conf" -n client.rgw >>"$home/log/start.log" 2>&1
    wait_for 60 "the gateway" is_answering
    is_running client.rgw || stop_with 4 "somebody else answers on port $port" "set S3_PORT to another one"
    for name in $buckets; do give "$name" "$name"; done
    for name in $roles; do give "$name"; done
    [ -z "$roles" ] || rights
    say "up on http://127.0.0.1:$port"
}

stop() {
    for daemon in client.rgw osd.0 mon.a; do
        is_running $daemon || continue
        kill "$(pid_of $daemon)"
        left=100
        while is_running $daemon && [ $left -gt 0 ]; do
            sleep 0.1
            left=$((left - 1))
        done
        ! is_running $daemon || kill -9 "$(pid_of $daemon)"
    done
    say "stopped"
}

status() {
    for daemon in mon.a osd.0 client.rgw; do
        is_running $daemon || { echo "down ($daemon)"; return 1; }
    done
    echo "up on http://127.0.0.1:$port"
}

environment() {
    named "$1" "$buckets $roles"
    [ -s "$secrets/$1" ] || stop_with 2 "there are no keys of $1 yet" "$0 start"
    echo "export AWS_ACCESS_KEY_ID=$(sed -n 1p "$secrets/$1") AWS_SECRET_ACCESS_KEY=$(sed -n 2p "$secrets/$1")"
    echo "export AWS_DEFAULT_REGION=us-east-1 AWS_EC2_METADATA_DISABLED=true"
    echo "export AWS_ENDPOINT_URL_S3=http://127.0.0.1:$port MLFLOW_S3_ENDPOINT_URL=http://127.0.0.1:$port"
}

case "${1:-}" in
start | stop | status | install) "$1" ;;
env) environment "${2:-}" ;;
*) stop_with 2 "unknown command '${1:-}'" "$0 start | stop | status | install | env NAME" ;;
esac
