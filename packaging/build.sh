#!/bin/bash
# Makes the packages of one kind from built programs: the same programs and the same commit give the same bytes.
# Usage: packaging/build.sh deb|rpm BIN_DIR OUT_DIR [VERSION]
# What the packages hold is listed in Cargo.toml; what has to be made first is made here, in target/package/stage.
set -euo pipefail

kind=${1:?usage: build.sh deb|rpm BIN_DIR OUT_DIR [VERSION]}
programs=$(realpath "$2")
mkdir -p "$3"
out=$(realpath "$3")
cd "$(dirname "$0")/.."
version=${4:-$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)}
stage=target/package/stage
release=1
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
umask 022

# The name of a package's variant, or nothing for the daemon's.
variants=("" tools etcd-compat)

stage() {
    local name
    rm -rf "$stage"
    mkdir -p "$stage/bin"
    for name in quorate quoratectl quorateutl; do
        strip --strip-all --remove-section=.comment -o "$stage/bin/$name" "$programs/$name"
    done
    mkdir "$stage/man"
    for name in man/*; do gzip -9n <"$name" >"$stage/$name.gz"; done
    mkdir "$stage/completions"
    for name in quorate:etcd quoratectl:etcdctl quorateutl:etcdutl; do completions "${name%:*}" "${name#*:}"; done
    for name in toml env; do
        { cat "packaging/quorate.$name.head" && "$programs/quorate" config sample --format "$name"; } >"$stage/quorate.$name"
    done
}

# The scripts of a program for its own name and for etcd's: it prints them for what it is called.
completions() { # PROGRAM ALIAS
    local name shell
    for name in "$@"; do
        for shell in bash zsh fish; do
            (exec -a "$name" "$programs/$1" completion "$shell") >"$stage/completions/$name.$shell"
        done
    done
}

make_deb() {
    cargo deb --quiet --no-build --no-strip --deb-version "$version-$release" --output "$out/" ${1:+--variant "$1"}
}

make_rpm() {
    cargo generate-rpm --auto-req builtin --payload-compress zstd --output "$out/" --variant "${1:-daemon}" \
        --set-metadata "version = \"$version\""
}

stage
for variant in "${variants[@]}"; do "make_$kind" "$variant"; done
