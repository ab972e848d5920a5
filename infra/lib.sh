# shellcheck shell=sh disable=SC2154
# Read by the scripts beside it: how they speak, and what they need. `me` is the script's name.
say() { echo "$me: $*" >&2; }

stop_with() { # exit code, cause, fix
    say "error: $2"
    echo "  fix:   $3" >&2
    exit "$1"
}

password() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

named() { # a name of the list: named NAME LIST
    case " $2 " in *" $1 "*) [ -n "$1" ] && return ;; esac
    stop_with 2 "no such name: '$1'" "one of: $2"
}

apt_install() { # packages
    root=""
    [ "$(id -u)" = 0 ] || root=sudo
    $root apt-get update -qq
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

keep_secret() { # files: each with a password in it, made where there is none; their folder is closed to others
    for kept in "$@"; do
        [ -s "$kept" ] || (umask 077 && mkdir -p "${kept%/*}" && password >"$kept")
    done
}
