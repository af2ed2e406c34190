#!/bin/sh
# Takes a snapshot of one member, checks it, and removes the oldest ones. quorate-backup.service runs it; it may be run by hand.
# Where the member is and who asks is told to quoratectl by its own variables (ETCDCTL_ENDPOINTS, ETCDCTL_CACERT, ...).
set -eu
umask 077

fail() {
    echo "quorate-backup: $*" >&2
    exit 1
}

# A number of files or days, without leading zeros, which would make it octal. Nothing else is taken, so that a slip of the pen
# removes nothing.
number() { # NAME VALUE
    case $2 in
    '' | *[!0-9]*) fail "$1=$2 is no number: write a whole one, or 0 for no limit" ;;
    esac
    digits=${2#"${2%%[!0]*}"}
    [ ${#digits} -le 9 ] || fail "$1=$2 is too large: write at most nine digits, or 0 for no limit"
    echo "${digits:-0}"
}

directory=${BACKUP_DIR:-/var/lib/quorate-backup}
keep=$(number BACKUP_KEEP "${BACKUP_KEEP:-7}")
keep_days=$(number BACKUP_KEEP_DAYS "${BACKUP_KEEP_DAYS:-0}")
for program in quoratectl quorateutl; do
    command -v "$program" >/dev/null || fail "there is no $program: install the package quorate-tools"
done
mkdir -p "$directory" || fail "cannot make $directory: set BACKUP_DIR, and ReadWritePaths= of the unit"

# Two at a time would take each other's files for leftovers. An `exec` that fails ends the shell, whatever follows it.
(: >>"$directory/.lock") || fail "cannot write to $directory: set BACKUP_DIR, and ReadWritePaths= of the unit"
exec 9>>"$directory/.lock"
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

# The oldest first: names are times. Names later than that of now are of a clock that was ahead, or this one is behind: which are
# the newest, nobody knows, so they are neither counted nor removed.
set -- "$directory"/quorate-[0-9]*T[0-9]*Z.db
count=0
for path in "$@"; do
    count=$((count + 1))
    [ "$path" != "$file" ] || break
done
if [ $# -gt "$count" ]; then
    echo "quorate-backup: $(($# - count)) files in $directory have names in the future, and are neither counted nor removed:" \
        "see that the clock is right, and move them away when you do not need them" >&2
fi
# The one just taken stays, whatever its age.
while [ "$count" -gt 1 ]; do
    if [ "$keep" -gt 0 ] && [ "$count" -gt "$keep" ]; then
        rm -f -- "$1"
    elif [ "$keep_days" -gt 0 ] && [ -n "$(find "$1" -mtime "+$((keep_days - 1))")" ]; then
        rm -f -- "$1"
    fi
    shift
    count=$((count - 1))
done
