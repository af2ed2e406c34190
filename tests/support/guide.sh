#!/bin/bash
# Deploys a cluster as the deployment guide says, letter by letter, on three machines of a network of their own: its unit, its
# files, its commands, with our programs at /opt/kubernetes/bin. Then the guide's command line, typed by hand, in its place.
# Usage: tests/support/guide.sh TARGET [BIN_DIR]
set -euo pipefail

target=${1:?usage: guide.sh TARGET [BIN_DIR]}
programs=$(realpath "${2:-$target/release}")
work="$target/systemd"
unit=etcd
. "$(dirname "$0")/container.sh"
enter "$@"

hosts=(etcd1 etcd2 etcd3)
endpoints=http://10.5.12.16:2379,http://10.5.12.17:2379,http://10.5.12.18:2379
# What the guide's names, addresses and token come to.
members="\
4af0ee06790807a3, started, etcd3, http://10.5.12.18:2380, http://10.5.12.18:2379, false
a86aa10cb167174d, started, etcd2, http://10.5.12.17:2380, http://10.5.12.17:2379, false
db71a9afbf54c17a, started, etcd1, http://10.5.12.16:2380, http://10.5.12.16:2379, false"

deploy() { # NUMBER
    prepare "etcd$1"
    install -D -m 755 "$programs/quorate" "$(files)/opt/kubernetes/bin/etcd"
    install -D -m 755 "$programs/quoratectl" "$(files)/opt/kubernetes/bin/etcdctl"
    mkdir -p "$(files)/opt/kubernetes/cfg" "$(files)/var/lib/etcd"
    of_host "$1" etcd.conf >"$(files)/opt/kubernetes/cfg/etcd.conf"
    install -m 644 "$root/tests/guide/etcd.service" "$(files)/usr/lib/systemd/system/etcd.service"
    connect "etcd$1" "10.5.12.$((15 + $1))"
    start_machine "etcd$1"
}

start_machine() { boot "$1" --network-namespace-path="/run/netns/$1"; }
ctl() { inside /opt/kubernetes/bin/etcdctl --endpoints "$endpoints" --command-timeout 10s "$@"; }
member_list() { ctl member list; }
everywhere() { for host in "${hosts[@]}"; do on "$host" "$@" || return 1; done; }

files_are_the_guides() {
    diff "$root/tests/guide/etcd.conf" <(on etcd1 inside cat /opt/kubernetes/cfg/etcd.conf) &&
        everywhere cmp -s "$root/tests/guide/etcd.service" "$(files)/usr/lib/systemd/system/etcd.service"
}
starts_without_waiting() { inside systemctl daemon-reload && inside systemctl start --no-block etcd; }
starts() { inside systemctl daemon-reload && inside systemctl start etcd; }
state_is() { [ "$(property ActiveState)" = "$1" ]; }
enables() { inside systemctl enable etcd 2>/dev/null && is enabled inside systemctl is-enabled etcd; }
is_waiting() { within 10 journal_has 'waiting for a leader' && is activating property ActiveState && fails puts 2>/dev/null; }
shown_by_ps() { inside ps -C etcd -o args=; }
workers() { cat /proc/"$(pgrep --ns "${init_of[$machine]}" --nslist pid -x etcd)"/task/*/comm | grep -c '^worker$'; }
all_are_healthy() { ctl endpoint health && [ "$(ctl endpoint health 2>&1 | grep -c 'is healthy')" = 3 ]; }
log_is_json() { inside journalctl --no-pager -t etcd -t bash -o cat | python3 -c '
import json, sys
records = [json.loads(line) for line in sys.stdin]
assert len(records) > 20 and all({"level", "ts", "caller", "msg"} <= record.keys() for record in records), len(records)'; }
put_key() { is OK ctl put "$1" "$2"; }
everyone_has() {
    for endpoint in ${endpoints//,/ }; do
        is "$2" inside /opt/kubernetes/bin/etcdctl --endpoints "$endpoint" get "$1" --print-value-only || return 1
    done
}
serves_again() { within 60 state_is active && within 30 put_key back "$machine" && is "$machine" ctl get back --print-value-only; }

start_over() {
    everywhere inside systemctl stop etcd
    everywhere inside systemctl disable etcd 2>/dev/null
    everywhere inside rm -rf /data/etcd
}
type_command() { # NUMBER
    on "etcd$1" inside env -i --chdir=/var/lib/etcd $(of_host "$1" command) >"$work/machines/etcd$1/by-hand.log" 2>&1 </dev/null 9>&- &
}
by_hand() {
    for number in 1 2 3; do type_command "$number"; done
    machine=etcd1
    within 30 all_are_healthy >/dev/null 2>&1
}

make_network
for number in 1 2 3; do deploy "$number"; done
machine=etcd1
check "unit and file are the guide's, letter by letter" files_are_the_guides
check "the first member starts alone" starts_without_waiting
check "and is not active as long as it has no quorum" is_waiting
check "the second starts, and systemctl returns" on etcd2 starts
check "the first is active now" within 30 state_is active
check "the third starts" on etcd3 starts
check "all are enabled" everywhere enables
check "all are healthy" within 10 all_are_healthy
check "the members are the guide's" is "$members" member_list
check "ps shows /opt/kubernetes/bin/etcd" is /opt/kubernetes/bin/etcd shown_by_ps
check "GOMAXPROCS is the number of worker threads" is "$(nproc)" workers
check "and the log explains it" journal_has "GOMAXPROCS=$(nproc)"
check "the journal has one JSON record a line" everywhere log_is_json
check "a key is written" put_key guide 1
check "and read from everyone" everyone_has guide 1
check "one machine is switched off" power_off
machine=etcd2
check "the others go on" put_key guide 2
check "it boots" start_machine etcd1
check "its member starts by itself and serves" serves_again
machine=etcd3
check "another loses power" cut_power
machine=etcd1
check "the others go on" put_key guide 3
check "it boots again" start_machine etcd3
check "its member starts by itself and serves" serves_again
check "everyone has the last value" everyone_has guide 3
start_over
check "the guide's command line, typed by hand, forms a cluster" by_hand
check "it is the same cluster" is "$members" member_list
check "ps shows the command line" is "$(of_host 1 command)" shown_by_ps
check "it serves" put_key guide 4
summary
