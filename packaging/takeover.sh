#!/bin/sh
# Takes over what etcd has left on this machine, once, before the member starts: quorate-takeover.service runs it at each start.
# It may be run by hand, with etcd's options in the environment. Whatever fails leaves etcd's data as they were, and ends with a
# message that says what to do; the next start tries again. What a kill has interrupted is begun anew.
#   takeover                     take over what there is
#   takeover keep-environment    put etcd's file of options back if the purge of its package took it
set -eu
umask 077

target=/var/lib/quorate
# Where etcd's units run it, which is what a relative directory is relative to.
etcd_home=/var/lib/etcd
default=$etcd_home/default
conf=/etc/quorate/takeover.conf
# Stands while an import of this script is under way: the directory that is read, and the name that its member/ will get.
begun=/etc/quorate/takeover.begun
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
# After the import, when etcd's data have another name already.
fail_late() {
    say "$*"
    say "the data are in $target already, and what etcd had is beside $from/member. 'systemctl start etcd' does what is left to do"
    exit 1
}

# Debian's etcd-server takes the file with it when it is purged, and the member would go on with other addresses.
keep_environment() {
    if [ -e "$environment" ]; then
        is_copy "$environment" "$kept_environment" || copy "$environment" "$kept_environment" ||
            fail "$environment cannot be kept as $kept_environment: see that there is room and that /etc/quorate can be written to"
    elif [ -e "$kept_environment" ]; then
        copy "$kept_environment" "$environment" ||
            fail "$environment is gone, and $kept_environment cannot be put in its place: see that there is room, or copy it by hand"
        say "$environment was gone and was put back; to do without it, remove $kept_environment, too"
    fi
}

# With its owner and mode: it may hold passwords, which only its owner may read.
is_copy() { cmp -s "$1" "$2" && [ "$(stat -L --format %a:%u:%g "$1")" = "$(stat -L --format %a:%u:%g "$2")" ]; }
copy() { # FROM TO
    mkdir -p "${2%/*}" && rm -f "$2.new" && cp --preserve=mode,ownership "$1" "$2.new" && put "$2"
}
# Whole or not at all, readable for everybody.
write() { # FILE
    mkdir -p "${1%/*}" && cat >"$1.new" && chmod 644 "$1.new" && put "$1"
}
put() { sync "$1.new" && mv "$1.new" "$1" && sync "${1%/*}"; }

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

# The name that an import gives to DIR/member: the first that is free.
next_kept() {
    number=2
    next=$1/member.imported
    while [ -e "$next" ] || [ -L "$next" ]; do
        next=$1/member.imported.$number
        number=$((number + 1))
    done
    echo "$next"
}

begin() { printf '%s\n' "$from" "$(next_kept "$from")" | write "$begun"; }
begun_line() { sed -n "$1p" "$begun"; }
end() {
    [ ! -e "$begun" ] || { rm -f "$begun" && sync "${begun%/*}"; }
}

# An import of this script that was killed has left member.partial, on which no member has ever started: so etcd's data are the
# newest there are, and the fence, if it stood already, may go. Without the mark it is of something else, an interrupted restore
# for one, and etcd's data may be old.
undo_interrupted() {
    [ -e "$target/member.partial" ] && [ ! -e "$target/member" ] || return 0
    say "an import of $from was interrupted; what it has left is removed"
    kept=$(begun_line 2)
    if [ ! -d "$from/member" ] && [ -d "$kept" ]; then
        rm -f "$from/member"
        mv "$kept" "$from/member"
        sync "$from"
    fi
    rm -rf "$target/member.partial" "$target/LOCK" "$target/FORMAT" "$target/FORMAT.tmp"
    end
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

# An import wants nothing there. What is no member's is named, and only what is certainly nobody's is taken away.
check_target() {
    [ -d "$target" ] || return 0
    if [ "$(ls -A "$target")" = LOCK ] && [ ! -s "$target/LOCK" ]; then
        flock --nonblock "$target/LOCK" rm "$target/LOCK" || fail "$from was not taken over: a program uses $target: end it (fuser $target/LOCK)"
    fi
    left=$(find "$target" -mindepth 1 -maxdepth 1 -printf '%f ')
    case " $left" in
    " ") return 0 ;;
    *" member.partial "*) remedy="member.partial is of a restore or an import by hand that was interrupted: rm -r $target/member.partial, LOCK and FORMAT, too, and repeat that" ;;
    " lost+found ") remedy="rmdir $target/lost+found; mklost+found makes it again when the data are there" ;;
    *) remedy="keep what you need: systemctl stop quorate && mkdir $target.unused && mv $target/* $target.unused" ;;
    esac
    fail "$from was not taken over: $target has to be empty for it, and holds ${left% }: $remedy. Then systemctl start etcd"
}

# Members of etcd that no option names.
unnamed_members() {
    for directory in "$etcd_home" "$etcd_home"/*; do
        [ ! -d "$directory/member" ] || [ -e "$directory/FORMAT" ] || is_same "$directory" "$from" || printf '%s ' "$directory"
    done
}
# A new member beside data of etcd would be an empty cluster in the place of theirs.
check_nothing_is_there() {
    others=$(unnamed_members)
    [ -z "$others" ] || fail "$from holds no member, but there is one of etcd in ${others% }: name it in $environment as ETCD_DATA_DIR=;" \
        "or, to begin anew, move it out of $etcd_home, or write QUORATE_TAKEOVER=no and ETCD_DATA_DIR=$target there"
    case ${ETCD_DATA_DIR:-/} in
    /*) ;;
    *) [ -e "$conf" ] || fail "ETCD_DATA_DIR=$ETCD_DATA_DIR is relative, and $from holds no member: write the whole path in $environment; $target to begin anew" ;;
    esac
}

# As etcd finds it; slashes and dots that change nothing are left out, for the paths are compared.
absolute() {
    case $1 in
    /*) realpath --canonicalize-missing --no-symlinks -- "$1" ;;
    *) realpath --canonicalize-missing --no-symlinks -- "$etcd_home/$1" ;;
    esac
}

is_same() { [ "$(realpath --canonicalize-missing -- "$1")" = "$(realpath --canonicalize-missing -- "$2")" ]; }

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
    if [ -e "$begun" ]; then kept=$(begun_line 2); else kept=$(newest_kept "$from"); fi
    ln -s "$kept" "$view/member"
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
    } | write "$conf"
}

write_conf_late() { write_conf "$1" || fail_late "$conf cannot be written: see that there is room and that ${conf%/*} can be written to"; }

# One that was killed on the way has given some of it.
is_members() { others=$(find "$target" \( ! -user quorate -o ! -group quorate \) -print -quit) && [ -z "$others" ]; }
give_to_member() { is_members || chown -R quorate:quorate "$target" || fail_late "$target cannot be given to the user quorate"; }

take_over() {
    check_options
    say "taking over $from"
    begin || fail "$begun cannot be written: see that there is room and that ${begun%/*} can be written to"
    # Not in a pipe, where its failure would not count.
    if ! facts=$(quorateutl import "$from" ${wal:+--from-wal-dir "$wal"} --data-dir "$target" -w fields); then
        # It has cleared up, unless it was killed or could not.
        undo_interrupted
        [ ! -d "$from/member" ] || end
        fail "$from was not taken over, for the reason above"
    fi
    version=$(echo "$facts" | version_in)
    give_to_member
    write_conf_late "$version"
    end
    say "$from is in $target now, version ${version:-unknown}; $from/member tells the way back"
}

keep_environment
[ "${1:-}" != keep-environment ] || exit 0
[ "${QUORATE_TAKEOVER:-yes}" != no ] || exit 0
from=$(absolute "${ETCD_DATA_DIR:-$default}")
wal=${ETCD_WAL_DIR:+$(absolute "$ETCD_WAL_DIR")}
! is_same "$from" "$target" || from=$default
if [ -e "$begun" ]; then
    # First what was begun, whatever the options name by now.
    from=$(begun_line 1)
    undo_interrupted
fi
# Ours, under a name of the operator's choice.
[ ! -e "$from/FORMAT" ] || exit 0

if [ -d "$from/member" ]; then
    make_room
    [ ! -d "$target/member" ] || fail "$target and $from both hold a member, and only one may run. To take over etcd's:" \
        "systemctl stop quorate && mv $target $target.unused && systemctl start etcd. To go on with what is in $target: mv $from $from.unused"
    check_target
    take_over
elif [ -f "$from/member" ] && [ -d "$target/member" ]; then
    # Taken over. A kill may have come before the last steps.
    give_to_member
    [ -e "$conf" ] || write_conf_late "$(version_of_kept)"
    end
elif [ -f "$from/member" ] && [ -e "$target/member.partial" ]; then
    fail "the member in $from was taken over before, so what is there is old, and $target/member.partial is of a restore or an import by" \
        "hand that was interrupted: cd $target && rm -r member.partial LOCK FORMAT, and repeat that with --data-dir $target"
elif [ -f "$from/member" ]; then
    fail "the member in $from was taken over, but $target holds none: put it back; or, if this machine shall begin anew, mv $from $from.unused"
else
    [ -d "$target/member" ] || check_nothing_is_there
    # A directory of etcd's would not be writable for the member.
    case ${ETCD_DATA_DIR:+$from} in
    "$etcd_home" | "$etcd_home"/*) [ -e "$conf" ] || write_conf "" || fail "$conf cannot be written: see that there is room" ;;
    esac
fi
