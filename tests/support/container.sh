# Machines with a real systemd, for tests that are sourcing this: Debian booted in containers, as root.
# The caller sets `work`, a directory for all of this, calls `enter "$@"`, then `prepare NAME` and `boot NAME` for each machine.
# All machines share one Debian tree, made by debootstrap once and kept; what one writes goes into a layer of its own, emptied
# by `prepare`. Mounts and networks live in namespaces of the test, so that nothing of them is left behind.
# Commands name no machine: they mean the one in `machine`, and `on NAME COMMAND...` chooses another for one command.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
declare -A nspawn_of init_of
machine=
passed=0 failed=0

# Starts the calling script again as root, in mount and network namespaces of its own, once the tree is there.
enter() {
    [ "$(id -u)" = 0 ] || exec sudo --preserve-env=PATH "$0" "$@"
    if [ -z "${IN_NAMESPACES:-}" ]; then
        mkdir -p "$work"
        exec 9>"$work/lock"
        flock 9
        make_tree
        IN_NAMESPACES=1 exec unshare --mount --net --propagation private "$0" "$@"
    fi
    trap shut_down EXIT
}

make_tree() {
    [ -e "$work/complete" ] && return
    echo "debootstrap into $work/tree"
    rm -rf "$work/tree"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,curl,procps \
        "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$work/tree" >"$work/debootstrap.log" 2>&1 ||
        { tail -n 5 "$work/debootstrap.log" >&2; exit 1; }
    touch "$work/complete"
}

# A fresh layer over the tree; the machine's files are then under $(files).
prepare() {
    machine=$1
    local layer="$work/machines/$machine"
    rm -rf "$layer"
    mkdir -p "$layer"/{upper,work,files}
    mount -t overlay -o "lowerdir=$work/tree,upperdir=$layer/upper,workdir=$layer/work" overlay "$layer/files"
    printf '127.0.0.1 localhost\n' >"$(files)/etc/hosts"
    printf '%s\n' "$machine" >"$(files)/etc/hostname"
}

files() { echo "$work/machines/$machine/files"; }
on() {
    local machine=$1
    shift
    "$@"
}

# Boots a machine; options of systemd-nspawn may follow, such as the network it lives in.
boot() {
    machine=$1
    shift
    [ $# -gt 0 ] || set -- --private-network
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn --quiet --keep-unit --register=no --boot "$@" \
        --machine="$machine-$$" -D "$(files)" >"$work/machines/$machine/console.log" 2>&1 </dev/null 9>&- &
    nspawn_of[$machine]=$!
    within 180 runs || { tail -n 20 "$work/machines/$machine/console.log" >&2; exit 1; }
}

# A bridge, which is a network of the test's own.
make_network() {
    mkdir -p /run/netns
    mount -t tmpfs netns /run/netns
    ip link add br0 type bridge
    ip link set br0 up
}

# A cable from the bridge to the machine, which has its address before it boots, as one with a static address has.
connect() { # NAME ADDRESS
    ip netns add "$1"
    ip link add "$1" type veth peer name host0 netns "$1"
    ip link set "$1" master br0 up
    ip -n "$1" addr add "$2/24" dev host0
    ip -n "$1" link set host0 up
    ip -n "$1" link set lo up
}

runs() {
    init_of[$machine]=$(pgrep -P "${nspawn_of[$machine]}" | head -n 1)
    [ -n "${init_of[$machine]}" ] && inside systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded'
}

inside() { nsenter --target "${init_of[$machine]}" --mount --uts --ipc --net --pid --root --wdns=/ -- "$@"; }
ended() { ! kill -0 "${nspawn_of[$machine]}" 2>/dev/null; }

# As `machinectl poweroff` does: a signal that asks the machine's systemd.
power_off() {
    kill -s RTMIN+4 "${init_of[$machine]}"
    within 60 ended || return 1
    wait "${nspawn_of[$machine]}" 2>/dev/null || true
    unset "nspawn_of[$machine]"
}

# As if somebody pulled the plug.
cut_power() {
    kill -KILL "${init_of[$machine]}"
    within 20 ended || kill -KILL "${nspawn_of[$machine]}"
    wait "${nspawn_of[$machine]}" 2>/dev/null || true
    unset "nspawn_of[$machine]"
}

shut_down() {
    for machine in "${!nspawn_of[@]}"; do cut_power; done
}

# Tries a command every 100 ms for so many seconds.
within() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}

# check NAME COMMAND...: one line for each; after a failure, what the unit under test said.
check() {
    if "${@:2}"; then
        passed=$((passed + 1))
        echo "ok      $1"
    else
        failed=$((failed + 1))
        echo "FAILED  $1"
        [ -z "${nspawn_of[${machine:-none}]:-}" ] || inside journalctl --no-pager --lines 15 --unit "${unit:-quorate}" || true
    fi
}

summary() {
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ]
}

# is EXPECTED COMMAND...: whether the command prints that.
is() {
    local got
    got=$("${@:2}") || true
    [ "$got" = "$1" ] || { echo "  expected '$1', got '$got'"; return 1; }
}
fails() { ! "$@"; }
mode_of() { inside stat --format '%a %U:%G' "$1"; }
property() { inside systemctl show "${unit:-quorate}" --value --property "$1"; }
request() { inside curl --silent --max-time 10 "http://127.0.0.1:2379$1" "${@:2}"; }
puts() { request /v3/kv/put -d '{"key":"YQ==","value":"MQ=="}' | grep -q revision; }
holds() { request /v3/kv/range -d '{"key":"YQ=="}' | grep -q '"value":"MQ=="'; }
# Not `grep -q`: who is not heard to the end has failed.
journal_has() { inside journalctl --no-pager --unit "${unit:-quorate}" | grep -E "$1" >/dev/null; }
is_alive_again() { [ "$(property NRestarts)" -gt "$1" ] && [ "$(property ActiveState)" = active ] && request /health | grep -q true; }

# is_restarted_by COMMAND PID...: whether the unit is alive again after what the command does to its process.
is_restarted_by() {
    local before pid
    before=$(property NRestarts)
    pid=$(property MainPID)
    [ "$pid" != 0 ] || return 1
    "$@" "$pid" || return 1
    within 30 is_alive_again "$before"
}

# The watchdog of the unit is patient; a test is not.
be_impatient() {
    mkdir -p "$(files)/etc/systemd/system/quorate.service.d"
    printf '[Service]\nWatchdogSec=3s\nRestartSec=100ms\n' >"$(files)/etc/systemd/system/quorate.service.d/test.conf"
}

# The deployment guide's file or command line, which are its first host's, for its host NUMBER.
of_host() { # NUMBER FILE
    local first='etcd1=http:\/\/10.5.12.16'
    sed -e "s/$first/@/" -e "s/etcd1/etcd$1/" -e "s/10\.5\.12\.16/10.5.12.$((15 + $1))/g" -e "s/@/$first/" "$root/tests/guide/$2"
}

# Backups: the timer starts what makes a file that restores, and is off until it is turned on. The unit runs on its own, too.
backs_up() {
    local snapshots
    fails inside systemctl is-enabled quorate-backup.timer >/dev/null 2>&1 && inside systemctl start quorate-backup.service &&
        is "700 quorate:quorate" mode_of /var/lib/quorate-backup && snapshots=$(snapshots) && [ -n "$snapshots" ] &&
        is "600 quorate:quorate" mode_of "$snapshots" && inside quorateutl snapshot restore "$snapshots" --data-dir /root/restored >/dev/null 2>&1 &&
        inside rm -r /root/restored
}
snapshots() { inside find /var/lib/quorate-backup -name '*.db'; }
timer_backs_up() {
    local unit=quorate-backup.timer before
    before=$(snapshots)
    inside mkdir -p /etc/systemd/system/$unit.d
    printf '[Timer]\nOnCalendar=*:*:0/2\nRandomizedDelaySec=0\nAccuracySec=100ms\n' >"$(files)/etc/systemd/system/$unit.d/soon.conf"
    echo BACKUP_KEEP=2 >>"$(files)/etc/default/quorate-backup"
    inside systemctl daemon-reload && inside systemctl enable --now $unit 2>/dev/null && within 30 is_gone_from_backups "$before" &&
        [ "$(snapshots | wc -l)" -le 3 ] && inside systemctl disable --now $unit 2>/dev/null &&
        fails inside systemctl is-failed quorate-backup.service >/dev/null
}
is_gone_from_backups() { [ -n "$(snapshots)" ] && fails inside test -e "$1"; }
# Nobody answers: the unit fails, says so, and what is there stays.
failed_backup_is_told() {
    local before
    before=$(snapshots)
    inside systemctl stop quorate && fails inside systemctl start quorate-backup.service 2>/dev/null && is "$before" snapshots &&
        inside journalctl -u quorate-backup --no-pager -o cat | grep 'those before are kept' >/dev/null &&
        inside systemctl reset-failed quorate-backup.service && inside systemctl start quorate
}
