//! Rules about the layers as a whole: which one wins, who is told what, and that nothing is lost between forms.

use std::{ffi::OsString, fs, path::PathBuf, time::Duration};

use proptest::prelude::*;
use tempfile::TempDir;

use super::{
    model::Presented,
    show::{Format, Shown},
    table::{Kind, OPTIONS, OptionSpec, YamlKey},
    *,
};

/// A process in the making: arguments, variables and files.
#[derive(Default)]
struct Start {
    sources: Sources,
    files: Option<TempDir>,
}

impl Start {
    fn flags(mut self, words: &[&str]) -> Self {
        self.sources.args.extend(words.iter().map(OsString::from));
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.sources.env.push((name.into(), value.into()));
        self
    }

    /// Writes a file and names it by a flag.
    fn file(mut self, flag: &str, name: &str, text: &str) -> Self {
        let place = self.files.get_or_insert_with(|| tempfile::tempdir().expect("a directory"));
        let path = place.path().join(name);
        fs::write(&path, text).expect("written");
        self.sources.args.push(format!("--{flag}={}", path.display()).into());
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.as_ref().expect("files").path().join(name)
    }

    fn load(&self) -> Result<Loaded, ConfigErrors> {
        load(&self.sources)
    }

    fn config(&self) -> Config {
        self.load().unwrap_or_else(|errors| panic!("{errors}")).config
    }

    /// Of a member without data, unless other flags name a directory that has some: where `make run` was tried, the
    /// default one has.
    fn mistakes(&self) -> Vec<String> {
        let mut sources = self.sources.clone();
        sources.args.insert(0, "--data-dir=/nonexistent".into());
        let errors = load(&sources).expect_err("mistakes");
        errors.problems().iter().map(|problem| problem.what.clone()).collect()
    }

    fn notices(&self) -> Vec<String> {
        let loaded = self.load().unwrap_or_else(|errors| panic!("{errors}"));
        loaded.notices.iter().map(Notice::to_string).collect()
    }
}

fn flags(words: &[&str]) -> Start {
    Start::default().flags(words)
}

#[test]
fn of_two_assignments_in_one_environment_file_the_last_counts_and_the_first_is_told() {
    let start =
        Start::default().file("env-file", "e", "ETCD_NAME=a\nETCD_MAX_TXN_OPS=9\nETCD_NAME=b\nETCD_MAX_TXN_OPS=\n");
    let loaded = start.load().unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(loaded.config.member.name, "b");
    assert_eq!(loaded.settings.get("max-txn-ops").expect("an option").value.to_text(), "128", "taken back");
    let path = start.path("e").display().to_string();
    let said: Vec<String> =
        loaded.notices.iter().filter(|notice| notice.message.contains("set again")).map(Notice::to_string).collect();
    let line = |variable: &str, first: usize, last: usize| {
        format!(
            "set again further down, where the last value counts: this one has no effect (origin={path}:{first}, \
             variable={variable}, counts={path}:{last})"
        )
    };
    assert_eq!(said, [line("ETCD_NAME", 1, 3), line("ETCD_MAX_TXN_OPS", 2, 4)]);
}

#[test]
fn raw_configuration_and_table_have_the_same_keys() {
    let layers = Layers::merge(&Gathered::default());
    let raw: Result<RawConfig, _> = layers.figment.extract();
    assert!(raw.is_ok(), "{:?}", raw.err().map(|error| error.to_string()));
}

#[test]
fn stronger_layers_win_and_each_value_tells_where_it_stands() {
    let start = Start::default()
        .file("config", "q.toml", "name = \"toml\"\nmax-wals = 1\nmax-txn-ops = 1\nsnapshot-count = 1\n")
        .file("env-file", "a.env", "ETCD_NAME=first\nETCD_MAX_WALS=2\nETCD_MAX_TXN_OPS=2\n")
        .file("env-file", "b.env", "ETCD_NAME=file\n")
        .env("ETCD_MAX_TXN_OPS", "3")
        .env("ETCD_NAME", "env")
        .flags(&["--name=flag", "--name=last"]);
    let loaded = start.load().expect("valid");
    let shown = |name: &str| {
        let setting = loaded.settings.get(name).expect("an option");
        (setting.value.to_text(), setting.origin.clone())
    };
    assert_eq!(shown("name"), ("last".to_owned(), Origin::Flag("--name".to_owned())));
    assert_eq!(shown("max-txn-ops"), ("3".to_owned(), Origin::Variable("ETCD_MAX_TXN_OPS".to_owned())));
    assert_eq!(shown("max-wals"), ("2".to_owned(), Origin::File(start.path("a.env"), 2)));
    assert_eq!(shown("snapshot-count"), ("1".to_owned(), Origin::File(start.path("q.toml"), 4)));
    assert_eq!(shown("election-timeout"), ("1000".to_owned(), Origin::Default));
    assert_eq!(loaded.files, [start.path("a.env"), start.path("b.env"), start.path("q.toml")]);
}

#[test]
fn etcds_file_stands_alone_and_names_what_it_hides() {
    let start = Start::default()
        .file("config-file", "etcd.yml", "name: yaml\nmax-txn-ops: 7\n")
        .file("env-file", "a.env", "ETCD_MAX_WALS=2\n")
        .env("ETCD_NAME", "env")
        .env("ETCD_MAX_TXN_OPS", "not even a number")
        .flags(&["--name=flag", "--debug"]);
    let config = start.config();
    assert_eq!((config.member.name.as_str(), config.limits.txn_ops_max), ("yaml", 7));
    assert_eq!(config.storage.wals_max, Some(5));
    let ignored = format!(
        "ignored because --config-file stands alone (path={}, ignored=--debug --env-file --name ETCD_MAX_TXN_OPS \
         ETCD_MAX_WALS ETCD_NAME)",
        start.path("etcd.yml").display()
    );
    assert_eq!(start.notices().iter().filter(|notice| **notice == ignored).count(), 1, "{:?}", start.notices());
}

#[test]
fn a_bad_flag_is_a_mistake_even_beside_etcds_file() {
    let start = Start::default().file("config-file", "etcd.yml", "name: a\n").flags(&["--max-wals=x"]);
    assert_eq!(start.mistakes(), ["invalid value \"x\" for flag -max-wals: parse error"]);
    assert_eq!(start.load().expect_err("a mistake").exit_code(), 2);
}

#[test]
fn etcds_file_is_found_through_variables_too() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("etcd.yml");
    fs::write(&path, "name: yaml\n").expect("written");
    let text = format!("ETCD_CONFIG_FILE={}\n", path.display());
    assert_eq!(Start::default().file("env-file", "a.env", &text).config().member.name, "yaml");
    assert_eq!(Start::default().env("ETCD_CONFIG_FILE", &path.to_string_lossy()).config().member.name, "yaml");
}

#[test]
fn empty_variables_are_not_set() {
    let start = Start::default().env("ETCD_DISCOVERY", "").env("ETCD_AUTH_TOKEN", "").env("ETCD_UNKNOWN", "");
    assert_eq!(start.config().auth.token, TokenProvider::Simple);
    assert!(!start.notices().iter().any(|notice| notice.contains("unrecognized")));
}

#[test]
fn empty_flags_are_set_but_empty_url_lists_say_nothing() {
    assert_eq!(flags(&["--auth-token="]).config().auth.token, TokenProvider::None);
    let config = flags(&["--listen-client-urls=", "--advertise-client-urls="]).config();
    assert_eq!(config.listen.client.iter().map(ToString::to_string).collect::<Vec<_>>(), ["http://localhost:2379"]);
}

#[test]
fn what_variables_do_is_told_in_etcds_words() {
    let start = Start::default()
        .env("ETCD_NAME", "a")
        .env("ETCD_SNAPSHOT_COUNTER", "5")
        .env("ETCD_VERSION", "false")
        .env("ETCD_DISCOVERY_PASSWORD", "")
        .env("ETCD_MAX_WALS", "3")
        .env("ETCD_MAX_TXN_OPS", "10")
        .flags(&["--max-wals=4", "--max-txn-ops=0xa"]);
    let expected = [
        "recognized environment variable ETCD_MAX_WALS, but unused: shadowed by corresponding flag (origin=ETCD_MAX_WALS)",
        "recognized and used environment variable (variable-name=ETCD_NAME, variable-value=a)",
        "unrecognized environment variable (environment-variable=ETCD_SNAPSHOT_COUNTER=5, did-you-mean=ETCD_SNAPSHOT_COUNT)",
        "cannot set special environment variable (key=ETCD_VERSION, value=false)",
    ];
    let notices = start.notices();
    for text in expected {
        assert!(notices.iter().any(|notice| notice == text), "{text} in {notices:#?}");
    }
    assert!(!notices.iter().any(|notice| notice.contains("MAX_TXN_OPS, but unused")), "equal values are silent");
}

#[test]
fn secrets_are_not_repeated() {
    let start = Start::default().env("ETCD_DISCOVERY_PASSWORD", "hunter2").env("ETCD_DISCOVERY", "http://x/y");
    let errors = start.load().expect_err("refused");
    assert!(!format!("{errors} {errors:?}").contains("hunter2"));
}

#[test]
fn old_names_lead_to_their_successors_with_etcds_warning() {
    let start = flags(&[
        "--experimental-watch-progress-notify-interval=5s",
        "--experimental-enable-lease-checkpoint",
        "--debug",
        "--compat-version=3.6",
    ]);
    let config = start.config();
    assert_eq!(config.watch.progress_interval, Duration::from_secs(5));
    assert!(config.gates.lease_checkpoint);
    assert_eq!(config.log.level, LogLevel::Debug);
    let told = "--experimental-enable-lease-checkpoint is deprecated in v3.6 and will be decommissioned in v3.7. Use \
                '--feature-gates=LeaseCheckpoint=true' instead. (origin=--experimental-enable-lease-checkpoint)";
    assert!(start.notices().iter().any(|notice| notice == told), "{:#?}", start.notices());
    let silent = flags(&["--experimental-enable-lease-checkpoint", "--compat-version=3.5"]);
    assert!(!silent.notices().iter().any(|notice| notice.contains("is deprecated")));
}

#[test]
fn an_old_and_a_new_name_together_are_a_mistake() {
    let cases: [(&[&str], &str); 4] = [
        (
            &["--experimental-corrupt-check-time=1s", "--corrupt-check-time=1s"],
            "cannot set --experimental-corrupt-check-time and --corrupt-check-time at the same time, please use \
             --corrupt-check-time only",
        ),
        (
            &["--experimental-warning-unary-request-duration=1s", "--warning-unary-request-duration=1s"],
            "both --experimental-warning-unary-request-duration and --warning-unary-request-duration flags are set. Use \
             only --warning-unary-request-duration",
        ),
        (
            &["--experimental-enable-lease-checkpoint", "--feature-gates=LeaseCheckpoint=false"],
            "cannot specify both flags: --experimental-enable-lease-checkpoint=true and \
             --feature-gates=LeaseCheckpoint=false at the same time, please just use \
             --feature-gates=LeaseCheckpoint=false",
        ),
        (
            &["--log-output=stdout", "--log-outputs=stderr"],
            "both '--log-output' and '--log-outputs' are set; only set '--log-outputs'",
        ),
    ];
    for (words, text) in cases {
        assert_eq!(flags(words).mistakes(), [text]);
    }
}

#[test]
fn the_imitated_version_decides_defaults_and_texts() {
    assert_eq!(flags(&[]).config().storage.snapshot_entries, 10_000);
    assert_eq!(flags(&["--compat-version=3.5"]).config().storage.snapshot_entries, 100_000);
    let empty_host = |compat: &str| flags(&["--advertise-client-urls=http://:1", compat]).mistakes().remove(0);
    assert_eq!(
        empty_host("--compat-version=3.5"),
        "--advertise-client-urls \"http://:1\" must be \"host:port\" (unexpected empty host (http://:1))"
    );
    assert!(empty_host("--compat-version=3.7").contains("\"unixs:/path/to/socket\""));
}

#[test]
fn what_asks_for_nothing_or_only_lacks_comfort_starts() {
    let harmless = ["--proxy=off", "--enable-v2=false", "--discovery=", "--client-cert-auth=false", "--cert-file="];
    assert!(!flags(&harmless).notices().iter().any(|notice| notice.contains("has no effect")));
    let wanting = ["--experimental-enable-v2v3=/v2", "--backend-batch-limit=5", "--feature-gates=PriorityRequest=true"];
    let notices = flags(&wanting).notices();
    assert_eq!(notices.iter().filter(|notice| notice.contains("has no effect")).count(), 3, "{notices:#?}");
}

#[test]
fn no_option_is_ignored_silently() {
    let silent = |spec: &&OptionSpec| {
        let value = match spec.kind {
            Kind::Switch => {
                if spec.default == "true" {
                    "false"
                } else {
                    "true"
                }
            }
            Kind::Select(words) => words.iter().find(|word| **word != spec.default).copied().unwrap_or_default(),
            _ => spec.example,
        };
        let start = flags(&[&format!("--{}={value}", spec.name)]);
        let needed = start.load().map(|loaded| {
            loaded
                .notices
                .iter()
                .any(|notice| notice.message.contains("no effect") || notice.message.contains("no longer supported"))
        });
        // Whatever is refused or warned about is not silent; what works needs no word.
        spec.support != feature::Support::Works && spec.example != spec.default && matches!(needed, Ok(false))
    };
    let names: Vec<_> = OPTIONS.iter().filter(|spec| spec.is_current()).filter(silent).map(|spec| spec.name).collect();
    assert_eq!(names, Vec::<&str>::new());
}

#[test]
fn every_mistake_is_told_at_once() {
    let words = ["--foo=1", "--heartbeat-interval=0", "--max-wals=x", "--log-level=loud", "--auto-compaction-mode=x"];
    let expected = [
        "flag provided but not defined: -foo",
        "invalid value \"x\" for flag -max-wals: parse error",
        "unrecognized level: \"loud\"",
        "--heartbeat-interval must be >0 (set to 0ms)",
        "unknown auto-compaction-mode \"x\"",
    ];
    assert_eq!(flags(&words).mistakes(), expected);
}

#[test]
fn relations_between_options_are_told_in_etcds_words() {
    let cases: [(&[&str], &str); 21] = [
        (&["--election-timeout=0"], "--election-timeout must be >0 (set to 0ms)"),
        (
            &["--election-timeout=499"],
            "--election-timeout[499ms] should be at least as 5 times as --heartbeat-interval[100ms]",
        ),
        (&["--election-timeout=50001"], "--election-timeout[50001ms] is too long, and should be set less than 50000ms"),
        (
            &["--listen-client-urls=http://127.0.0.1:1"],
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (&["--listen-metrics-urls=http://foo:1"], "expected IP in URL for binding (http://foo:1)"),
        (&["--auto-compaction-mode="], "undefined auto-compaction-mode"),
        (
            &["--auto-compaction-retention=5x"],
            "error parsing CompactionRetention: time: unknown unit \"x\" in duration \"5x\"",
        ),
        (&["--compact-hash-check-time=-1s"], "--compact-hash-check-time must be >0 (set to -1s)"),
        (
            &["--feature-gates=LeaseCheckpointPersist=true"],
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
        ),
        (&["--logger=capnslog"], "--logger=capnslog is removed in v3.5"),
        (&["--log-outputs=default,stderr"], "multi logoutput for \"default\" is not supported yet"),
        (&["--log-outputs=default,systemd/journal"], "multi logoutput for \"default\" is not supported yet"),
        (
            &["--log-outputs=systemd/journal,stderr"],
            "running with systemd/journal but other '--log-outputs' values ([\"stderr\" \"systemd/journal\"]) are \
             configured with 'default'; override 'default' value with something else",
        ),
        (
            &["--discovery-fallback=proxy"],
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
        ),
        (&["--log-format=xml"], "unknown log format: xml, supported values json, console"),
        (
            &["--enable-log-rotation"],
            "--log-outputs requires a single file path when --log-rotate-config-json is defined",
        ),
        (&["--auth-token=paseto"], "auth: invalid auth options"),
        (
            &["--initial-cluster=default=x"],
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: x",
        ),
        (
            &["--name=a", "--initial-cluster=b=http://127.0.0.1:1"],
            "couldn't find local name \"a\" in the initial cluster configuration",
        ),
        (&["--initial-cluster="], "couldn't find local name \"default\" in the initial cluster configuration"),
        (
            &["--initial-cluster=default=http://127.0.0.1:1"],
            "--initial-cluster has default=http://127.0.0.1:1 but missing from \
             --initial-advertise-peer-urls=http://localhost:2380 (resolved urls: \"http://localhost:2380\" != \
             \"http://127.0.0.1:1\")",
        ),
    ];
    for (words, text) in cases {
        assert_eq!(flags(words).mistakes(), [text], "{words:?}");
    }
}

#[test]
fn an_initialised_member_needs_no_entry_of_its_own() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = format!("--data-dir={}", place.path().display());
    let words = ["--name=a", "--initial-cluster=b=http://127.0.0.1:1", &dir];
    assert!(flags(&words).load().is_err());
    let wal = place.path().join("member/wal");
    fs::create_dir_all(&wal).expect("made");
    fs::write(wal.join("0000000000000000-0000000000000000.wal"), "").expect("written");
    assert!(flags(&words).config().member.is_initialized());
    let words = ["--discovery=http://x/y", "--initial-cluster-state=existing", &dir];
    assert!(flags(&words).config().member.is_initialized(), "how it was founded does not matter any more");
}

#[test]
fn the_data_directory_decides_what_a_node_is() {
    let place = tempfile::tempdir().expect("a directory");
    let (member, proxy) = (place.path().join("member"), place.path().join("proxy"));
    let dir = format!("--data-dir={}", place.path().display());
    let role = || flags(&[&dir]).config().role();
    fs::create_dir(&proxy).expect("made");
    assert_eq!(role(), Ok(Role::Member), "a start that failed has left it");
    fs::write(proxy.join("cluster"), "{}").expect("written");
    assert_eq!(role(), Ok(Role::Proxy(ProxyMode::On)));
    // As etcd leaves it when the cluster was full.
    fs::create_dir_all(member.join("snap")).expect("made");
    fs::write(member.join("snap/db"), "").expect("written");
    assert_eq!(role(), Ok(Role::Proxy(ProxyMode::On)));
    fs::create_dir(member.join("wal")).expect("made");
    fs::write(member.join("wal/0000000000000000-0000000000000000.wal"), "").expect("written");
    assert_eq!(role(), Err(TwoRoles(place.path().to_owned())));
    fs::remove_dir_all(&proxy).expect("removed");
    assert_eq!(role(), Ok(Role::Member));
}

#[test]
fn a_proxy_needs_more_than_v3_discovery_unless_it_knows_its_cluster() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = format!("--data-dir={}", place.path().display());
    let words = ["--proxy=on", "--discovery-token=t", "--discovery-endpoints=127.0.0.1:1", &dir];
    let refusal = flags(&words).load().expect_err("refused").to_string();
    assert!(
        refusal.contains("v3 discovery tells a proxy nothing: name the members with --initial-cluster"),
        "{refusal}"
    );
    fs::create_dir(place.path().join("proxy")).expect("made");
    fs::write(place.path().join("proxy/cluster"), r#"{"PeerURLs":["http://a:1"]}"#).expect("written");
    assert_eq!(flags(&words).config().role(), Ok(Role::Proxy(ProxyMode::On)));
}

#[test]
fn a_cluster_is_found_in_one_way() {
    for (words, what) in [
        (
            &["--discovery=http://x/y", "--discovery-srv=example.com"][..],
            "multiple discovery or bootstrap flags are set",
        ),
        (
            &["--discovery=http://x/y", "--initial-cluster=default=http://127.0.0.1:1"],
            "multiple discovery or bootstrap",
        ),
        (&["--discovery-endpoints=a:1", "--discovery-token=t", "--discovery-srv=example.com"], "multiple discovery"),
        (&["--discovery=http://x/y", "--discovery-token=t"], "both v2 discovery settings (discovery, discovery-proxy)"),
        (&["--discovery-proxy=p:1", "--discovery-endpoints=a:1", "--discovery-token=t"], "both v2 discovery settings"),
        (&["--discovery-token=t"], "both --discovery-token and --discovery-endpoints must be set"),
        (&["--discovery-endpoints=a:1"], "both --discovery-token and --discovery-endpoints must be set"),
        (&["--discovery-token=t", "--discovery-endpoints=a:1,,b:1"], "--discovery-endpoints must not contain empty"),
        (&["--discovery=x/y"], "unsupported protocol scheme \"\""),
        (&["--discovery=http:///y"], "no host in \"http:///y\""),
        (
            &["--discovery=http://x/y", "--initial-cluster-state=existing"],
            "discovery URL should not be set when joining existing initial cluster",
        ),
    ] {
        let errors = flags(words).load().expect_err("refused").to_string();
        assert!(errors.contains(what), "{words:?}: {errors}");
    }
    let two = Start::default().env("ETCD_DISCOVERY", "http://x/y").env("ETCD_DISCOVERY_TOKEN", "t");
    let errors = two.flags(&["--discovery-endpoints=a:1"]).load().expect_err("refused").to_string();
    assert!(errors.contains("ETCD_DISCOVERY=http://x/y: multiple discovery"), "what nobody set is not named: {errors}");
    assert!(errors.contains("leave all but one of ETCD_DISCOVERY and --discovery-endpoints empty"), "{errors}");
    let config = Start::default().env("ETCD_INITIAL_CLUSTER", "").env("ETCD_DISCOVERY", "http://x/y").config();
    let BootstrapMethod::DiscoveryV2 { url, proxy: None, .. } = config.bootstrap.method else { panic!("v2 discovery") };
    assert_eq!(url, "http://x/y");
}

#[test]
fn what_etcd_takes_however_odd_is_taken() {
    let old = flags(&["--compat-version=3.5", "--discovery-fallback=proxy"]).config();
    assert_eq!(old.compat, Compat::V3_5);
    let suites = flags(&["--cipher-suites=TLS_AES_128_GCM_SHA256,TLS_CHACHA20_POLY1305_SHA256"]).config();
    assert_eq!(suites.tls.cipher_suites.len(), 2);
    let file =
        Start::default().file("config-file", "a.yml", "initial-cluster-state: ''\nself-signed-cert-validity: 0\n");
    assert_eq!(file.config().bootstrap.state, ClusterState::New);
    assert_eq!(file.config().tls.self_signed_years, 1);
    let words = ["--auto-compaction-mode=revision", "--auto-compaction-retention=1us"];
    assert_eq!(flags(&words).config().storage.auto_compaction, AutoCompaction::Revision(1000));
    assert!(flags(&words).notices().iter().any(|notice| notice.contains("1000 revisions")));
}

#[test]
fn encrypted_listeners_need_something_to_show() {
    let client = "--listen-client-urls=https://127.0.0.1:1";
    let advertised = "--advertise-client-urls=https://127.0.0.1:1";
    for (words, text) in [
        (
            &[client, advertised][..],
            "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:1 with HTTPS scheme",
        ),
        (
            &["--listen-peer-urls=https://127.0.0.1:1"],
            "cannot listen on TLS for 127.0.0.1:1: KeyFile and CertFile are not presented",
        ),
        (
            &["--listen-metrics-urls=https://127.0.0.1:1"],
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url",
        ),
        (&[client, advertised, "--cert-file=/c"], "KeyFile and CertFile must both be present[key: , cert: /c]"),
        (&["--key-file=/k"], "KeyFile and CertFile must both be present[key: /k, cert: ]"),
        (
            &["--peer-client-cert-file=/c"],
            "ClientKeyFile and ClientCertFile must both be present or both absent: key: , cert: /c]",
        ),
    ] {
        assert_eq!(flags(words).mistakes(), [text]);
    }
    let config = flags(&[client, advertised, "--auto-tls", "--trusted-ca-file=/ca"]).config();
    assert_eq!(config.tls.client.server, Some(Presented::Generated));
    assert!(config.tls.client.demands_certificates() && !config.tls.peer.demands_certificates());
    let pair = KeyPair { cert: "/c".into(), key: "/k".into(), password: None };
    let both = ["--auto-tls", "--cert-file=/c", "--key-file=/k", "--client-cert-auth"];
    assert_eq!(flags(&both).config().tls.client.server, Some(Presented::Files(pair)));
}

#[test]
fn what_only_encrypted_listeners_use_is_told_of_plain_ones() {
    let notices = flags(&["--auto-tls", "--cert-file=/c", "--key-file=/k", "--client-cert-auth"]).notices();
    for told in [
        "ignoring client auto TLS since certs given",
        "scheme is http or unix while key and cert files are present; ignoring key and cert files \
         (client-url=http://localhost:2379)",
        "scheme is http or unix while --client-cert-auth is enabled; ignoring client cert auth for this URL \
         (client-url=http://localhost:2379)",
    ] {
        assert!(notices.iter().any(|notice| notice.starts_with(told)), "{told}: {notices:#?}");
    }
    let notices = flags(&["--peer-auto-tls", "--peer-client-cert-auth"]).notices();
    for told in [
        "scheme is HTTP while key and cert files are present; ignoring key and cert files \
         (peer-url=http://localhost:2380)",
        "scheme is HTTP while --peer-client-cert-auth is enabled; ignoring client cert auth for this URL \
         (peer-url=http://localhost:2380)",
    ] {
        assert!(notices.iter().any(|notice| notice.starts_with(told)), "{told}: {notices:#?}");
    }
}

#[test]
fn a_name_alone_founds_a_cluster_of_one() {
    let config = flags(&["--name=a", "--initial-advertise-peer-urls=http://127.0.0.1:1"]).config();
    let BootstrapMethod::Static(cluster) = config.bootstrap.method else { panic!("static") };
    assert_eq!(cluster.to_string(), "a=http://127.0.0.1:1");
    assert_eq!(config.member.data_dir, PathBuf::from("a.etcd"));
}

#[test]
fn who_listens_everywhere_advertises_the_default_host_unless_told() {
    let v4: Option<IpAddr> = Some(IpAddr::from([10, 5, 12, 16]));
    let v6 = Some("2001:db8::7".parse().expect("an address"));
    let (peer, client) = ("--listen-peer-urls=http://0.0.0.0:6667", "--listen-client-urls=http://0.0.0.0:6666");
    let (default_peer, default_client) = ("http://localhost:2380", "http://localhost:2379");
    let cases: [(&[&str], Option<IpAddr>, &str, &str); 9] = [
        (&[peer], v4, "http://10.5.12.16:6667", default_client),
        (&[peer], v6, "http://[2001:db8::7]:6667", default_client),
        (&[peer], None, default_peer, default_client),
        (&["--listen-peer-urls=http://127.0.0.1:1,http://0.0.0.0:2"], v4, "http://10.5.12.16:2", default_client),
        (&["--listen-peer-urls=http://[::]:6667"], v4, default_peer, default_client),
        (&["--listen-peer-urls=http://127.0.0.1:6667"], v4, default_peer, default_client),
        (&[peer, "--initial-advertise-peer-urls=http://127.0.0.1:1"], v4, "http://127.0.0.1:1", default_client),
        // The default is no answer even where it is given.
        (&[client, "--advertise-client-urls=http://localhost:2379"], v4, default_peer, "http://10.5.12.16:6666"),
        (&[client, "--advertise-client-urls=http://127.0.0.1:1"], v4, default_peer, "http://127.0.0.1:1"),
    ];
    for (words, default_host, peers, clients) in cases {
        let mut start = flags(&["--name=x"]).flags(words);
        start.sources.default_host = default_host;
        let Config { advertise, bootstrap, .. } = start.config();
        let text = |urls: &[Url]| urls.iter().map(Url::to_string).collect::<Vec<_>>().join(",");
        assert_eq!((text(&advertise.peer).as_str(), text(&advertise.client).as_str()), (peers, clients), "{words:?}");
        let BootstrapMethod::Static(cluster) = bootstrap.method else { panic!("static") };
        assert_eq!(cluster.to_string(), format!("x={peers}"), "{words:?}");
    }
}

#[test]
fn the_default_host_is_told_once_and_shown() {
    let everywhere = ["--listen-peer-urls=http://0.0.0.0:2380", "--listen-client-urls=http://0.0.0.0:2379"];
    let mut start = flags(&["--name=x", "--advertise-client-urls=http://localhost:2379"]).flags(&everywhere);
    let told = |start: &Start| {
        start.notices().into_iter().filter(|notice| notice.contains("default host")).collect::<Vec<_>>()
    };
    assert_eq!(told(&start), ["failed to detect default host"]);
    start.sources.default_host = Some(IpAddr::from([10, 5, 12, 16]));
    assert_eq!(told(&start), ["detected default host for advertise (host=10.5.12.16)"]);
    let settings = start.load().expect("valid").settings;
    let shown = settings.get("initial-advertise-peer-urls").expect("an option");
    assert_eq!((shown.value.to_text().as_str(), shown.is_set), ("http://10.5.12.16:2380", false));
}

#[test]
fn credentials_are_files_that_the_service_manager_hands_over() {
    let words = ["--peer-cert-file=credential:c", "--peer-key-file=/k", "--peer-key-password-file=credential:p"];
    let start = || flags(&words);
    let peer = |start: Start| start.config().tls.peer.server_files().cloned().expect("a pair");
    let found = peer(start().env("CREDENTIALS_DIRECTORY", "/run/credentials/x"));
    assert_eq!((found.cert, found.key), ("/run/credentials/x/c".into(), "/k".into()));
    assert_eq!(found.password, Some("/run/credentials/x/p".into()));
    assert_eq!(peer(start()).cert, PathBuf::from("credential:c"), "whoever only looks at the configuration has none");
    assert!(start().notices().iter().any(|notice| notice.contains("no credentials were handed over")));
    let mistakes = flags(&["--trusted-ca-file=credential:../etc/shadow"]).mistakes();
    assert!(mistakes[0].contains("is no name of a credential"), "{mistakes:?}");
}

#[test]
fn names_of_certificates_are_of_one_kind_on_each_side() {
    let names = |words: &[&str]| flags(words).config().tls.client;
    let client = names(&["--client-cert-allowed-cn=a,b,"]);
    assert_eq!((client.allowed_cns, client.allowed_hostnames), (vec!["a".to_owned(), "b".to_owned()], Vec::new()));
    for side in ["client", "peer"] {
        let words = [format!("--{side}-cert-allowed-cn=a"), format!("--{side}-cert-allowed-hostname=b,c")];
        let told = r#"AllowedCNs and AllowedHostnames are mutually exclusive (cns=["a"], hostnames=["b" "c"])"#;
        assert_eq!(flags(&words.each_ref().map(String::as_str)).mistakes(), [told]);
    }
}

#[test]
fn gomaxprocs_asks_for_threads() {
    assert_eq!(Start::default().env("GOMAXPROCS", "3").config().threads.map(Into::into), Some(3_usize));
    assert_eq!(Start::default().env("GOMAXPROCS", "many").config().threads, None);
}

#[test]
fn variables_of_gos_runtime_are_explained_once() {
    let start = Start::default().env("GOMEMLIMIT", "1GiB").env("GOMAXPROCS", "2").env("GOGC", "50");
    let notices = start.notices();
    let told: Vec<_> = notices.iter().filter(|notice| notice.contains("Go's runtime")).collect();
    let [only] = told.as_slice() else { panic!("{notices:#?}") };
    assert!(only.ends_with("(variables=GOGC=50 GOMAXPROCS=2 GOMEMLIMIT=1GiB)"), "{only}");
    assert!(!Start::default().notices().iter().any(|notice| notice.contains("Go's runtime")));
}

#[test]
fn commands_are_told_apart() {
    let command = |words: &[&str]| command(&flags(words).sources);
    assert_eq!(command(&[]), Ok(Command::Serve));
    assert_eq!(command(&["--name=a"]), Ok(Command::Serve));
    assert_eq!(command(&["--version"]), Ok(Command::Version(Compat::V3_7)));
    assert_eq!(command(&["--version=false"]), Ok(Command::Serve));
    assert_eq!(command(&["--compat-version=3.5", "--version"]), Ok(Command::Version(Compat::V3_5)));
    assert_eq!(command(&["-h"]), Ok(Command::Help));
    assert_eq!(command(&["gateway", "start"]), Ok(Command::Gateway(vec!["start".into()])));
    assert_eq!(command(&["config", "check"]), Ok(Command::Config(vec!["check".into()])));
    assert_eq!(command(&["--foo", "--version"]).expect_err("a mistake").exit_code(), 2);
    assert_eq!(command(&["start"]).expect_err("a mistake").exit_code(), 1);
}

/// Reads back what `show` wrote.
fn reload(format: Format, text: &str) -> Result<Loaded, ConfigErrors> {
    let file = |flag: &str| Start::default().file(flag, "shown", text).load();
    match format {
        Format::Toml => file("config"),
        Format::Env => file("env-file"),
        Format::Yaml | Format::Json => file("config-file"),
        Format::Flags => {
            let words: Vec<String> = text.lines().filter(|line| !line.starts_with("# ")).map(unquote).collect();
            flags(&words.iter().map(String::as_str).collect::<Vec<_>>()).load()
        }
    }
}

/// A line of one shell word.
fn unquote(line: &str) -> String {
    line.replace("'\\''", "\u{1}").replace('\'', "").replace('\u{1}', "'")
}

/// Whether every form leads to the same configuration.
fn survives_every_form(start: &Start, shown: Shown) {
    let loaded = start.load().unwrap_or_else(|errors| panic!("{errors}"));
    for (name, format) in Format::ALL {
        // With origins JSON is a list, which only tells.
        let shown = Shown { origin: shown.origin && format != Format::Json, ..shown };
        let text = match show::render(&loaded.settings, format, shown) {
            Ok(rendered) => rendered.text,
            Err(lost) => {
                assert!(format == Format::Env && !lost.is_empty());
                continue;
            }
        };
        let again = reload(format, &text).unwrap_or_else(|errors| panic!("{name}: {errors}\n{text}"));
        assert_eq!(again.config, loaded.config, "{name}:\n{text}");
    }
}

#[test]
fn what_is_shown_reads_back_alike_in_every_form() {
    let start = flags(&[
        "--name=a'b \"c\" #d",
        "--data-dir=/tmp/x y/$z",
        "--listen-client-urls=http://127.0.0.1:1,http://[::1]:2",
        "--advertise-client-urls=http://127.0.0.1:1",
        "--listen-metrics-urls=http://127.0.0.1:3",
        "--initial-advertise-peer-urls=http://10.0.0.1:2380",
        "--initial-cluster=a'b \"c\" #d=http://10.0.0.1:2380,b=http://10.0.0.2:2380",
        "--quota-backend-bytes=-1",
        "--grpc-keepalive-interval=1h30m",
        "--auto-compaction-retention=5m",
        "--experimental-enable-lease-checkpoint",
        "--feature-gates=LeaseCheckpointPersist=true",
        "--log-outputs=/tmp/l,stderr",
        "--host-whitelist=a,b",
        "--cors=http://x:1",
        "--raft-read-timeout=7s",
        "--socket-reuse-port",
        "--compat-version=3.6",
        "--debug",
        "--auth-token-ttl=5",
    ]);
    survives_every_form(&start, Shown::default());
    survives_every_form(&start, Shown { set_only: true, origin: true });
    survives_every_form(&flags(&["--auth-token=", "--name="]), Shown::default());
}

#[test]
fn yaml_alone_needs_no_advertised_address_but_what_it_becomes_does() {
    let start = Start::default().file("config-file", "c.yml", "listen-client-urls: http://127.0.0.1:1\n");
    survives_every_form(&start, Shown::default());
    survives_every_form(&start, Shown { set_only: true, origin: false });
}

#[test]
fn samples_name_every_option_and_are_valid_when_uncommented() {
    for (form, flag) in [(Form::Toml, "config"), (Form::Variable, "env-file")] {
        let sample = show::sample(form);
        let settable = OPTIONS.iter().filter(|spec| spec.is_current() && spec.yaml != YamlKey::None);
        for spec in settable.filter(|spec| !spec.default.is_empty()) {
            let line = form.spell(spec, spec.default);
            assert!(sample.contains(&format!("#{line}\n")), "{line}");
            let start = Start::default().file(flag, "sample", &format!("{line}\n"));
            let broken = start.load().err().map(|errors| errors.to_string()).unwrap_or_default();
            assert!(!broken.contains("invalid value") && !broken.contains("wants"), "{broken}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn random_options_read_back_alike_in_every_form(
        name in "[ -~äß]{1,12}",
        token in "[ -~]{0,12}",
        numbers in proptest::collection::vec(1_u32..5000, 5),
        nanos in proptest::collection::vec(1_i64..i64::MAX / 4, 4),
        switches in proptest::collection::vec(any::<bool>(), 5),
    ) {
        let name = name.replace([',', '='], "x").trim().to_owned();
        let words = [
            format!("--name={name}"),
            format!("--initial-cluster-token={token}"),
            format!("--heartbeat-interval={}", numbers[0]),
            format!("--election-timeout={}", u64::from(numbers[0]) * 5),
            format!("--max-txn-ops={}", numbers[1]),
            format!("--quota-backend-bytes={}", i64::from(numbers[2]) - 2500),
            format!("--compaction-batch-limit={}", numbers[3]),
            format!("--grpc-keepalive-min-time={}ns", nanos[0]),
            format!("--grpc-keepalive-timeout={}ns", nanos[1]),
            format!("--watch-progress-notify-interval={}ns", nanos[2]),
            format!("--raft-read-timeout={}ns", nanos[3]),
            format!("--pre-vote={}", switches[0]),
            format!("--unsafe-no-fsync={}", switches[1]),
            format!("--enable-grpc-gateway={}", switches[2]),
            format!("--strict-reconfig-check={}", switches[3]),
            format!("--feature-gates=LeaseCheckpoint={},AllBeta={}", switches[4], switches[0]),
        ];
        let start = flags(&words.iter().map(String::as_str).collect::<Vec<_>>());
        if let Ok(loaded) = start.load() {
            for (form, format) in Format::ALL {
                let shown = Shown { set_only: switches[0], origin: false };
                let Ok(show::Rendered { text, .. }) = show::render(&loaded.settings, format, shown) else { continue };
                let again = reload(format, &text);
                prop_assert!(again.is_ok(), "{form}: {:?}\n{text}", again.err().map(|errors| errors.to_string()));
                prop_assert_eq!(&again.expect("checked").config, &loaded.config, "{}:\n{}", form, text);
            }
        }
    }

    #[test]
    fn any_arguments_and_variables_load_without_panic(
        words in proptest::collection::vec("--(name|listen-peer-urls|initial-cluster|max-wals|cors|debug|feature-gates|auth-token)=[ -~]{0,12}", 0..4),
        values in proptest::collection::vec("[ -~]{0,12}", 3),
    ) {
        let mut start = flags(&words.iter().map(String::as_str).collect::<Vec<_>>());
        for (name, value) in ["ETCD_LISTEN_CLIENT_URLS", "ETCD_ELECTION_TIMEOUT", "ETCD_LOG_OUTPUTS"].iter().zip(&values) {
            start = start.env(name, value);
        }
        if let Err(errors) = start.load() {
            prop_assert!(errors.problems().iter().all(|problem| !problem.to_string().contains('\n')));
        }
    }

    #[test]
    fn any_files_load_without_panic(text in "([a-z]{1,8}|name|listen-client-urls|log-outputs|debug)( = |: |=)[ -~]{0,10}\n?[ -~\n]{0,30}") {
        for flag in ["config", "env-file", "config-file"] {
            if let Err(errors) = Start::default().file(flag, "f", &text).load() {
                prop_assert!(errors.problems().iter().all(|problem| !problem.to_string().contains('\n')));
            }
        }
    }
}

#[test]
fn no_concurrent_streams_means_any_number_as_in_grpc() {
    assert_eq!(flags(&["--max-concurrent-streams=0"]).config().limits.concurrent_streams_max, u32::MAX);
    assert_eq!(flags(&["--max-concurrent-streams=7"]).config().limits.concurrent_streams_max, 7);
}

#[test]
fn scheduled_snapshots_are_off_until_they_have_a_period() {
    let config = flags(&["--data-dir=/d"]).config();
    assert_eq!(config.storage.scheduled.period, None);
    assert_eq!(config.snapshot_dir(), PathBuf::from("/d/snapshots"));
    let words = ["--snapshot-schedule=6h", "--snapshot-dir=/b", "--snapshot-keep=0", "--snapshot-keep-time=48h"];
    let config = flags(&words).config();
    assert_eq!(config.snapshot_dir(), PathBuf::from("/b"));
    let scheduled = config.storage.scheduled;
    assert_eq!(scheduled.period, Some(Duration::from_hours(6)));
    assert_eq!((scheduled.files_max, scheduled.age_max), (None, Some(Duration::from_hours(48))));
    for (word, text) in [
        ("--snapshot-schedule=1ms", "--snapshot-schedule must be at least a second, or 0 for no snapshots"),
        ("--snapshot-schedule=-1s", "--snapshot-schedule must not be negative (set to -1s)"),
    ] {
        assert_eq!(flags(&[word]).mistakes(), [text]);
    }
    assert!(flags(&[]).config().storage.lifts_no_space);
    assert!(!flags(&["--nospace-disarm=manual"]).config().storage.lifts_no_space);
}

#[test]
fn the_audit_log_is_off_until_it_has_a_place() {
    assert_eq!(flags(&["--audit-log-sample=0"]).config().audit, None);
    let words = ["--audit-log=/l/a", "--audit-log-sample=7", "--audit-log-rotate-size=2", "--audit-log-rotate-keep=0"];
    let audit = flags(&words).config().audit.expect("it is on");
    assert_eq!(audit.output, LogOutput::File(PathBuf::from("/l/a")));
    assert_eq!((audit.reads_per_million, audit.file_bytes_max, audit.files_max), (7, Some(2 << 20), 0));
    let audit = flags(&["--audit-log=stdout", "--audit-log-rotate-size=0"]).config().audit.expect("it is on");
    assert_eq!((audit.output, audit.reads_per_million), (LogOutput::Stdout, 1_000_000));
    assert_eq!((audit.file_bytes_max, audit.files_max), (None, 10));
    for (word, text) in [
        ("--audit-log=/l/", "--audit-log must name a file, not a directory (\"/l/\")"),
        ("--audit-log=stderr", "--audit-log stderr is where the log goes, too (--log-outputs)"),
        ("--audit-log-sample=1000001", "--audit-log-sample must be at most 1000000 (set to 1000001)"),
        ("--audit-log-rotate-size=1048577", "--audit-log-rotate-size must be at most 1048576 (set to 1048577)"),
        ("--audit-log-rotate-keep=1001", "--audit-log-rotate-keep must be at most 1000 (set to 1001)"),
    ] {
        assert_eq!(flags(&[word]).mistakes(), [text]);
    }
}
