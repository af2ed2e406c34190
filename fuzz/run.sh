#!/bin/sh
# Fuzzes every target for a while: fuzz/run.sh DIR [SECONDS] [TARGET...]
# Builds into DIR, keeps the grown corpus and what was found there. Exit 1 if anything was found.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
dir=${1:?usage: run.sh DIR [SECONDS] [TARGET...]}
seconds=${2:-60}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
shift
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- bbolt env_file gateway wal

# What libFuzzer needs to see: counters at every edge, their addresses, and comparisons. Stable rustc has it all but
# the sanitizers, which safe Rust misses least. A target triple keeps the flags away from build scripts.
host=$(rustc -vV | sed -n 's/^host: //p')
level="-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
export RUSTFLAGS="-Cpasses=sancov-module $level -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing"
cargo build --release --manifest-path "$here/Cargo.toml" --target "$host" --target-dir "$dir/build"

for target in "$@"; do
    mkdir -p "$dir/corpus/$target" "$dir/found/$target"
    echo "fuzzing $target for $seconds s"
    log="$dir/$target.log"
    if ! "$dir/build/$host/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=4096 \
        -artifact_prefix="$dir/found/$target/" "$dir/corpus/$target" "$here/seeds/$target" >"$log" 2>&1; then
        tail -n 40 "$log"
        echo "found something: see $dir/found/$target and $log" >&2
        exit 1
    fi
    grep 'DONE' "$log"
done
