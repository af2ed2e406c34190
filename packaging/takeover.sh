#!/bin/sh
# Takes over what etcd has left on this machine, once, before the member starts: quorate-takeover.service runs it at each start.
# It may be run by hand, with etcd's options in the environment. Whatever fails leaves etcd's data as they were, and ends with a
# message that says what to do; the next start tries again. What a kill has interrupted is begun anew.
#   takeover                     take over what there is
#   takeover keep-environment    put etcd's file of options back if the purge of its package took it
set -eu
umask 077

target=/var/lib/quorate
default=/var/lib/etcd/default
conf=/etc/quorate/takeover.conf
environment=/etc/default/etcd
kept_environment=/etc/quorate/etcd.default
# So many stays of a member under /var/lib/quorate are kept.
stays_max=100

say() { echo "quorate-takeover: $*" >&2; }
fail() {
    say "$*"
    say "what etcd has left was not changed. See journalctl -u quorate-takeover; 'systemctl start etcd' tries again"
    exit 1
}

# Debian's etcd-server takes the file with it when it is purged, and the member would go on with other addresses.
keep_environment() {
    if [ -e "$environment" ]; then
        cmp -s "$environment" "$kept_environment" || replace "$kept_environment" <"$environment"
    elif [ -e "$kept_environment" ]; then
        replace "$environment" <"$kept_environment"
        say "$environment was gone and was put back; to do without it, remove $kept_environment, too"
    fi
}

# Whole or not at all, readable for everybody as files of options are.
replace() {
    mkdir -p "${1%/*}"
    cat >"$1.new"
    chmod 644 "$1.new"
    sync "$1.new"
    mv "$1.new" "$1"
}

# The newest of DIR/member.imported, member.imported.2, ...: the newest has the highest number.
newest_kept() {
    number=2
    newest=$1/member.imported
    while [ -e "$1/member.imported.$number" ]; do
        newest=$1/member.imported.$number
        number=$((number + 1))
    done
    [ -d "$newest" ] && echo "$newest"
}

# An import that was killed has left member.partial, on which no member has ever started: so etcd's data are the newest there
# are, and the fence, if it stood already, may go.
undo_interrupted() {
    [ -e "$target/member.partial" ] && [ ! -e "$target/member" ] || return 0
    say "an import was interrupted and is begun anew"
    if [ ! -d "$from/member" ] && kept=$(newest_kept "$from"); then
        rm -f "$from/member"
        mv "$kept" "$from/member"
    fi
    rm -rf "$target/member.partial" "$target/LOCK" "$target/FORMAT"
}

# A member that was exported to etcd has left a file in the place of its data. Etcd's are newer now.
make_room() {
    [ -f "$target/member" ] || return 0
    number=1
    while [ -e "$target.exported.$number" ]; do number=$((number + 1)); done
    [ "$number" -le "$stays_max" ] || fail "there are $stays_max directories $target.exported.N: remove old ones"
    mv "$target" "$target.exported.$number" || fail "$target holds an earlier stay of this member and cannot be renamed: empty it"
    mkdir "$target"
    say "the data of an earlier stay are in $target.exported.$number; remove them when you want"
}

# Options that name directories have to be where this script sees them.
check_options() {
    case " ${DAEMON_ARGS:-} " in
    *[\ -]-data-dir* | *[\ -]-wal-dir* | *[\ -]-config-file*)
        fail "DAEMON_ARGS names directories or a file of options: write them as ETCD_DATA_DIR=, ETCD_WAL_DIR= and so on in $environment"
        ;;
    esac
    [ -z "${ETCD_CONFIG_FILE:-}" ] || fail "ETCD_CONFIG_FILE=$ETCD_CONFIG_FILE stands alone, its data-dir included: take the data over with" \
        "quorateutl import, name the new directory there, and set QUORATE_TAKEOVER=no in $environment"
    env | sed -n 's/^ETCD_[A-Z_]*_FILE=\(.\)/\1/p' | while read -r file; do
        [ ! -e "$file" ] || setpriv --reuid=quorate --regid=quorate --init-groups test -r "$file" ||
            fail "the user quorate cannot read $file: setfacl -m u:quorate:r $file, or chgrp quorate and chmod g+r, with the directories above it"
    done
}

# The version of the cluster, X.Y, out of what `import` prints.
version_in() { sed -n 's/^"Version" : \([0-9]*\.[0-9]*\).*/\1/p'; }
# That of data that were taken over before it could be written down.
version_of_kept() {
    view=$(mktemp -d)
    ln -s "$(newest_kept "$from")" "$view/member"
    quorateutl import "$view" ${wal:+--from-wal-dir "$wal"} --check -w fields 2>/dev/null | version_in || true
    rm -rf "$view"
}

write_conf() { # VERSION
    {
        echo "# Written when the data in $from were taken over; the member reads it after etcd's files."
        echo "ETCD_DATA_DIR=/var/lib/quorate"
        [ -z "$wal" ] || echo "ETCD_WAL_DIR="
        if [ -n "$1" ]; then
            echo "# Keeps the cluster at this version, and the way back to that etcd open. Without it the cluster rises to 3.7 as"
            echo "# soon as no member holds it back."
            echo "ETCD_COMPAT_VERSION=$1"
        fi
    } | replace "$conf"
}

give_to_member() { chown -R quorate:quorate "$target"; }

take_over() {
    check_options
    say "taking over $from"
    # Not in a pipe, where its failure would not count.
    facts=$(quorateutl import "$from" ${wal:+--from-wal-dir "$wal"} --data-dir "$target" -w fields) ||
        fail "$from was not taken over, for the reason above"
    version=$(echo "$facts" | version_in)
    give_to_member
    write_conf "$version"
    say "$from is in $target now, version ${version:-unknown}; $from/member tells the way back"
}

keep_environment
[ "${1:-}" != keep-environment ] || exit 0
[ "${QUORATE_TAKEOVER:-yes}" != no ] || exit 0
from=${ETCD_DATA_DIR:-$default}
[ "$from" != "$target" ] || from=$default
wal=${ETCD_WAL_DIR:-}
undo_interrupted
# Ours, under a name of the operator's choice.
[ ! -e "$from/FORMAT" ] || exit 0

if [ -d "$from/member" ]; then
    make_room
    [ ! -d "$target/member" ] || fail "$target and $from both hold a member, and only one may run. To take over etcd's:" \
        "systemctl stop quorate && mv $target $target.unused && systemctl start etcd. To go on with what is in $target: mv $from $from.unused"
    take_over
elif [ -f "$from/member" ] && [ -d "$target/member" ]; then
    # Taken over. A kill may have come before the last steps.
    [ "$(stat --format %U "$target/member")" = quorate ] || give_to_member
    [ -e "$conf" ] || write_conf "$(version_of_kept)"
elif [ -f "$from/member" ]; then
    fail "the member in $from was taken over, but $target holds none: put it back; or, if this machine shall begin anew, mv $from $from.unused"
elif [ ! -e "$conf" ]; then
    # Nothing is there. A directory of etcd's would not be writable for the member.
    case ${ETCD_DATA_DIR:-} in /var/lib/etcd | /var/lib/etcd/*) write_conf "" ;; esac
fi
