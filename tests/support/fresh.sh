#!/bin/bash
# Does on a fresh Debian 12 what README.md promises: a clone, a Rust toolchain, `make run`, `make test`, nothing else.
# Usage: tests/support/fresh.sh DIR [run|test]...
# DIR/base is a Debian tree, made by debootstrap once and kept; every call works in a copy of it, DIR/tree, that holds a
# clone of HEAD, the toolchain in use here and nothing more. It shares this machine's network: port 2379 must be free.
# Needs root. Of this machine's settings it is given the proxies and the certificate authorities, to reach the registries.
set -euo pipefail

dir=${1:?usage: fresh.sh DIR [run|test]...}
shift
[ $# -gt 0 ] || set -- run test
root=$(cd "$(dirname "$0")/../.." && pwd)
serve_seconds=3600 # the first `make run` compiles everything
if [ "$(id -u)" != 0 ]; then exec sudo --preserve-env "$0" "$dir" "$@"; fi
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
exec 9>"$dir/lock"
flock 9
tree="$dir/tree"

make_base() {
    [ -e "$dir/complete" ] && return
    echo "debootstrap into $dir/base"
    rm -rf "$dir/base"
    debootstrap --variant=minbase --include=ca-certificates,make bookworm "$dir/base" >"$dir/debootstrap.log" 2>&1 ||
        { tail -n 5 "$dir/debootstrap.log" >&2; exit 1; }
    touch "$dir/complete"
}

# A tree as somebody finds it who has just installed Debian, make and Rust.
make_tree() {
    rm -rf "$tree"
    cp -a "$dir/base" "$tree"
    cp -a /usr/local/share/ca-certificates/. "$tree/usr/local/share/ca-certificates/"
    chroot "$tree" update-ca-certificates >/dev/null 2>&1
    [ ! -e /etc/pip.conf ] || cp /etc/pip.conf "$tree/etc/pip.conf"
    # Debian's installer writes it; debootstrap does not.
    printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n' >"$tree/etc/hosts"
    git clone --quiet --no-local "$root" "$tree/root/quorate"
}

# How a command is run in the clone: with an environment and processes of its own, and all that root may do, as on a machine.
within_tree() {
    local name
    # shellcheck disable=SC2016
    inside=(unshare --mount --propagation private --pid --fork --kill-child sh -ec '
        tree=$1 rust=$2
        shift 2
        mount --bind "$tree" "$tree"
        cd "$tree"
        mount -t proc proc proc
        mount --rbind /dev dev
        mount --rbind /sys sys
        mkdir -p opt/rust
        mount --bind "$rust" opt/rust
        cp --dereference /etc/resolv.conf etc/resolv.conf
        pivot_root . mnt # a mount namespace entered from elsewhere begins at its own root, not at that of a chroot
        exec chroot . sh -ec "umount --lazy /mnt; exec env -i --chdir=/root/quorate HOME=/root \"\$@\"" sh "$@"'
        "in-$tree" "$tree" "$(rustc --print sysroot)"
        "PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    for name in {http,https,no}_proxy {HTTP,HTTPS,NO}_PROXY GOPROXY GOSUMDB CARGO_BUILD_JOBS; do
        [ -z "${!name:-}" ] || inside+=("$name=${!name}")
    done
}

serves() { [ "$(curl --silent --max-time 2 http://127.0.0.1:2379/health)" = '{"health":"true","reason":""}' ]; }

# `make run` until it serves, one key, and its end.
try_run() {
    ! serves || { echo "something serves on 2379 already" >&2; return 1; }
    "${inside[@]}" make run </dev/null >"$dir/run.log" 2>&1 &
    local maker=$! deadline=$((SECONDS + serve_seconds))
    until serves; do
        kill -0 "$maker" 2>/dev/null || { tail -n 20 "$dir/run.log" >&2; return 1; }
        [ "$SECONDS" -lt "$deadline" ] || { echo "not ready after $serve_seconds s" >&2; kill "$maker"; return 1; }
        sleep 1
    done
    curl --silent --fail --max-time 5 http://127.0.0.1:2379/version && echo
    curl --silent --fail --max-time 5 http://127.0.0.1:2379/v3/kv/put -d '{"key":"YQ==","value":"MQ=="}' && echo
    curl --silent --fail --max-time 5 http://127.0.0.1:2379/v3/kv/range -d '{"key":"YQ=="}' && echo
    kill -KILL "$maker" # unshare ignores a polite end, and takes its processes with it
    wait "$maker" || true
}

try_test() {
    "${inside[@]}" make test </dev/null >"$dir/test.log" 2>&1 || { tail -n 40 "$dir/test.log" >&2; return 1; }
    grep -E '^test result|^installing' "$dir/test.log"
}

make_base
make_tree
within_tree
for part in "$@"; do
    echo "make $part in a fresh Debian 12"
    "try_$part"
    echo "make $part: ok"
done
