#!/usr/bin/env bash
# Real programs of Debian with magalloc preloaded, against the same without: output, exit codes and every reply of a
# server must be the same; times and peak resident memory are measured. Installs what is missing first.
#
# usage: ci/real-programs.sh [--quick] [--runs N] [--only NAME[,NAME]] [--library PATH] [--table FILE.md]
#                            [--env NAME=VALUE]... [--list]
set -euo pipefail
source "$(dirname "$0")/packages.sh"

policy=/usr/sbin/policy-rc.d
saved_policy=

# A package of a server starts it when it is installed, unless this file says no.
forbid_services() {
    if [[ -e $policy || -L $policy ]]; then
        saved_policy=$(mktemp -u "$policy.XXXXXX")
        mv "$policy" "$saved_policy"
    fi
    trap allow_services EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}

allow_services() {
    rm -f "$policy"
    if [[ -n $saved_policy ]]; then mv "$saved_policy" "$policy"; fi
    trap - EXIT
}

install_missing() {
    local packages=() pair extension
    for pair in /usr/bin/python3:python3 /usr/bin/time:time /usr/bin/perl:perl /usr/bin/lua5.4:lua5.4 \
        /usr/bin/sqlite3:sqlite3 /usr/bin/git:git /usr/bin/g++:g++ /usr/bin/gs:ghostscript /usr/bin/z3:z3 \
        /usr/bin/redis-server:redis-server /usr/bin/redis-benchmark:redis-tools /usr/bin/memcached:memcached \
        /usr/sbin/nginx:nginx /usr/bin/wrk:wrk /usr/bin/node:nodejs /usr/bin/php:php-cli /usr/bin/gcc:gcc \
        /usr/include/seccomp.h:libseccomp-dev /usr/bin/qemu-x86_64:qemu-user /usr/sbin/sshd:openssh-server \
        /usr/bin/sftp:openssh-client; do
        [[ -e ${pair%%:*} ]] || packages+=("${pair##*:}")
    done
    compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || packages+=(postgresql)
    compgen -G '/usr/lib/python3*/test/test_json' >/dev/null || packages+=(libpython3.11-testsuite)
    compgen -G '/usr/sbin/php-fpm*' >/dev/null || packages+=(php-fpm)
    for extension in curl gd intl mbstring simplexml:xml pdo_sqlite:sqlite3 zip; do
        compgen -G "/usr/lib/php/*/${extension%%:*}.so" >/dev/null || packages+=("php-${extension##*:}")
    done
    if ((${#packages[@]} == 0)); then return; fi
    if ((EUID == 0)); then forbid_services; fi
    install_packages "${packages[@]}"
    allow_services
}

case " $* " in
*" --list "* | *" --help "* | *" -h "*) ;;
*) install_missing ;;
esac
exec /usr/bin/python3 -B "$(dirname "$0")/real-programs/run.py" "$@"
