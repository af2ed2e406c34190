//! What no table says. Between backticks stands what is typed.

/// A tag and what is said of it.
type Item = (&'static str, &'static str);

pub(super) const DAEMON_SYNOPSIS: [Item; 3] = [
    ("`quorate` [FLAGS]", "Start a member."),
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

pub(super) const CONFIG_COMMANDS: [Item; 5] = [
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
];

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

pub(super) const DAEMON_EXIT: [Item; 5] = [
    ("0", "Stopped by a signal, or did what a command was asked for."),
    ("1", "The configuration is wrong, or the member could not start or go on; the last line says why and what to do."),
    ("2", "The command line is wrong."),
    ("6", "The answer of a `config` command could not be written."),
    ("141", "Whoever read that answer went away."),
];

pub(super) const DAEMON_ENVIRONMENT: [Item; 5] = [
    ("`ETCD_*`", "Options: see `quorate.env`(5)."),
    (
        "`QUORATE_ENV_FILES`",
        "Files that the unit names as `EnvironmentFile=`, separated by colons, to be read again on reload; a dash before one
allows it to be missing.",
    ),
    ("`GOMAXPROCS`", "The number of worker threads."),
    ("`GOGC`, `GOMEMLIMIT`", "Accepted, and without a meaning here: there is no garbage collector."),
    ("`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `LISTEN_FDS`", "Given by systemd: readiness, the watchdog, and sockets it has opened."),
];

pub(super) const DAEMON_FILES: [Item; 5] = [
    (
        "`/etc/default/quorate`, `/etc/quorate/quorate.conf`",
        "Environment of the unit on Debian, and on systems with rpm.",
    ),
    ("`/etc/quorate/quorate.toml`", "A sample of the TOML file; it is read if `ETCD_CONFIG` names it."),
    ("`/var/lib/quorate`", "The unit's data directory."),
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

pub(super) const CLIENT_ENVIRONMENT: [Item; 1] = [(
    "`ETCDCTL_*`",
    "Every option, in capitals, with underscores for dashes: `ETCDCTL_ENDPOINTS` stands for `--endpoints`. Flags are stronger.",
)];

pub(super) const CLIENT_EXIT: [Item; 9] = [
    ("0", "Done."),
    ("1", "It failed; one line on standard error says why."),
    ("2", "There is no connection, or the call that needs one failed."),
    ("3", "Lines on standard input make no sense."),
    ("4", "A flag has a value that is not supported."),
    ("5", "The work was broken off from outside."),
    ("6", "Reading or writing failed on this machine."),
    ("128", "Arguments are missing, too many or unreadable."),
    ("141", "Whoever read the answers went away."),
];

pub(super) const CLIENT_EXAMPLE: &str = "\
quoratectl --endpoints http://10.0.0.1:2379 put greeting hello
quoratectl get --prefix greet
quoratectl watch --prefix greet
quoratectl endpoint status --cluster -w table";

pub(super) const OFFLINE_TOOL: [&str; 1] = [
    "`quorateutl` is for data directories and snapshots while no member uses them. Called by the name `etcdutl`, it prints
etcd's texts. So far it tells its version; what it does not have yet it refuses by name, and does nothing.",
];
