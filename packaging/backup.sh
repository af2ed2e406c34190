#!/bin/sh
# Takes a snapshot of one member, checks it, and removes the oldest ones. quorate-backup.service runs it; it may be run by hand.
# Where the member is and who asks is told to quoratectl by its own variables (ETCDCTL_ENDPOINTS, ETCDCTL_CACERT, ...).
set -eu
umask 077

fail() {
    echo "quorate-backup: $*" >&2
    exit 1
}

# A number of files or days; nothing else is taken, so that a slip of the pen removes nothing.
number() { # NAME VALUE
    case $2 in
    '' | *[!0-9]*) fail "$1=$2 is no number: write a whole one, or 0 for no limit" ;;
    esac
}

directory=${BACKUP_DIR:-/var/lib/quorate-backup}
keep=${BACKUP_KEEP:-7}
keep_days=${BACKUP_KEEP_DAYS:-0}
number BACKUP_KEEP "$keep"
number BACKUP_KEEP_DAYS "$keep_days"
for program in quoratectl quorateutl; do
    command -v "$program" >/dev/null || fail "there is no $program: install the package quorate-tools"
done
mkdir -p "$directory" || fail "cannot make $directory: set BACKUP_DIR, and ReadWritePaths= of the unit"

# Two at a time would take each other's files for leftovers.
exec 9>"$directory/.lock" || fail "cannot write to $directory: set BACKUP_DIR, and ReadWritePaths= of the unit"
flock -n 9 || fail "another backup to $directory is under way"
rm -f "$directory"/quorate-*.db.new "$directory"/quorate-*.db.new.part

file=$directory/quorate-$(date -u +%Y%m%dT%H%M%SZ).db
trap 'rm -f "$file.new"' EXIT
# By itself a snapshot has no time limit, and would wait for a member that is down.
quoratectl endpoint status >/dev/null || fail "the member does not answer; those before are kept: set ETCDCTL_ENDPOINTS and what belongs to it"
quoratectl --command-timeout "${ETCDCTL_COMMAND_TIMEOUT:-50m}" snapshot save "$file.new" || fail "no snapshot was taken; those before are kept"
status=$(quorateutl snapshot status "$file.new") || fail "the snapshot is damaged and was removed; those before are kept: check the disk of $directory"
mv "$file.new" "$file"
sync "$directory"
echo "saved $file: $status"

# The oldest first: names are times. The newest stays, whatever its age.
set -- "$directory"/quorate-*.db
while [ $# -gt 1 ]; do
    if [ "$keep" -gt 0 ] && [ $# -gt "$keep" ]; then
        rm -f -- "$1"
    elif [ "$keep_days" -gt 0 ] && [ -n "$(find "$1" -mtime "+$((keep_days - 1))")" ]; then
        rm -f -- "$1"
    fi
    shift
done
