//! What no table says. Between backticks stands what is typed.

use crate::discovery::service::{
    BODY_BYTES_MAX, QUERY_BYTES_MAX, SURPLUS_MAX, VALUE_BYTES_MAX, WAITS_MAX, WAITS_PER_TOKEN_MAX,
};

/// A tag and what is said of it.
type Item = (&'static str, &'static str);

pub(super) const DAEMON_SYNOPSIS: [Item; 5] = [
    ("`quorate` [FLAGS]", "Start a member, or with `--proxy on` a node that stands in for one."),
    ("`quorate gateway start` [FLAGS]", "Pass bytes between clients and members."),
    ("`quorate grpc-proxy start` [FLAGS]", "Share watches, lease renewals and stale answers among many v3 clients."),
    (
        "`quorate config` `check`|`show`|`convert`|`sample`|`schema` [ARGUMENTS]",
        "Look at configurations and start nothing.",
    ),
    ("`quorate --version`", "Show the version."),
];

pub(super) const DAEMON: [&str; 3] = [
    "`quorate` is a member of a cluster that keeps keys and values on several hosts and agrees on every change by the Raft
protocol. It takes the place of etcd: it reads etcd's options, variables and files, serves etcd's clients on the same port,
and speaks with members of etcd.",
    "Called by the name `etcd`, it prints etcd's texts. Without any option it starts a member of its own that listens on
localhost and keeps its data in `default.etcd` of the working directory, as etcd does.",
    "Under systemd it reports that it is ready once it has joined its cluster and answered a read, asks for more time while it
recovers or waits for a quorum, and feeds the watchdog only while its log, raft and state make progress.",
];

pub(super) const LAYERS: [&str; 3] = [
    "Options come from, the weakest first: defaults, the TOML file of `--config`, the environment files of `--env-file`, `ETCD_*`
variables, and flags.",
    "`--config-file` names a YAML or JSON file of etcd, which stands alone: flags and variables beside it are ignored, and one
warning names them.",
    "All mistakes are told at once, each with where it stands and an example of what is right. Unknown keys of a file are
mistakes; unknown `ETCD_*` variables are warnings.",
];

pub(super) const CONFIG_COMMANDS: [Item; 6] = [
    (
        "`config check` [`--deep`] [`--format` text|json] [FILE...] [FLAGS]",
        "Read the configuration as a start would and name every mistake. `--deep` also tries addresses, names, files, free space
and the disk, and leaves nothing behind. Of several files it tells, too, whether their members form one cluster.",
    ),
    (
        "`config show` [`--origin`] [`--set`] [`--format` toml|env|yaml|flags|json] [FILE] [FLAGS]",
        "Print the effective configuration. `--origin` adds where each value stands, `--set` leaves out defaults.",
    ),
    (
        "`config convert --to` env|toml|yaml|json|flags [`--from` FORM] [FILE] [FLAGS]",
        "Print what is set, and only that, in another form.",
    ),
    ("`config sample` [`--format` toml|env]", "Print a file that names every option with its default, all commented out."),
    ("`config schema`", "Print a JSON Schema of the TOML file, for editors."),
    ("`discovery` [FLAGS]", "Serve the discovery service: see `quorate-discovery`(8)."),
];

pub(super) const STANDING_IN: [&str; 5] = [
    "A node with `--proxy on` or `readonly` is no member. It finds the members at the peer URLs of `--initial-cluster`, and later
at those it found last, and serves v2 and v3 clients on its own client URLs by asking the members. `--advertise-client-urls`
is not needed, and nothing listens at the peer URLs. What it was stays in `proxy/` of its data directory and decides at the
next start, whatever the options say.",
    "It answers `/health`, `/metrics` and `/v2/config/local/proxy` itself; everything else is a member's answer. A member that
does not answer is left alone for `--proxy-failure-wait`. While none answers, requests end with the texts of etcd's proxy, and
the members are looked for every second; `SIGHUP` has them looked for at once.",
    "To make a member of it, give it a place with `member add`, stop it, remove `proxy/`, and start it without `--proxy`, with
`--initial-cluster-state existing` and the whole `--initial-cluster`. To make a proxy of a member, remove it from the cluster, stop
it, remove `member/`, and start it with `--proxy on`.",
    "`gateway start` understands nothing of what it passes, so that it serves every protocol, TLS included. `--endpoints-file`
names a file with one address per line, which is taken over whenever it changes and at `SIGHUP`.",
    "`grpc-proxy start` serves v3 clients alone. Watches of the same keys cost the cluster one, renewals of a lease and
serializable reads are answered from what the cluster said last. `--namespace` keeps clients below a prefix, and with
`--resolver-prefix` and `--advertise-client-url` proxies are found in the cluster. `--endpoints-file` is as that of the gateway.",
];

pub(super) const DISCOVERY: [&str; 4] = [
    "Nodes that are to form a cluster, and know nothing of each other, are told the URL of a token (`--discovery URL`, or
`ETCD_DISCOVERY`). They register below it, wait until as many have done so as the cluster is to have members, and found the
cluster. etcd up to 3.6 does so, too; a node that comes too late finds the cluster full.",
    "A token is made by `GET /new?size=3`, or by a form on the page that `/` shows to browsers. Whoever knows a token can see
and change what is registered under it; nobody is told of tokens that he does not know.",
    "Tokens are kept by a member inside the service, alone in a cluster of its own, or in a cluster: `--endpoints` speaks v3
with Quorate and etcd 3 and uses keys that begin with `quorate.discovery/1/`; `--etcd` speaks v2 with etcd 2 to 3.5
(`--enable-v2`), below the key `/_etcd/registry`. Several
instances of the service may share a cluster. A member with `discovery-service` has the service on its client port, with tokens in
its own cluster.",
    "A token goes when nobody has registered under it for `--min-age`, whether its cluster has formed or not: a cluster that
exists needs its token no more, and a node that comes later is told that there is no such key. In a cluster with v2 the
time counts from when the token was made.",
];

pub(super) const DISCOVERY_OPTIONS: [&str; 1] =
    ["Each flag is also a variable, in capitals behind `QUORATE_DISCOVERY_`, with underscores for dashes:
`QUORATE_DISCOVERY_LISTEN_URLS` stands for `--listen-urls`. Flags are stronger."];

pub(super) const DISCOVERY_ROUTES: [Item; 7] = [
    ("`/`", "A page for people: forms for a new token and for a look at one, who has registered, and what to type on the next host."),
    (
        "`/new`",
        "GET, PUT or POST with `size`, from 1 to 64, 3 by default: the URL of a new token, as plain text without the end of a line.",
    ),
    (
        "`/TOKEN`, `/TOKEN/ID`",
        "The members, and one of them, as etcd's v2 API shows keys: GET with `wait`, `waitIndex`, `recursive` and `sorted`; PUT of
`value` with `prevExist`; DELETE, which lets a node that lost its data register again. A wait that sees nothing for 50 seconds is answered
with an empty body.",
    ),
    ("`/TOKEN/_config/size`", "How many members the cluster is to have."),
    ("`/health`", "`OK` if a token can be made and removed; looked up every five seconds at most."),
    ("`/metrics`", "Requests by status and method, and the metrics of the member inside, in the Prometheus format."),
    ("`/robots.txt`", "Nothing is for robots."),
];

pub(super) fn discovery_limits() -> String {
    let (body, value, query) = (BODY_BYTES_MAX >> 10, VALUE_BYTES_MAX >> 10, QUERY_BYTES_MAX >> 10);
    format!(
        "One address makes `--new-per-minute` tokens in a minute, an IPv6 network of 64 bits counting as one; more are answered
429 with `Retry-After`. There are `--tokens-max` tokens, under each {SURPLUS_MAX} members more than its cluster is to have,
{WAITS_PER_TOKEN_MAX} waits on each and {WAITS_MAX} altogether. A body has {body} KiB at most, a value {value} KiB, a query {query} KiB."
    )
}

pub(super) const DISCOVERY_SIGNALS: [Item; 2] = [
    ("`SIGTERM`, `SIGINT`", "Answer those who wait, so that they ask again, and stop."),
    ("`SIGHUP`", "Nothing: options are read at the start."),
];

pub(super) const DISCOVERY_FILES: [Item; 2] = [
    (
        "`/etc/default/quorate-discovery`, `/etc/quorate/discovery.conf`",
        "Environment of the unit `quorate-discovery`, if there.",
    ),
    ("`/var/lib/quorate-discovery`", "The unit's data directory: that of a member, named `discovery`."),
];

pub(super) const DISCOVERY_EXAMPLE: &str = "\
quorate discovery --listen-urls http://0.0.0.0:8087 --data-dir /tmp/tokens &
TOKEN=$(curl --silent http://127.0.0.1:8087/new?size=3)
quorate --name m1 --discovery $TOKEN";

pub(super) const OPTIONS: [&str; 1] = [
    "Flags begin with one dash or two; their values follow an equals sign or a space. A DURATION is a number with a unit, such
as `100ms` or `1h30m`. The variable of an option is its flag in capitals, with underscores for dashes and `ETCD_` before it.",
];

pub(super) const SIGNALS: [Item; 3] = [
    ("`SIGTERM`, `SIGINT`", "Hand leadership over, let calls end, write everything down and stop."),
    ("`SIGHUP`", "Read the configuration again: see `RELOAD`."),
    ("`SIGKILL`, loss of power", "Lose nothing that was acknowledged."),
];

pub(super) const RELOAD: [&str; 3] = [
    "On `SIGHUP`, which `systemctl reload quorate` sends, and when one of its files has changed, the daemon reads all sources
again. A mistake anywhere rejects the whole change, and the running values stay. Otherwise options marked `Taken over on
reload` change at once; a change of any other is reported and waits for the next start. One record of the log names every
change with its old value, its new one and where it stands.",
    "The variables of a process never change. So that an edited `EnvironmentFile=` reaches a running daemon, the unit names it a
second time in `QUORATE_ENV_FILES`: a variable whose value was that of the file at the start is read from the file again.",
    "Flags stay as they were typed.",
];

pub(super) const MAINTENANCE: [&str; 4] = [
    "A database that reaches `--quota-backend-bytes` raises the alarm NOSPACE, and nothing but deletions is accepted. Delete and
compact (`quoratectl compaction`), or raise the quota: once a tenth of it is free the member gives the space back and lifts its
alarm. With `--nospace-disarm manual` it stays until `quoratectl alarm disarm`, as in etcd. CORRUPT is never lifted.",
    "With `--snapshot-schedule` the member takes snapshots by itself, so many apart: each is the file of `quoratectl snapshot save`, in
`--snapshot-dir`, named `snapshot-MEMBER-TIME-REVISION.db`, and checked before it has that name. The newest of
`--snapshot-keep` stay. One that fails is logged, counted, and tried again within five minutes, and those before stay. The next is
due so long after the newest file, whatever happened to the process meanwhile.",
    "`quorate-backup.timer`, which `systemctl enable --now quorate-backup.timer` turns on, has `quoratectl` take one every night from
outside, and `quorateutl snapshot status` check it. Where the member is, certificates, the directory (`BACKUP_DIR`) and what is
kept (`BACKUP_KEEP`, `BACKUP_KEEP_DAYS`) stand in its file of variables. `systemctl start quorate-backup` takes one now.",
    "A directory that the unit does not own needs `ReadWritePaths=` in a drop-in.",
];

pub(super) const AUDIT: [&str; 5] = [
    "With `--audit-log` the member tells of every request that clients send it, through whichever door: one JSON object a line, when
the request has ended. A call that carries several, as watches do, has a line for each watch that is made, refused, taken back or
ended by the server, and one for its own end. What names no method has none: metrics count it. Each member tells of what it was asked itself.",
    "No line holds a value, a password or a token that users log in with. Of a request of the v2 API and of the discovery service the
query and the body are left out; the path of the latter is the token by which nodes find each other.",
    "Of successful reads, renewals of leases among them, `--audit-log-sample` in a million have a line, chosen by chance; everything else
always has one. Nobody waits for the lines: up to 4 MiB of them do, and those beyond are dropped. Reads take half of it at most, and
requests of clients that nobody knows and that were refused, as logins that fail, an eighth, so that neither pushes out what was done. A
disk that refuses them is tried again every second. What is lost is counted by `quorate_audit_records_total`, and told in the log. Lines
are not synced: what was acknowledged to a client may be without its line after a loss of power.",
    "A file has mode 0600; its directory is made with 0700 if the one above it is there. The unit may write below `/var/log/quorate`,
`quorate@NAME` below `/var/log/quorate-NAME`; other places need `ReadWritePaths=` in a drop-in. Links are followed: what is set aside is
the file behind them. Pipes, devices and what standard output or error go to are not set aside. A file that somebody else moves or
removes is opened anew by its name at a reload, and by itself with lines that come a second later, so that with
`--audit-log-rotate-size 0` logrotate can move it. A file that is being set aside is called `FILE.0` for a moment; one that a kill
leaves under that name is the first to be set aside next time. A line that was cut off, because the process was killed, stands by itself.",
    "Fields that say nothing are left out. They are:",
];

pub(super) const AUDIT_FIELDS: [Item; 17] = [
    ("`ts`, `took`", "When the request ended, and how long it took."),
    (
        "`user`",
        "Who was recognised; empty for others, and without authentication. Whoever logs in, or tries to, is the `name`, as is in the v2
API whose password is wrong.",
    ),
    ("`from`", "Address and port of the other end, which may be a proxy's; `@` on a socket file."),
    ("`certificate`", "The common name of the certificate that the other end has shown."),
    ("`via`", "`grpc`, `gateway` for JSON, `v2`, `discovery` for the discovery service on the client port."),
    ("`method`", "As `/etcdserverpb.KV/Put`; of the v2 API and the discovery service the method of HTTP, with `path`."),
    (
        "`key`, `range_end`",
        "As etcd has them. A backslash is written `\\\\`, and what is no UTF-8, controls terminals, turns the direction of a text or is not
shown, byte by byte as `\\x00`; of more than 1024 bytes the first are shown, and `key_bytes` tells the length. So it is with every text.",
    ),
    ("`lease`, `ttl`", "A lease, in hexadecimal, and for how many seconds it is granted."),
    (
        "`txn`, `succeeded`",
        "The operations of a transaction (`then`, `else`) and the keys that it compares, as many as fit; `then_left_out` and so on tell of
more. Whether what it compares was so.",
    ),
    (
        "`op`, `watch`",
        "What is done with a watch, an alarm or a downgrade, and which watch it is; the number is the server's where the client has chosen
none. A watch that is `canceled` was ended by the server, and `end` is the end of a call that carried several.",
    ),
    ("`name`, `role`, `permission`", "Of what users and roles are changed to."),
    (
        "`member`, `peer_urls`, `learner`, `alarm`, `version`, `physical`",
        "Of changes of the cluster, and of maintenance. A new member has its number from the answer. Users and passwords in URLs are left out.",
    ),
    ("`at_revision`", "The revision that was asked for."),
    ("`revision`", "That of the answer; `index` in the v2 API."),
    ("`code`", "gRPC's name for how it ended: `OK`, `PermissionDenied`. For the v2 API the one that comes closest."),
    ("`status`", "Of the v2 API and the discovery service: that of HTTP."),
    ("`error`", "What the client was told."),
];

pub(super) const METRICS: [&str; 5] = [
    "A member publishes these at `/metrics` of its client URLs, and of `--listen-metrics-urls`, in the text format of Prometheus. The
names, types, labels and bounds of histograms are etcd's, so that its dashboards and alert rules work as they are; some gauges are
called `_total`, as there. Names that begin with `quorate_` are ours.",
    "A name without labels is there from the start, at zero. One with labels appears when there is something to tell, those of
`grpc_server_` excepted. At most 128 combinations of labels are told apart; what is more is counted under `other`.",
    "With each stands since which version etcd has it, 3.3 being the oldest looked at, or in which versions it had it: old names
are still published, whatever `--compat-version` says.",
    "`grpc-proxy` passes a member's on at `/metrics`, as etcd's. Its own, which are not of a member, it publishes at `/proxy/metrics`:
`etcd_grpc_proxy_`, `etcd_network_client_grpc_`, `grpc_server_`, `os_`, `process_`, and of ours those of connections, TLS and HTTP. Both
are at `--metrics-addr`, too. `quorate discovery` adds
`endpoint_new_requests_total`, `endpoint_token_requests_total` and `endpoint_health_requests_total` {code, method}, the names of
etcd's discovery service.",
    "Alert rules and a dashboard are in `/usr/share/doc/quorate/monitoring`.",
];

pub(super) const METRICS_MISSING: [Item; 2] = [
    (
        "`etcd_debugging_disk_backend_commit_rebalance_duration_seconds`, `..._spill_duration_seconds`, `..._write_duration_seconds`",
        "Phases of a commit of etcd's database, which a log-structured store does not have. The whole commit is
`etcd_disk_backend_commit_duration_seconds`.",
    ),
    ("`go_*`", "Figures of the runtime of Go, which is not there."),
];

pub(super) const DAEMON_EXIT: [Item; 5] = [
    ("0", "Stopped by a signal, or did what a command was asked for."),
    ("1", "The configuration is wrong, or the member could not start or go on; the last line says why and what to do."),
    ("2", "The command line is wrong."),
    ("6", "The answer of a `config` command could not be written."),
    ("141", "Whoever read that answer went away."),
];

pub(super) const DAEMON_ENVIRONMENT: [Item; 6] = [
    ("`ETCD_*`", "Options: see `quorate.env`(5)."),
    (
        "`QUORATE_ENV_FILES`",
        "Files that the unit names as `EnvironmentFile=`, separated by colons, to be read again on reload; a dash before one
allows it to be missing.",
    ),
    ("`GOMAXPROCS`", "The number of worker threads."),
    ("`GOGC`, `GOMEMLIMIT`", "Accepted, and without a meaning here: there is no garbage collector."),
    (
        "`CREDENTIALS_DIRECTORY`",
        "Given by systemd for `LoadCredential=NAME:PATH` in the unit: where a file for TLS is asked for, `credential:NAME` is \
         that one.",
    ),
    ("`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `LISTEN_FDS`", "Given by systemd: readiness, the watchdog, and sockets it has opened."),
];

pub(super) const DAEMON_FILES: [Item; 13] = [
    (
        "`/etc/default/quorate`, `/etc/quorate/quorate.conf`",
        "Environment of the unit on Debian, and on systems with rpm.",
    ),
    (
        "`/etc/default/quorate-backup`, `/etc/quorate/backup.conf`",
        "Variables of the backup's unit on Debian, and on systems with rpm.",
    ),
    ("`/etc/quorate/quorate.toml`", "A sample of the TOML file; it is read if `ETCD_CONFIG` names it."),
    ("`/var/lib/quorate`", "The unit's data directory."),
    ("`/var/log/quorate`", "Where the unit may write an audit log, say `audit.log`."),
    (
        "`/etc/default/etcd`, `/etc/etcd/etcd.conf`",
        "With the package quorate-etcd-compat: etcd's options, read after the unit's own. Before the member starts, \
`quorate-takeover.service` imports what is in their `ETCD_DATA_DIR` to `/var/lib/quorate`; `QUORATE_TAKEOVER=no` leaves it where it \
is. What is in the way is told by `journalctl -u quorate-takeover`, and the next start tries again. A copy is kept in \
`/etc/quorate/etcd.default`, for when the purge of etcd's package removes the file.",
    ),
    (
        "`/etc/quorate/takeover.conf`",
        "Written by it and read last: where the data are now, and the `ETCD_COMPAT_VERSION` that keeps the way back open.",
    ),
    (
        "`/etc/quorate/takeover.begun`",
        "There while such an import is under way: the directory that is read, and the name that its `member` gets. If the machine \
fails meanwhile, the next start undoes by it what the import has left, and begins anew. Do not remove it before that.",
    ),
    ("`/var/lib/quorate-backup`", "Where the backup's unit puts snapshots."),
    ("`snapshots`", "In a data directory: scheduled snapshots, unless they have a directory of their own."),
    ("`REGISTRATION`", "In a data directory, until there is a member: what a discovery service was told."),
    ("`member/wal`", "In a data directory: the log, in etcd's format."),
    ("`member/state`", "In a data directory: the replicated state."),
];

pub(super) const DAEMON_EXAMPLE: &str = "\
quorate --name m1 --data-dir /tmp/m1 &
quoratectl put greeting hello
quoratectl get greeting";

pub(super) const CHECK_EXAMPLE: &str = "quorate config check --deep --env-file /etc/default/quorate";

pub(super) const TOML: [&str; 3] = [
    "The keys of the file are the daemon's flags without dashes, at the top level. Lists are arrays, switches are `true` or
`false`, durations are strings such as `\"100ms\"`, and numbers whose unit is given below may be written bare.",
    "An unknown key is a mistake, and the daemon says which one is probably meant. The environment and flags are stronger than
the file.",
    "`quorate config sample --format toml` prints a file with every key, and `quorate config schema` a schema with which an editor
completes and checks it.",
];

pub(super) const TOML_EXAMPLE: &str = "\
name = \"m1\"
data-dir = \"/var/lib/quorate\"
listen-client-urls = [\"http://10.0.0.1:2379\", \"http://127.0.0.1:2379\"]
advertise-client-urls = [\"http://10.0.0.1:2379\"]
quota-backend-bytes = 8589934592
auto-compaction-mode = \"periodic\"
auto-compaction-retention = \"1h\"";

pub(super) const ENV: [&str; 3] = [
    "Every line is `NAME=VALUE`, as in files that systemd reads with `EnvironmentFile=`: lines that begin with `#` or `;` are
comments, values may stand in single or double quotes, and a backslash at the end of a line joins it with the next. Nothing is
expanded: `$HOME` stays what it is.",
    "The file also works with `--env-file`, which reads the same grammar. A dash before its name allows it to be missing. The
last of several lines with one name counts. Variables of the process are stronger than files.",
    "`quorate config sample --format env` prints a file with every variable.",
];

pub(super) const ENV_EXAMPLE: &str = "\
ETCD_NAME=m1
ETCD_DATA_DIR=/var/lib/quorate
ETCD_LISTEN_PEER_URLS=\"http://10.0.0.1:2380\"
ETCD_LISTEN_CLIENT_URLS=\"http://10.0.0.1:2379,http://127.0.0.1:2379\"
ETCD_ADVERTISE_CLIENT_URLS=\"http://10.0.0.1:2379\"
ETCD_INITIAL_ADVERTISE_PEER_URLS=\"http://10.0.0.1:2380\"
ETCD_INITIAL_CLUSTER=\"m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380,m3=http://10.0.0.3:2380\"
ETCD_INITIAL_CLUSTER_TOKEN=\"k8s\"";

pub(super) const CLIENT: [&str; 2] = [
    "`quoratectl` reads and writes keys, watches them, holds leases, and looks after the members of a cluster. It speaks with
Quorate and with etcd, and takes the commands, flags and forms of output of `etcdctl`; called by that name, it prints etcd's
texts.",
    "Options may stand before the command or behind it. `quoratectl COMMAND --help` tells the whole of a command.",
];

pub(super) const CLIENT_V2: [&str; 2] = [
    "With `ETCDCTL_API=2` the client speaks the v2 API and takes the commands, flags and forms of output that `etcdctl` had for
it until version 3.5. Without, nothing of this chapter holds.",
    "Options of the client stand before the command, those of a command before its arguments or behind them, and one dash is
as good as two. Unless `--no-sync` is given, the client first asks the endpoints for the addresses that members announce, and
goes on with those. `ETCDCTL_ENDPOINTS`, `ETCDCTL_ENDPOINT`, `ETCDCTL_PEERS`, `ETCDCTL_USERNAME`, `ETCDCTL_CERT_FILE`,
`ETCDCTL_KEY_FILE`, `ETCDCTL_CA_FILE` and `ETCDCTL_DISCOVERY_SRV` stand for options that are not given.",
];

pub(super) const CLIENT_ENVIRONMENT: [Item; 2] = [
    (
        "`ETCDCTL_*`",
        "Every option, in capitals, with underscores for dashes: `ETCDCTL_ENDPOINTS` stands for `--endpoints`. Flags are stronger.",
    ),
    ("`ETCDCTL_API`", "With the value `2`, the API to speak: see `THE V2 API`."),
];

pub(super) const CLIENT_V2_EXIT: [Item; 3] = [
    ("3, with the v2 API", "There is no such command, or no help for it."),
    ("4, with the v2 API", "The cluster refused, or nobody answered."),
    ("5, with the v2 API", "Not every member is healthy."),
];

pub(super) const CLIENT_EXIT: [Item; 10] = [
    ("0", "Done."),
    ("1", "It failed; one line on standard error says why."),
    ("2", "There is no connection, or the call that needs one failed."),
    ("3", "Lines on standard input make no sense."),
    ("4", "A flag has a value that is not supported."),
    ("5", "The work was broken off from outside."),
    ("6", "Reading or writing failed on this machine."),
    ("128", "Arguments are missing, too many or unreadable."),
    ("141", "Whoever read the answers went away."),
    ("255", "`lock`: its command died of a signal. What else its command exits with, `lock` exits with, too."),
];

pub(super) const CLIENT_EXAMPLE: &str = "\
quoratectl --endpoints http://10.0.0.1:2379 put greeting hello
quoratectl get --prefix greet
quoratectl watch --prefix greet
quoratectl endpoint status --cluster -w table
quoratectl doctor
quoratectl --endpoints http://10.0.0.1:2379 snapshot save /var/backups/cluster.db";

pub(super) const OFFLINE_TOOL: [&str; 3] = [
    "`quorateutl` is for data directories and snapshots while no member uses them. Called by the name `etcdutl`, it prints
etcd's texts. What it does not have it refuses by name, and does nothing.",
    "It looks into snapshot files and databases of etcd and changes neither (`snapshot status`, `hashkv`), makes a new cluster of
a snapshot file (`snapshot restore`), takes members over from etcd and hands them back (`import`, `export`), and checks data
directories (`verify`).",
    "A directory is made as a whole or not at all: after an error nothing of it is left. Directories that are read are never
deleted. Quorate has nothing to defragment (`defrag`) or to migrate (`migrate`), and says so.",
];

pub(super) const MIGRATION: [&str; 5] = [
    "`import` makes a data directory of Quorate of the one that an etcd 3.5 to 3.7 has left, stopped or killed; `export` is the
way back. The member keeps its identifiers, its term, its vote and its log, so its cluster sees a restart. The old directory
is fenced: its `member/` is renamed, and a file `member` in its place tells the way back. Neither etcd nor Quorate starts on it,
because a member that runs twice, or from an older copy, can cost its cluster data.",
    "On one machine: stop etcd, `import` its directory into a new one, and start `quorate` with the options that etcd had and the new
`--data-dir`. With `--compat-version` of the cluster's version, which `import` tells, the cluster stays at it and the way back
stays open.",
    "In a cluster that goes on: the same on one host after the other, while a quorum runs. Before the next host, see that the
member has caught up: `quoratectl endpoint hashkv --cluster` shows equal hashes.",
    "Back: stop `quorate`, `export` into a new directory, and start etcd on it, of the version of the cluster or a newer one. A
cluster whose version has risen is lowered first: `quoratectl downgrade enable`.",
    "Keys of the v2 API are not taken over in either direction: a directory with some is refused. A directory of etcd 3.4 or older
has to be started once with etcd 3.5.",
];

pub(super) const OFFLINE_EXAMPLE: &str = "\
quorateutl snapshot status backup.db -w table
quorateutl snapshot restore backup.db --name m1 --data-dir /var/lib/quorate/m1 \\
    --initial-cluster m1=http://10.0.0.1:2380 --initial-advertise-peer-urls http://10.0.0.1:2380
quorateutl import /var/lib/etcd/default --check
quorateutl import /var/lib/etcd/default --data-dir /var/lib/quorate/default
quorateutl export --data-dir /var/lib/quorate/default --to-data-dir /var/lib/etcd/back
quorateutl verify /var/lib/quorate/default";
