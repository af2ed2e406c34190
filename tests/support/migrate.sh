# From Debian's etcd to our packages and back, for package.sh, which sources this: a machine by itself, one whose data cannot be
# taken over yet, and a cluster under load. etcd 3.4 is Debian's package; etcd 3.5 is the same package with the programs of 3.5.1
# in it, because Debian of that release has none.

etcd_debs="$work/etcd"
clients="$target/clients"

# Outside of the test's network.
fetch_etcd() {
    ORACLE_DIR=${ORACLE_DIR:-$target/oracle} "$root/tests/clients/build.sh" "$clients" etcd_351 go_load
    [ -e "$etcd_debs/complete" ] && return
    rm -rf "$etcd_debs"
    mkdir -p "$etcd_debs/3.4" "$etcd_debs/3.5"
    (cd "$etcd_debs/3.4" && apt-get -qq -o APT::Sandbox::User=root download etcd-server etcd-client) ||
        { echo "apt has no etcd-server here: run apt-get update on Debian 12" >&2; exit 1; }
    for name in etcd-server:etcd etcd-client:etcdctl; do repack "${name%:*}" "${name#*:}"; done
    touch "$etcd_debs/complete"
}
repack() { # PACKAGE PROGRAM
    local tree="$etcd_debs/$1"
    dpkg-deb -R "$etcd_debs"/3.4/"$1"_*.deb "$tree"
    grep -q '^Version: 3\.4\.' "$tree/DEBIAN/control" || { echo "$1 of this Debian is not 3.4" >&2; exit 1; }
    sed -i 's/^Version: .*/Version: 3.5.1-1/' "$tree/DEBIAN/control"
    install -m 755 "$clients/$2-3.5.1" "$tree/usr/bin/$2"
    dpkg-deb --root-owner-group -b "$tree" "$etcd_debs/3.5" >/dev/null
    rm -r "$tree"
}

has_etcd() { # VERSION [WORD...]
    local name
    rm -rf "$(files)/root/etcd" && mkdir "$(files)/root/etcd"
    for name in server client; do cp "$etcd_debs/$1/etcd-${name}_"*.deb "$(files)/root/etcd/$name.deb"; done
    # The file of options is older than the package, and stays.
    apt install -o APT::Sandbox::User=root -o Dpkg::Options::=--force-confold --allow-downgrades /root/etcd/server.deb /root/etcd/client.deb "${@:2}"
}
takes_ours() { installs once quorate quorate-tools quorate-etcd-compat; }
server_is() { [ "$(told_version)" = "$1" ]; }
told_version() { request /version | sed -n 's/.*"etcdserver":"\([0-9]*\.[0-9]*\).*/\1/p'; }
is_ours() { is /usr/bin/etcd main_program && is quorate property User && is quorate inside readlink /usr/bin/etcd; }

# Who the member is, and what it holds: identifiers, revision and the hash of the key space.
told() {
    hash_kv | python3 -c '
import json, sys
told = json.load(sys.stdin)[0]["HashKV"]
print(*(told["header"][name] for name in ("cluster_id", "member_id", "revision")), told["hash"])'
}
# Each time with the client that is installed.
hash_kv() { inside etcdctl endpoint hashkv -w json "$@"; }
says_the_same() { is "$told" told; }
writes_history() {
    local number
    for number in $(seq 60); do
        request /v3/kv/put -d "{\"key\":\"$(printf 'k%d' $((number % 20)) | base64)\",\"value\":\"$(printf 'v%d' "$number" | base64)\"}" >/dev/null
    done
    request /v3/kv/deleterange -d '{"key":"azM="}' >/dev/null && puts && holds
}

# How long nobody answered, at the most, from here to the end of it.
start_asking() {
    touch "$work/asking"
    ask_on 9>&- >"$work/gap" 2>/dev/null &
    asker=$!
}
ask_on() {
    local last now longest=0
    last=$(date +%s%N)
    while [ -e "$work/asking" ]; do
        if request /v3/kv/range -d '{"key":"YQ=="}' | grep -q header; then
            now=$(date +%s%N)
            [ $((now - last)) -le "$longest" ] || longest=$((now - last))
            last=$now
        fi
        sleep 0.02
    done
    now=$(date +%s%N)
    echo $(((now - last > longest ? now - last : longest) / 1000000))
}
print_gap() { # WHAT
    rm -f "$work/asking"
    wait "$asker"
    echo "  $1: down for $(cat "$work/gap") ms"
    [ "$(cat "$work/gap")" -lt 60000 ]
}

# Debian's 3.4 stays installed: a 3.5 is started on its data by hand, which is what the message of a refusal asks for.
start_3_5_by_hand() {
    install -m 755 "$clients/etcd-3.5.1" "$(files)/opt/etcd-3.5"
    inside systemd-run --quiet --unit etcd-once --uid etcd --property EnvironmentFile=/etc/default/etcd --property Type=notify /opt/etcd-3.5 &&
        within 20 server_is 3.5 && within 20 cluster_is 3.5
}
cluster_is() { request /version | grep -q "\"etcdcluster\":\"$1"; }
stop_3_5() { inside systemctl stop etcd-once; }

configure_etcd() { # DATA_DIR
    printf 'ETCD_%s\n' NAME=old "DATA_DIR=$1" LISTEN_CLIENT_URLS=http://127.0.0.1:2379 ADVERTISE_CLIENT_URLS=http://127.0.0.1:2379 \
        LISTEN_PEER_URLS=http://127.0.0.1:2390 INITIAL_ADVERTISE_PEER_URLS=http://127.0.0.1:2390 INITIAL_CLUSTER=old=http://127.0.0.1:2390 \
        >"$(files)/etc/default/etcd"
}
restarts() { inside systemctl restart etcd && within 30 holds; }
environment_is_kept() { cmp -s "$work/environment" "$(files)/etc/default/etcd"; }
purges_etcd() { apt purge etcd-server etcd-client && fails inside test -e /var/lib/etcd; }
is_taken_over() { inside test -f "$1/member" && inside test -d "$1/member.imported" && inside test -d /var/lib/quorate/member; }
is_untouched() { inside test -d "$1/member/wal" && fails inside test -e "$1/member.imported" && is "" inside find /var/lib/quorate -mindepth 1; }
takeover_says() { unit=quorate-takeover journal_has "$1"; }
apt_said() { tail -n 60 "$work/apt.log" | grep -E "$1" >/dev/null; }
packages_are_consistent() { is "" inside dpkg --audit; }
# As the manual says.
hands_back() {
    inside systemctl stop etcd &&
        inside rm -rf "$1" &&
        inside quorateutl export --data-dir /var/lib/quorate --to-data-dir "$1" >/dev/null 2>"$work/export.log" &&
        inside systemd-sysusers --inline 'u etcd - "etcd" /var/lib/etcd' && inside chown -R etcd: "${1%/*}" &&
        has_etcd 3.5 quorate- quorate-etcd-compat-
}
fills_disk() { inside mount -t tmpfs -o size=300k,mode=0700 tmpfs /var/lib/quorate; }
frees_disk() { inside umount /var/lib/quorate; }
starts() { inside systemctl start etcd 2>/dev/null; }
interrupt_before_fence() {
    inside mkdir -p /var/lib/quorate/member.partial/state && inside touch /var/lib/quorate/LOCK &&
        printf '%s\n' "$1" "$1/member.imported" >"$(files)/etc/quorate/takeover.begun"
}
interrupt_behind_fence() {
    interrupt_before_fence "$1" && inside mv "$1/member" "$1/member.imported" && inside sh -c "echo handed on >$1/member"
}

migrate_alone() {
    local data=/var/lib/etcd/data
    prepare migrate
    be_impatient
    boot migrate
    check "Debian's etcd-server is installed" has_etcd 3.4
    configure_etcd "$data"
    check "it starts with its file" inside systemctl restart etcd
    check "it is 3.4 and serves" server_is 3.4
    check "keys are written" writes_history
    told=$(told)
    inside systemctl stop etcd
    check "a 3.5 is started on them once" start_3_5_by_hand
    check "it holds the same" says_the_same
    cp "$(files)/etc/default/etcd" "$work/environment"
    start_asking
    stop_3_5
    check "our packages take its place" takes_ours
    check "the member serves as etcd.service" within 30 holds
    check "who it is and what it holds is the same" says_the_same
    check "there and back, there" print_gap "3.5 to ours"
    check "it is ours, with a user and a directory of its own" is_ours
    check "the old directory is fenced" is_taken_over "$data"
    check "the cluster stays at 3.5" cluster_is 3.5
    check "Debian's packages are purged, with their data" purges_etcd
    check "the file of options outlives it" environment_is_kept
    check "systemctl restart etcd works" restarts
    check "it still is the same" says_the_same
    check "packages are consistent" packages_are_consistent
    puts
    told=$(told)
    start_asking
    check "the member is exported, and a package of 3.5 installed" hands_back "$data"
    check "etcd serves" within 30 server_is 3.5
    check "who it is and what it holds is the same" says_the_same
    check "and back" print_gap "ours to 3.5"
    check "with the same file" environment_is_kept
    puts
    told=$(told)

    check "a full disk" fills_disk
    takes_ours || true
    check "is told while apt runs" apt_said 'No space left on device'
    check "and changes nothing" is_untouched "$data"
    check "packages are consistent" packages_are_consistent
    frees_disk
    check "an import that was killed before the fence" interrupt_before_fence "$data"
    check "is begun anew" starts
    check "with everything" says_the_same
}

# Data of 3.4 are refused with what to do, and so is everything else that an administrator can put right.
migrate_refused() {
    local data=/var/lib/etcd/default
    prepare refused
    be_impatient
    boot refused
    has_etcd 3.4
    configure_etcd "$data"
    inside systemctl restart etcd
    check "a machine of 3.4 has data" writes_history
    told=$(told)
    check "our packages take its place" takes_ours
    check "and say what to do with data of 3.4" apt_said 'start it once with etcd 3.5'
    check "which are untouched" is_untouched "$data"
    check "packages are consistent" packages_are_consistent
    check "a 3.5 is started on them once" start_3_5_by_hand
    check "as long as it runs, ours does not begin" fails starts
    check "and says so" takeover_says 'in use by another process'
    check "what was untouched still is" is_untouched "$data"
    stop_3_5
    install -m 600 /dev/null "$(files)/etc/etcd.key"
    echo ETCD_KEY_FILE=/etc/etcd.key >>"$(files)/etc/default/etcd"
    check "with a key that it cannot read it does not begin" fails starts
    check "and says which" takeover_says 'cannot read /etc/etcd.key: setfacl'
    sed -i /KEY_FILE/d "$(files)/etc/default/etcd"
    sed -i 's/^ETCD_NAME/DAEMON_ARGS=--data-dir=\/x\n&/' "$(files)/etc/default/etcd"
    check "nor with a directory on the command line" fails starts
    check "and says where to name it" takeover_says 'write them as ETCD_DATA_DIR='
    sed -i /DAEMON_ARGS/d "$(files)/etc/default/etcd"
    check "an import that was killed behind the fence" interrupt_behind_fence "$data"
    check "is begun anew" starts
    check "with everything" says_the_same
    check "and taken over once" is_taken_over "$data"
    check "a later start takes over nothing" restarts
    check "everything is there" says_the_same
}

host_file() { # NUMBER
    local address="10.5.12.$((15 + $1))" cluster=
    for number in 1 2 3; do cluster+="${cluster:+,}host$number=http://10.5.12.$((15 + number)):2380"; done
    printf 'ETCD_%s\n' "NAME=host$1" DATA_DIR=/var/lib/etcd/default LISTEN_CLIENT_URLS=http://0.0.0.0:2379 \
        "ADVERTISE_CLIENT_URLS=http://$address:2379" "LISTEN_PEER_URLS=http://$address:2380" \
        "INITIAL_ADVERTISE_PEER_URLS=http://$address:2380" "INITIAL_CLUSTER=$cluster" >"$(files)/etc/default/etcd"
}
set_up_host() { # NUMBER
    prepare "host$1"
    be_impatient
    connect "host$1" "10.5.12.$((15 + $1))"
    boot "host$1" --network-namespace-path="/run/netns/host$1"
    forbid_starts
    has_etcd 3.5
    allow_starts
    host_file "$1"
    inside systemctl start --no-block etcd
}
serves_all() { for number in 1 2 3; do on "host$number" holds || return 1; done; }
start_go_load() {
    touch "$work/loading" "$work/acknowledged"
    "$clients/go-load" "$endpoints" "$work/loading" "$work/acknowledged" >"$work/load.json" 2>"$work/load.log" 9>&- &
    loader=$!
    within 20 has_written 100
}
# Every member is asked by itself for the same revision: equal hashes are equal histories.
hashes_are_equal() {
    local revision
    revision=$(on host1 told | cut -d ' ' -f 3)
    is 1 count_hashes "$revision"
}
count_hashes() { for number in 1 2 3; do on "host$number" hash_at "$1"; done | sort -u | wc -l; }
hash_at() { # REVISION
    within 20 is_at "$1" && hash_kv --rev "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["HashKV"]["hash"])'
}
is_at() { [ "$(told | cut -d ' ' -f 3)" -ge "$1" ]; }
member_id() { told | cut -d ' ' -f 1,2; }
switch_member() { # WHAT COMMAND...
    before=$(member_id)
    start_asking
    check "$machine: $1" "${@:2}"
    check "it serves" within 60 holds
    print_gap "$machine, $1"
    check "it is the same member" is "$before" member_id
    check "writes go on" goes_on_writing
    check "all have the same" hashes_are_equal
}
# Of the load: nothing lost, nothing given up, and no write that was tried more than twice.
load_is_content() {
    stop_load
    echo "  load: $(cat "$work/load.json")"
    python3 -c '
import json, sys
seen = json.load(open(sys.argv[1]))
assert seen["puts"] > 1000 and seen["missing"] == 0 and seen["failed"] == 0 and seen["attempts"] <= 2, seen' "$work/load.json"
}

# Member by member, under load, so that etcd and ours make up a cluster meanwhile.
migrate_cluster() {
    endpoints=http://10.5.12.16:2379,http://10.5.12.17:2379,http://10.5.12.18:2379
    make_network
    ip addr add 10.5.12.1/24 dev br0
    for number in 1 2 3; do set_up_host "$number"; done
    check "three machines with etcd 3.5 form a cluster" within 60 puts
    check "all of them serve" within 20 serves_all
    check "keys are written all the time" start_go_load
    for host in host1 host2 host3; do machine=$host; switch_member "etcd to ours" takes_ours; done
    for host in host1 host2 host3; do machine=$host; switch_member "ours to etcd" hands_back /var/lib/etcd/default; done
    check "all are etcd 3.5 again" each_is_3_5
    check "no acknowledged write is lost, and no client saw more than a retry" load_is_content
}
each_is_3_5() { for number in 1 2 3; do on "host$number" server_is 3.5 || return 1; done; }

test_migrate() {
    : >"$work/apt.log"
    for story in ${MIGRATE_STORIES:-alone refused cluster}; do "migrate_$story"; done
}
