#!/bin/sh
# Installs what a make target needs and this machine lacks, through apt on Debian and its kin.
# Usage: tests/support/deps.sh build|test|fuzz|systemd|package|package-test ...
# Looks at what is there before it asks for anything; on other systems it names what is missing and fails.
set -eu

wanted=""
want() { wanted="$wanted $*"; }
have() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }

need_build() {
    have cargo || {
        echo "a Rust toolchain is missing: install stable Rust, then run this again" >&2
        exit 1
    }
    have cc || want gcc libc6-dev
    have g++ || want g++
    have pkg-config || want pkg-config
    if ! have pkg-config || ! pkg-config --exists libsystemd; then want libsystemd-dev; fi
}

need_test() {
    need_build
    have curl || want curl
    have setpriv && have nsenter || want util-linux
    have ip && have tc || want iproute2
    have openssl || want openssl
    have nft || want nftables
    have mkfs.ext4 || want e2fsprogs
    have etcdctl || want etcd-client
    have haproxy || want haproxy
    have nginx && [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || want nginx-light libnginx-mod-stream
    have dnsmasq || want dnsmasq-base
    have systemd-socket-activate || want systemd
    have python3 && python3 -c 'import ensurepip, venv' 2>/dev/null || want python3 python3-venv
    python3 -c 'import jsonschema' 2>/dev/null || /usr/bin/python3 -c 'import jsonschema' 2>/dev/null || want python3-jsonschema
    have man || want man-db
    have mandoc || want mandoc
    have protoc || want protobuf-compiler
    have man || want man-db
    have groff || want groff-base
    have mandoc || want mandoc
    have zsh || want zsh
    have fish || want fish
    have shellcheck || want shellcheck
    [ -e /usr/include/google/protobuf/descriptor.proto ] || want libprotobuf-dev
}

need_fuzz() {
    need_build
    have clang || want clang
}

need_systemd() {
    need_build
    have debootstrap || want debootstrap
    have systemd-nspawn || want systemd-container
    have nsenter || want util-linux
}

need_package() {
    need_build
    have strip || want binutils
    have gzip || want gzip
    have dpkg-shlibdeps || want dpkg-dev
    have git || want git
}

need_package_test() {
    need_package
    need_systemd
    have ip || want iproute2
    have lintian || want lintian
    have rpm || want rpm
    have rpmlint || ! has_package rpmlint || want rpmlint
    have python3 && python3 -c 'import ensurepip, venv' 2>/dev/null || want python3 python3-venv
}

# Whether the distribution has it: not every one has every checker.
has_package() { have apt-cache && [ -n "$(apt-cache search --names-only "^$1\$" 2>/dev/null)" ]; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

for set in "$@"; do "need_$(echo "$set" | tr - _)"; done
[ -n "$wanted" ] || exit 0
if ! have apt-get; then
    echo "missing, by their Debian names:$wanted" >&2
    exit 1
fi
echo "installing:$wanted"
as_root apt-get update -qq </dev/null
# shellcheck disable=SC2086 # one word for each package
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $wanted </dev/null
