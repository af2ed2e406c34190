#!/bin/bash
# Makes the packages, twice, and does with them what administrators do: on Debian with apt, under a real systemd, and with rpm
# in a root of its own.
# Usage: tests/support/package.sh TARGET [BIN_DIR]
# Everything happens in containers without a network; nothing outside TARGET is written.
set -euo pipefail

target=${1:?usage: package.sh TARGET [BIN_DIR]}
programs=$(realpath "${2:-$target/release}")
work="$target/systemd"
packages="$work/packages"
parts=${PACKAGE_TESTS:-packages debian compat rpm migrate}
. "$(dirname "$0")/container.sh"
. "$(dirname "$0")/migrate.sh"

# Each kind twice, and the Debian packages of a higher version.
make_packages() {
    rm -rf "$packages"
    case $parts in
    migrate*) "$root/packaging/build.sh" deb "$programs" "$packages/once" && return ;;
    esac
    for place in once again; do
        for kind in deb rpm; do "$root/packaging/build.sh" "$kind" "$programs" "$packages/$place"; done
    done
    "$root/packaging/build.sh" deb "$programs" "$packages/higher" 99.0.0
}
if [ -z "${IN_NAMESPACES:-}" ]; then
    make_packages
    case $parts in *migrate*) mkdir -p "$work" && fetch_etcd ;; esac
fi
enter "$@"

# The packages themselves.
are_the_same_bytes() { diff -r "$packages/once" "$packages/again" && [ "$(find "$packages/once" -type f | wc -l)" = 6 ]; }
lintian_is_content() { lintian --allow-root --tag-display-limit 0 --fail-on error,warning "$packages"/once/*.deb; }
rpmlint_is_content() {
    ! command -v rpmlint >/dev/null || rpmlint --config "$root/packaging/rpm/rpmlint.toml" "$packages"/once/*.rpm
}
samples_are_the_programs() {
    ends_with "$1" <("$programs/quorate" config sample --format env) &&
        ends_with "$(files)/etc/quorate/quorate.toml" <("$programs/quorate" config sample --format toml)
}
ends_with() {
    local end
    end=$(cat "$2")
    [ "${#end}" -gt 1000 ] && [[ $(cat "$1") == *"$end" ]]
}

# Debian.
apt() { inside env DEBIAN_FRONTEND=noninteractive apt-get -qq -y "$@" >>"$work/apt.log" 2>&1 || { tail -n 20 "$work/apt.log"; false; }; }
offer() { rm -rf "$(files)/root/debs" && cp -r "$packages/$1" "$(files)/root/debs"; }
installs() { # PLACE NAME...
    local name debs=()
    offer "$1"
    for name in "${@:2}"; do debs+=("/root/debs/$(cd "$packages/$1" && echo "$name"_*.deb)"); done
    apt install "${debs[@]}"
}
package_is() { inside dpkg-query --show --showformat '${db:Status-Abbrev}' "$1" 2>/dev/null | grep -q "^$2"; }
state_is() { [ "$(property ActiveState)" = "$1" ]; }
unit_is_sound() { is "" complaints; }
# The container has no manual pages.
complaints() {
    inside systemd-analyze verify /usr/lib/systemd/system/quorate{,@,-proxy,-discovery,-backup}.service /usr/lib/systemd/system/quorate-backup.timer /usr/share/doc/quorate/examples/quorate.socket 2>&1 |
        grep -v "Command 'man" || true
}
exposure() { inside systemd-analyze security --no-pager "$1" | sed -n 's/.*exposure level for .*: \([0-9.]*\) .*/\1/p'; }
stated_exposure() { sed -n 's/.*systemd-analyze security.* says \([0-9.]*\):.*/\1/p' "$root/packaging/quorate.service"; }
is_hardened() { is "$(stated_exposure)" exposure quorate-discovery && is "$(stated_exposure)" exposure quorate-backup && is "$(stated_exposure)" exposure quorate && is "$(stated_exposure)" exposure quorate@n1 && [[ $(stated_exposure) == [01].* ]]; }

# The guide's file, with its address on this machine and nobody else in the cluster, and its data directory.
configure_as_the_guide() {
    nsenter --target "${init_of[$machine]}" --net ip addr add 10.5.12.16/24 dev lo
    inside systemctl stop quorate
    sed '/^ETCD_INITIAL_CLUSTER=/s/,.*/"/' "$root/tests/guide/etcd.conf" >"$(files)/etc/default/quorate"
    inside install -d -m 700 -o quorate -g quorate /data/etcd
    inside cp /usr/share/doc/quorate/examples/data-dir.conf /etc/systemd/system/quorate.service.d/
    inside systemctl daemon-reload
    inside quorate config check --env-file /etc/default/quorate
}
serves_once_active() {
    inside systemctl start --no-block quorate
    within 30 state_is active && puts
}
log_is_json() { inside journalctl --no-pager -t quorate -t etcd -o cat | python3 -c '
import json, sys
records = [json.loads(line) for line in sys.stdin]
assert len(records) > 20 and all({"level", "ts", "caller", "msg"} <= record.keys() for record in records), len(records)'; }
reloads() {
    local pid
    pid=$(property MainPID)
    inside systemctl reload quorate && is "$pid" property MainPID && is active property ActiveState && puts
}
edit() { echo "$1" >>"$(files)/etc/default/quorate" && inside systemctl reload quorate; }
takes_over_an_edit() { edit ETCD_LOG_LEVEL=debug && within 10 journal_has 'log-level: info → debug .*/etc/default/quorate:'; }
refuses_a_broken_edit() {
    edit ETCD_MAX_TXN_OPS=many && within 10 journal_has 'the configuration was not reloaded' && state_is active && puts
}
takes_the_edits_back() {
    sed -i '/^ETCD_LOG_LEVEL=\|^ETCD_MAX_TXN_OPS=/d' "$(files)/etc/default/quorate"
    inside systemctl reload quorate && within 10 journal_has 'log-level: debug → info' && puts
}
stop_raft_thread() {
    python3 "$root/tests/support/stop_thread.py" "$(pgrep --ns "${init_of[$machine]}" --nslist pid -x quorate)" raft 9>&- &
}

# Writes one key after the other and notes which were acknowledged, until the file is gone.
start_load() {
    rm -f "$work/acknowledged"
    touch "$work/loading" "$work/acknowledged"
    write_on 9>&- &
    loader=$!
    within 20 has_written 50
}
write_on() {
    local number=0
    while [ -e "$work/loading" ]; do
        number=$((number + 1))
        ! request /v3/kv/put -d "{\"key\":\"$(printf 'load%d' "$number" | base64)\",\"value\":\"MQ==\"}" 2>/dev/null |
            grep -q revision || echo "load$number" >>"$work/acknowledged"
    done
}
has_written() { [ "$(wc -l <"$work/acknowledged")" -ge "$1" ]; }
goes_on_writing() { within 20 has_written $(($(wc -l <"$work/acknowledged") + 50)); }
stop_load() {
    rm -f "$work/loading"
    wait "$loader"
}
nothing_is_lost() {
    stop_load
    echo "  $(wc -l <"$work/acknowledged") acknowledged writes"
    is "" missing
}
missing() { comm -23 <(sort "$work/acknowledged") <(inside quoratectl get load --prefix --keys-only | grep . | sort); }
is_another_process_than() { [ "$(property MainPID)" != "$1" ] && state_is active; }

removes() { apt remove "$@"; }
data_are_there() { inside test -d "/data/etcd/member/wal"; }
own_data_are_there() { inside test -e /var/lib/quorate/member; }
is_gone() { fails inside test -e /usr/bin/quorate && fails inside pgrep -x quorate; }
answer_purge_with() { inside sh -c "echo quorate quorate/purge-data boolean $1 | debconf-set-selections"; }
purges() { apt purge quorate && fails package_is quorate . && fails inside test -e /etc/default/quorate; }
forbid_starts() {
    printf '#!/bin/sh\nexit 101\n' >"$(files)/usr/sbin/policy-rc.d"
    chmod 755 "$(files)/usr/sbin/policy-rc.d"
}
allow_starts() { rm "$(files)/usr/sbin/policy-rc.d"; }

# Stands for the distribution's: a package of this name with these files.
install_distributions() { # NAME FILE...
    local build="$work/build"
    rm -rf "$build"
    mkdir -p "$build/DEBIAN"
    printf 'Package: %s\nVersion: 3.4.23-4\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: as etcd\n' "$1" >"$build/DEBIAN/control"
    for file in "${@:2}"; do install -D -m 755 /dev/null "$build/$file"; done
    dpkg-deb --root-owner-group --build "$build" "$(files)/root/$1.deb" >/dev/null
    inside dpkg --install "/root/$1.deb" >>"$work/apt.log"
}
main_program() { inside ps -o args= -p "$(unit=etcd property MainPID)"; }
names_are_etcds() {
    # Not `grep -q`: who is not heard to the end has failed.
    inside etcd --version | grep '^etcd Version: 3' >/dev/null && inside etcdctl version | grep '^etcdctl version: 3' >/dev/null &&
        inside etcdutl version | grep '^etcdutl version: 3' >/dev/null
}
enables_etcd() { inside systemctl disable quorate 2>/dev/null && inside systemctl enable etcd 2>/dev/null && is enabled inside systemctl is-enabled quorate; }
begins_nothing_beside_etcds_data() {
    inside systemctl stop etcd
    inside rm -r /var/lib/quorate/member
    inside mkdir -p /var/lib/etcd/default/member
    fails inside systemctl start etcd 2>/dev/null && unit=quorate-takeover journal_has '/var/lib/etcd/default was not taken over'
}
begins_without_them() { inside rm -r /var/lib/etcd/default && inside systemctl start etcd && puts; }
instances_serve() {
    local number
    for number in 1 2; do
        printf 'ETCD_%s\n' "LISTEN_CLIENT_URLS=http://127.0.0.1:${number}2379" "ADVERTISE_CLIENT_URLS=http://127.0.0.1:${number}2379" \
            "LISTEN_PEER_URLS=http://127.0.0.1:${number}2380" "INITIAL_ADVERTISE_PEER_URLS=http://127.0.0.1:${number}2380" \
            "INITIAL_CLUSTER=m1=http://127.0.0.1:12380,m2=http://127.0.0.1:22380" >"$(files)/etc/quorate/m$number.conf"
    done
    inside systemctl start quorate@m1 quorate@m2 && is OK inside quoratectl --endpoints http://127.0.0.1:22379 put both 1 &&
        is "700 quorate:quorate" mode_of /var/lib/quorate-m2 && inside systemctl stop 'quorate@*'
}

# Its socket is bound when it is ready; a token outlives a restart of the service.
discovers() {
    local token
    fails inside systemctl is-enabled quorate-discovery 2>/dev/null && inside systemctl start quorate-discovery &&
        token=$(inside curl --silent 'http://127.0.0.1:8087/new?size=3') && [[ $token == http://127.0.0.1:8087/* ]] &&
        inside systemctl restart quorate-discovery && inside curl --silent --fail "$token/_config/size" | grep '"value":"3"' >/dev/null &&
        is "700 quorate:quorate" mode_of /var/lib/quorate-discovery && inside systemctl stop quorate-discovery
}

# RPM.
# What rpm says, but for what is said of a new user. Debian's rpm wants to be told that it is meant.
rpm_in_root() { rpm --force-debian --root "$(files)" --dbpath /var/lib/rpm "$@" 2>&1 | grep -v '^Creating ' || true; }
rpm_installs() { is "" rpm_in_root -i --nodeps "$packages"/once/quorate-0*.rpm "$packages"/once/quorate-tools*.rpm && rpm_has quorate; }
rpm_has() { rpm_in_root -q "$1" | grep -q "^$1-[0-9]"; }
# What was installed differs from the package in nothing.
rpm_verifies() { is "" rpm_in_root -V --nodeps "$1"; }
rpm_files() { rpm -qp --qf '[%{FILEMODES:octal} %{FILEUSERNAME} %{FILENAMES}\n]' "$packages"/once/quorate-0*.rpm 2>/dev/null; }
rpm_config_files() { rpm -qp --configfiles "$packages"/once/quorate-0*.rpm 2>/dev/null | sort | tr '\n' ' '; }
only_root_owns() { is "" grep -v ' root ' <(rpm_files) && [ "$(rpm_files | wc -l)" -gt 12 ]; }
rpm_compat_installs() { rpm_in_root -i --nodeps "$packages"/once/quorate-etcd-compat*.rpm && is quorate readlink "$(files)/usr/bin/etcd"; }
rpm_erases() { is "" rpm_in_root -e "$1"; }

test_packages() {
    check "two builds give the same bytes" are_the_same_bytes
    check "lintian has no errors and no warnings" lintian_is_content
    check "rpmlint has no errors" rpmlint_is_content
}

test_debian() {
    prepare debian
    be_impatient
    boot debian
    : >"$work/apt.log"
    check "the packages install" installs once quorate quorate-tools
    check "the member runs" state_is active
    check "and is enabled" is enabled inside systemctl is-enabled quorate
    check "as its own user" is quorate property User
    check "whose data nobody else reads" is "700 quorate:quorate" mode_of /var/lib/quorate
    check "the samples are what the program writes" samples_are_the_programs "$(files)/etc/default/quorate"
    check "systemd-analyze verify has nothing to say" unit_is_sound
    check "the unit is as hardened as it says" is_hardened
    check "the guide's file is put in place, and is valid" configure_as_the_guide
    check "the unit is active when a write works" serves_once_active
    check "the journal has one JSON record a line" log_is_json
    check "a snapshot is taken when asked, and restores" backs_up
    check "the timer takes them and keeps so many" timer_backs_up
    check "a backup that fails is told" failed_backup_is_told
    check "the member serves again" within 30 puts
    check "it reloads and goes on" reloads
    check "an edited file is taken over" takes_over_an_edit
    check "a broken one is refused, and the member goes on" refuses_a_broken_edit
    check "what was edited back is taken over" takes_the_edits_back
    check "a killed process is started again" is_restarted_by inside kill -s KILL
    check "with its data" holds
    check "a stopped raft loop is noticed by the watchdog" is_restarted_by stop_raft_thread
    check "the log says which" within 10 journal_has 'makes no progress.*raft|raft.*makes no progress'
    check "the data are there" holds
    check "keys are written one after the other" start_load
    before=$(property MainPID)
    check "a higher version is installed meanwhile" installs higher quorate quorate-tools
    check "the unit runs the new one" within 30 is_another_process_than "$before"
    check "writes go on" goes_on_writing
    check "no acknowledged write is lost" nothing_is_lost
    check "the edited file was kept" grep -q 10.5.12.16 "$(files)/etc/default/quorate"
    check "the package is removed" removes quorate quorate-tools
    check "nothing runs any more" is_gone
    check "the data are kept" data_are_there
    check "it installs again" installs higher quorate quorate-tools
    check "and goes on with the data" holds
    inside rm -r /etc/default/quorate /etc/systemd/system/quorate.service.d/data-dir.conf
    inside systemctl daemon-reload
    check "without the file it has its own directory" inside systemctl restart quorate
    check "purging without an answer" purges
    check "keeps the data" own_data_are_there
    check "it installs again" installs higher quorate quorate-tools
    answer_purge_with true
    check "purging with the answer yes" purges
    check "removes the data" fails own_data_are_there
    check "and leaves those elsewhere" data_are_there
    forbid_starts
    check "where policy forbids starts, it installs" installs higher quorate quorate-tools
    check "and does not start" fails state_is active
    allow_starts
    check "two members on one machine form a cluster" instances_serve
    check "the discovery service starts when asked and keeps its tokens" discovers
}

test_compat() {
    prepare compat
    be_impatient
    boot compat
    printf 'ETCD_NAME=old\nETCD_LISTEN_CLIENT_URLS=http://127.0.0.1:2379\nETCD_ADVERTISE_CLIENT_URLS=http://127.0.0.1:2379\n' >"$(files)/etc/default/etcd"
    install_distributions etcd-server usr/bin/etcd usr/bin/etcdutl
    install_distributions etcd-client usr/bin/etcdctl
    check "etcd's names are installed over the distribution's etcd" installs once quorate quorate-tools quorate-etcd-compat
    check "whose packages are gone" fails package_is etcd-server i
    check "all three are ours" names_are_etcds
    check "etcd.service is the member" within 20 state_is active
    check "under etcd's name" is /usr/bin/etcd main_program
    check "as its own user" is quorate property User
    check "with etcd's file" grep -q '"name":"old"' <(inside journalctl -u quorate -o cat)
    check "it serves" puts
    check "systemctl enable etcd works" enables_etcd
    check "it begins nothing beside data of etcd" begins_nothing_beside_etcds_data
    check "and begins when they are gone" begins_without_them
    check "etcd's names are removed again" removes quorate-etcd-compat
    check "and the member goes on under its own" within 20 holds
    check "as its own user" is quorate property User
}

test_rpm() {
    prepare rpm
    mount -t proc proc "$(files)/proc"
    check "the rpms install" rpm_installs
    check "nothing belongs to a user who is not there yet" only_root_owns
    check "all files of options are configuration" is "/etc/quorate/backup.conf /etc/quorate/quorate.conf /etc/quorate/quorate.toml " rpm_config_files
    check "what is installed is what is packaged" rpm_verifies quorate
    check "the samples are what the program writes" samples_are_the_programs "$(files)/etc/quorate/quorate.conf"
    check "the user is there" grep -q ^quorate: "$(files)/etc/passwd"
    check "and the directory" is "700 quorate" chroot "$(files)" stat --format '%a %U' /var/lib/quorate
    check "etcd's names install" rpm_compat_installs
    umount "$(files)/proc"
    be_impatient
    boot rpm
    check "the member starts under systemd" inside systemctl start etcd
    check "it serves" puts
    power_off
    mount -t proc proc "$(files)/proc"
    check "etcd's names are erased" rpm_erases quorate-etcd-compat
    check "with their links" fails test -L "$(files)/usr/bin/etcd"
    check "the rest is erased" rpm_erases quorate
    check "the unit is not enabled any more" fails test -e "$(files)/etc/systemd/system/multi-user.target.wants/quorate.service"
    check "and the data are kept" test -e "$(files)/var/lib/quorate/member"
}

for part in $parts; do "test_${part//-/_}"; done
summary
