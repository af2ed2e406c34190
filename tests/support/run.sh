#!/usr/bin/env bash
# Builds all tests and runs several of their programs at a time: most of them wait, for elections, timers and disks. Shows
# what each of them said when it has ended, and the sum of all. One that fails beside others is run again by itself, because
# a busy machine delays elections; what fails and then passes is named at the end, and is worth a look.
# tests/support/run.sh [FLAGS OF CARGO]      TEST_JOBS=2 tests/support/run.sh --locked
set -uo pipefail
# Longest time for one program: several times what the slowest takes.
export LONGEST=15m
export said
said=$(mktemp -d)
trap 'rm -rf "$said"' EXIT

cargo test "$@" --no-run 2>&1 | tee "$said/build"
[ "${PIPESTATUS[0]}" = 0 ] || exit 1
mapfile -t programs < <(sed -n 's/^ *Executable .* (\(.*\))$/\1/p' "$said/build")
[ "${#programs[@]}" -gt 0 ] || { echo "run.sh: cargo names no test programs" >&2; exit 1; }

run() {
    local output="$said/${1##*/}"
    timeout "$LONGEST" "$1" </dev/null >"$output.log" 2>&1 || echo "$1" >"$output.failed"
    { flock 9; echo "     Running $1"; cat "$output.log"; } 9>"$said/turn"
}
export -f run

# The unit tests come first in cargo's order and keep all processors busy by themselves: they fill the gaps at the end.
printf '%s\n' "${programs[@]}" | tac | xargs --max-args=1 --max-procs="${TEST_JOBS:-3}" bash -c 'run "$0"'
for failed in "$said"/*.failed; do
    [ -e "$failed" ] || continue
    program=$(cat "$failed") output=${failed%.failed}
    echo "     Running $program again, by itself"
    timeout "$LONGEST" "$program" </dev/null >"$output.again" 2>&1 && mv "$failed" "$output.alone"
    cat "$output.again"
    mv "$output.again" "$output.log"
done
cargo test "$@" --doc || touch "$said/doc.failed"

count() { cat "$said"/*.log | sed -n "s/^test result: .*[ .]\([0-9]*\) $1.*/\1/p" | awk '{ sum += $1 } END { print sum + 0 }'; }
sed -n '/^failures:$/,/^test result/p' "$said"/*.log | sed -n 's/^    \([a-z_0-9:]*\)$/failed: \1/p' | sort -u
cat "$said"/*.alone 2>/dev/null | sed 's/^/failed beside others, passed by itself: /'
cat "$said"/*.failed 2>/dev/null | sed 's/^/failed program: /'
echo "${#programs[@]} programs: $(count passed) passed, $(count failed) failed, $(count ignored) ignored"
! compgen -G "$said/*.failed" >/dev/null
