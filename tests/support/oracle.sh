#!/bin/sh
# Builds the real etcd (etcd, etcdctl, etcdutl) into DIR/bin, for tests that compare answers.
# Usage: tests/support/oracle.sh DIR [VERSION]
# VERSION is 3.7.1 unless given; each version has a DIR of its own.
# A throw-away Go module in DIR names the released modules; the go command fetches and builds them. Nothing of it is
# kept in the source tree. DIR/go runs the Go that built it. Prints nothing but progress.
set -eu

dir=${1:?usage: oracle.sh DIR [VERSION]}
version=${2:-3.7.1}
toolchain=go1.27.3 # what an older Go is asked to fetch for itself
mkdir -p "$dir/bin"
dir=$(cd "$dir" && pwd)
exec 9>"$dir/lock"
flock 9

complete() { [ -x "$dir/go" ] && [ -x "$dir/bin/etcd" ] && [ -x "$dir/bin/etcdctl" ] && [ -x "$dir/bin/etcdutl" ]; }
complete && exit 0
# Ready-made binaries from elsewhere do as well.
[ -x "$dir/bin/etcd" ] && [ ! -d "$dir/module" ] && exit 0

fail() {
    echo "oracle: $*" >&2
    echo "oracle: put Go 1.26 or newer into PATH, or set ORACLE_DIR to a directory whose bin/ holds etcd $version" >&2
    exit 1
}

# The minor number N of a `go1.N…` version, or 0.
minor_of() {
    found=$(GOTOOLCHAIN=local "$1" version 2>/dev/null | sed -n 's/.* go1\.\([0-9]*\).*/\1/p')
    echo "${found:-0}"
}

# Unpacks Debian's newest Go from the backports of the installed release into DIR, leaving the system alone.
fetch_debian_go() {
    command -v apt-get >/dev/null || fail "no Go here and no apt to fetch one with"
    apt="$dir/apt"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/debs"
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    site=$(apt-get indextargets --format '$(SITE)' "Created-By: Packages" "Release: $release" | head -n 1)
    [ -n "$site" ] || fail "apt knows no archive of $release; run apt-get update"
    for suite in "$release" "$release-backports"; do echo "deb $site $suite main"; done >"$apt/sources.list"
    set -- -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=- \
        -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root
    apt-get "$@" -qq update </dev/null || fail "apt cannot read the backports of $release"
    best=$(apt-cache "$@" search --names-only '^golang-1\.[0-9]+-go$' | sed 's/ .*//' | sort -t. -k2 -n | tail -n 1)
    [ -n "$best" ] || fail "Debian offers no Go for $release"
    (cd "$apt/debs" && apt-get "$@" -qq download "$best" "${best%-go}-src" </dev/null) || fail "apt cannot fetch $best"
    for deb in "$apt"/debs/*.deb; do dpkg-deb -x "$deb" "$dir/debian"; done
    root="$dir/debian/usr/lib/go-${best#golang-}"
    root="${root%-go}"
    go="$root/bin/go"
}

go=$(command -v go || true)
if [ "$(minor_of "${go:-go}")" -lt 21 ]; then
    echo "oracle: fetching Debian's Go" >&2
    fetch_debian_go
fi
if [ "$(minor_of "$go")" -lt 26 ]; then
    export GOTOOLCHAIN=$toolchain
else
    export GOTOOLCHAIN=local
fi

printf '#!/bin/sh\nGOTOOLCHAIN=%s exec "%s" "$@"\n' "$GOTOOLCHAIN" "$go" >"$dir/go"
chmod +x "$dir/go"
echo "oracle: building etcd $version with $("$go" version)" >&2
mkdir -p "$dir/module"
cd "$dir/module"
rm -f go.mod go.sum
"$go" mod init oracle >/dev/null 2>&1
cat >tools.go <<'GO'
//go:build tools

package tools

import (
	_ "go.etcd.io/etcd/etcdctl/v3"
	_ "go.etcd.io/etcd/etcdutl/v3"
	_ "go.etcd.io/etcd/server/v3"
)
GO
for module in server etcdctl etcdutl; do echo "go.etcd.io/etcd/$module/v3@v$version"; done |
    xargs "$go" get >get.log 2>&1 || fail "go get failed: $(tail -n 3 get.log)"
for pair in etcd:server etcdctl:etcdctl etcdutl:etcdutl; do
    "$go" build -buildvcs=false -o "$dir/bin/.${pair%%:*}" "go.etcd.io/etcd/${pair##*:}/v3" >build.log 2>&1 ||
        fail "go build failed: $(tail -n 3 build.log)"
    mv "$dir/bin/.${pair%%:*}" "$dir/bin/${pair%%:*}"
done
complete || fail "built, but $dir/bin is not complete"
