#!/bin/bash
# Runs the packaged unit under a real systemd, in a container of its own: readiness, status, watchdog, stop, backups.
# Usage: tests/support/systemd.sh TARGET [BINARY], beside which the tools lie
# TARGET/systemd/tree is a Debian tree, made by debootstrap once and kept. Needs root. The container has no network but
# its own loopback; nothing outside TARGET is written.
set -euo pipefail

target=${1:?usage: systemd.sh TARGET [BINARY]}
binary=${2:-$target/release/quorate}
work="$target/systemd"
. "$(dirname "$0")/container.sh"
enter "$@"

install_unit() {
    install -m 755 "$binary" "$(files)/usr/bin/quorate"
    install -m 644 "$root/packaging/quorate.service" "$(files)/usr/lib/systemd/system/quorate.service"
    install -m 644 "$root/packaging/quorate.sysusers" "$(files)/usr/lib/sysusers.d/quorate.conf"
    chroot "$(files)" systemd-sysusers 2>/dev/null
    for name in quoratectl quorateutl; do install -m 755 "$(dirname "$binary")/$name" "$(files)/usr/bin/$name"; done
    install -m 644 "$root"/packaging/quorate-backup.{service,timer} "$(files)/usr/lib/systemd/system/"
    install -D -m 755 "$root/packaging/backup.sh" "$(files)/usr/lib/quorate/backup"
    install -m 644 "$root/packaging/quorate-backup.env" "$(files)/etc/default/quorate-backup"
    be_impatient
    printf 'ETCD_NAME=n1\n' >"$(files)/etc/default/quorate"
}

unit_is_sound() { is "" complaints; }
# The container has no manual pages.
complaints() { inside systemd-analyze verify /usr/lib/systemd/system/quorate{.service,-backup.service,-backup.timer} 2>&1 | grep -v "Command 'man" || true; }
starts() { inside systemctl start quorate; }
status_says() { property StatusText | grep -qE "$1"; }

stops_within() {
    local started ended
    started=$(date +%s%N)
    inside systemctl stop quorate
    ended=$(date +%s%N)
    echo "  stopped in $(((ended - started) / 1000000)) ms"
    [ $(((ended - started) / 1000000)) -lt "$1" ] && [ "$(property Result)" = success ]
}

prepare quorate
install_unit
boot quorate
check "systemd-analyze verify has nothing to say" unit_is_sound
check "systemctl start returns once the member serves" starts
check "it is a notify service" is notify property Type
check "it is active" is active property ActiveState
check "the unit runs as its own user" is quorate property User
check "the status line names role and term" within 10 status_says '[Ll]eader.*term|term.*[Ll]eader'
check "it serves" puts
check "a snapshot is taken when asked, and restores" backs_up
check "the timer takes them and keeps so many" timer_backs_up
check "a backup that fails is told" failed_backup_is_told
check "the member serves again" within 30 puts
check "the watchdog is fed for longer than its period" sleep 5
check "and nothing was restarted" is 0 property NRestarts
# A process that does nothing at all must be noticed; this is as stuck as a raft loop can be.
check "a stopped process is killed by the watchdog and started again" is_restarted_by inside kill -s STOP
check "the journal says so" within 10 journal_has 'Watchdog timeout'
check "the data is there" holds
check "a killed process is started again" is_restarted_by inside kill -s KILL
check "the data is there still" holds
check "systemctl stop is quick and clean" stops_within 5000
check "it starts again" starts
check "with its data" holds
summary
