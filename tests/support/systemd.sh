#!/bin/bash
# Runs the packaged unit under a real systemd, in a container of its own: readiness, status, watchdog, stop.
# Usage: tests/support/systemd.sh TARGET [BINARY]
# TARGET/systemd/tree is a Debian tree, made by debootstrap once and kept. Needs root. The container has no network but
# its own loopback; nothing outside TARGET is written.
set -euo pipefail

target=${1:?usage: systemd.sh TARGET [BINARY]}
binary=${2:-$target/release/quorate}
root=$(cd "$(dirname "$0")/../.." && pwd)
work="$target/systemd"
tree="$work/tree"
passed=0 failed=0
[ "$(id -u)" = 0 ] || exec sudo "$0" "$@"
mkdir -p "$work"
exec 9>"$work/lock"
flock 9

make_tree() {
    [ -e "$work/complete" ] && return
    echo "debootstrap into $tree"
    rm -rf "$tree"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,curl,procps \
        "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$tree" >"$work/debootstrap.log" 2>&1 ||
        { tail -n 5 "$work/debootstrap.log" >&2; exit 1; }
    touch "$work/complete"
}

install_unit() {
    install -m 755 "$binary" "$tree/usr/bin/quorate"
    install -m 644 "$root/packaging/quorate.service" "$tree/usr/lib/systemd/system/quorate.service"
    chroot "$tree" useradd --system --home-dir /var/lib/quorate --shell /usr/sbin/nologin quorate 2>/dev/null || true
    rm -rf "$tree/var/lib/quorate" "$tree/var/lib/private/quorate" "$tree/etc/systemd/system/quorate.service.d"
    mkdir -p "$tree/etc/systemd/system/quorate.service.d"
    # The watchdog of the unit is patient; a test is not.
    printf '[Service]\nWatchdogSec=3s\nRestartSec=100ms\n' >"$tree/etc/systemd/system/quorate.service.d/test.conf"
    printf '127.0.0.1 localhost\n' >"$tree/etc/hosts"
    printf 'ETCD_NAME=n1\n' >"$tree/etc/default/quorate"
}

boot() {
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn --quiet --keep-unit --register=no --private-network --boot \
        --machine="quorate-test-$$" -D "$tree" >"$work/console.log" 2>&1 </dev/null &
    nspawn=$!
    trap shut_down EXIT
    within 60 container_runs || { tail -n 20 "$work/console.log" >&2; exit 1; }
}

container_runs() {
    init=$(pgrep -P "$nspawn" | head -n 1)
    [ -n "$init" ] && inside systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded'
}

shut_down() {
    inside systemctl poweroff >/dev/null 2>&1 || true
    within 20 ended || kill -KILL "$nspawn" 2>/dev/null || true
    wait "$nspawn" 2>/dev/null || true
}

ended() { ! kill -0 "$nspawn" 2>/dev/null; }
inside() { nsenter --target "$init" --mount --uts --ipc --net --pid --root --wd=/ -- "$@"; }
property() { inside systemctl show quorate --value --property "$1"; }
request() { inside curl --silent --show-error --max-time 10 "http://127.0.0.1:2379$1" "${@:2}"; }

# Tries a command every 100 ms for so many seconds.
within() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}

# check NAME COMMAND...: one line for each.
check() {
    if "${@:2}"; then
        passed=$((passed + 1))
        echo "ok      $1"
    else
        failed=$((failed + 1))
        echo "FAILED  $1"
        inside journalctl --no-pager --lines 15 --unit quorate || true
    fi
}

is() { [ "$("${@:2}")" = "$1" ] || { echo "  expected '$1', got '$("${@:2}")'"; return 1; }; }
unit_is_sound() { is "" complaints; }
# The container has no manual pages.
complaints() { inside systemd-analyze verify /usr/lib/systemd/system/quorate.service 2>&1 | grep -v "Command 'man" || true; }
starts() { inside systemctl start quorate; }
status_says() { property StatusText | grep -qE "$1"; }
is_alive_again() { [ "$(property NRestarts)" -gt "$1" ] && [ "$(property ActiveState)" = active ] && request /health | grep -q true; }
holds() { request /v3/kv/range -d '{"key":"YQ=="}' | grep -q '"value":"MQ=="'; }
puts() { request /v3/kv/put -d '{"key":"YQ==","value":"MQ=="}' | grep -q revision; }
journal_has() { inside journalctl --no-pager --unit quorate | grep -qE "$1"; }

# A process that does nothing at all must be noticed; this is as stuck as a raft loop can be.
is_restarted_by() {
    local before pid
    before=$(property NRestarts)
    pid=$(property MainPID)
    [ "$pid" != 0 ] || return 1
    inside kill -s "$1" "$pid"
    within 30 is_alive_again "$before"
}

stops_within() {
    local started ended
    started=$(date +%s%N)
    inside systemctl stop quorate
    ended=$(date +%s%N)
    echo "  stopped in $(((ended - started) / 1000000)) ms"
    [ $(((ended - started) / 1000000)) -lt "$1" ] && [ "$(property Result)" = success ]
}

make_tree
install_unit
boot
check "systemd-analyze verify has nothing to say" unit_is_sound
check "systemctl start returns once the member serves" starts
check "it is a notify service" is notify property Type
check "it is active" is active property ActiveState
check "the unit runs as its own user" is quorate property User
check "the status line names role and term" within 10 status_says '[Ll]eader.*term|term.*[Ll]eader'
check "it serves" puts
check "the watchdog is fed for longer than its period" sleep 5
check "and nothing was restarted" is 0 property NRestarts
check "a stopped process is killed by the watchdog and started again" is_restarted_by STOP
check "the journal says so" within 10 journal_has 'Watchdog timeout'
check "the data is there" holds
check "a killed process is started again" is_restarted_by KILL
check "the data is there still" holds
check "systemctl stop is quick and clean" stops_within 5000
check "it starts again" starts
check "with its data" holds
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
