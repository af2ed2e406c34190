//! The deployment guide's configuration, by every way a process can get it: the environment file, the variables that
//! systemd makes of it, and the flags that the guide shows in the process list. All three are the same configuration.

use std::{ffi::OsString, fs};

use quorate::config::{self, BootstrapMethod, ClusterState, Config, Sources, env_file};

/// `/opt/kubernetes/cfg/etcd.conf` of the guide's first node, on loopback addresses.
const ENV_FILE: &str = r#"ETCD_NAME=etcd1
ETCD_DATA_DIR="/data/etcd"
ETCD_LISTEN_CLIENT_URLS="http://127.5.12.16:2379,http://127.0.0.1:2379"
ETCD_LISTEN_PEER_URLS="http://127.5.12.16:2380"
ETCD_INITIAL_ADVERTISE_PEER_URLS="http://127.5.12.16:2380"
ETCD_INITIAL_CLUSTER="etcd1=http://127.5.12.16:2380,etcd2=http://127.5.12.17:2380,etcd3=http://127.5.12.18:2380"
ETCD_INITIAL_CLUSTER_STATE="new"
ETCD_INITIAL_CLUSTER_TOKEN="etcd-cluster"
ETCD_ADVERTISE_CLIENT_URLS="http://127.5.12.16:2379"
"#;

/// The command line that the guide's `ps` shows.
const FLAGS: &str = "--name etcd1 --data-dir /data/etcd \
    --listen-client-urls http://127.5.12.16:2379,http://127.0.0.1:2379 --listen-peer-urls http://127.5.12.16:2380 \
    --initial-advertise-peer-urls http://127.5.12.16:2380 \
    --initial-cluster etcd1=http://127.5.12.16:2380,etcd2=http://127.5.12.17:2380,etcd3=http://127.5.12.18:2380 \
    --advertise-client-urls http://127.5.12.16:2379 --initial-cluster-token etcd-cluster --initial-cluster-state new";

fn words(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

fn load(sources: &Sources) -> Config {
    config::load(sources).unwrap_or_else(|errors| panic!("{errors}")).config
}

fn from_file(text: &str) -> Result<Config, config::ConfigErrors> {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("etcd.conf");
    fs::write(&path, text).expect("written");
    let args = vec!["--env-file".into(), path.into()];
    config::load(&Sources { args, ..Sources::default() }).map(|loaded| loaded.config)
}

fn variables(text: &str) -> Vec<(OsString, OsString)> {
    let file = env_file::parse(text.as_bytes()).expect("text");
    file.assignments.into_iter().map(|(_, name, value)| (name.into(), value.into())).collect()
}

#[test]
fn file_variables_and_flags_are_the_same_configuration() {
    let by_file = from_file(ENV_FILE).unwrap_or_else(|errors| panic!("{errors}"));
    let by_variables = load(&Sources { env: variables(ENV_FILE), ..Sources::default() });
    let by_flags = load(&Sources { args: words(FLAGS), ..Sources::default() });
    assert_eq!(by_file, by_variables);
    assert_eq!(by_file, by_flags);
}

#[test]
fn the_configuration_is_what_the_guide_says() {
    let config = from_file(ENV_FILE).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!((config.member.name.as_str(), config.member.data_dir.to_str()), ("etcd1", Some("/data/etcd")));
    let listen: Vec<_> = config.listen.client.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["http://127.0.0.1:2379", "http://127.5.12.16:2379"]);
    assert_eq!((config.bootstrap.state, config.bootstrap.token.as_str()), (ClusterState::New, "etcd-cluster"));
    let BootstrapMethod::Static(cluster) = config.bootstrap.method else { panic!("static") };
    assert_eq!(cluster.0.keys().collect::<Vec<_>>(), ["etcd1", "etcd2", "etcd3"]);
}

#[test]
fn the_unit_of_old_distributions_starts_although_it_gives_options_twice() {
    let args =
        words("--name=etcd1 --data-dir=/data/etcd --listen-client-urls=http://127.5.12.16:2379,http://127.0.0.1:2379");
    let both = config::load(&Sources { args, env: variables(ENV_FILE), ..Sources::default() });
    let loaded = both.unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(loaded.config, from_file(ENV_FILE).unwrap_or_else(|errors| panic!("{errors}")));
    assert!(!loaded.notices.iter().any(|notice| notice.message.contains("shadowed")));
}

#[test]
fn three_planted_mistakes_are_three_lines_with_their_places() {
    let text = ENV_FILE
        .replace(",http://127.0.0.1:2379", ",127.0.0.1:2379")
        .replace("STATE=\"new\"", "STATE=\"neu\"")
        .replace("PEER_URLS=\"http://127.5.12.16:2380\"", "PEER_URLS=\"http://127.5.12.16\"");
    let errors =
        from_file(&text.replacen("http://127.5.12.16\"", "http://127.5.12.16:2380\"", 1)).expect_err("mistakes");
    let shown: Vec<String> = errors.to_string().lines().map(str::to_owned).collect();
    assert_eq!((shown.len(), errors.exit_code()), (3, 1), "{shown:#?}");
    for (line, (number, option)) in shown.iter().zip([
        (3, "ETCD_LISTEN_CLIENT_URLS"),
        (5, "ETCD_INITIAL_ADVERTISE_PEER_URLS"),
        (7, "ETCD_INITIAL_CLUSTER_STATE"),
    ]) {
        assert!(line.contains(&format!("/etcd.conf:{number}: {option}=")), "{line}");
        assert!(line.contains("; correct: "), "{line}");
    }
}

#[test]
fn files_of_the_field_load() {
    // One line per oddity that real files hold.
    let odd = "[Member]\n# [Security]\nETCD_NAME=\"etcd1\" \nETCD_PROXY=off\nETCD_ENABLE_V2=true\nETCD_VERSION=\"false\"\n\
               ETCD_DEBUG=\"false\"\nETCD_DISCOVERY=\"\"\nETCD_SNAPSHOT_COUNTER=5\nCLIENT_CERT_AUTH=true\n\
               ETCDCTL_ENDPOINTS=http://127.0.0.1:2379\nETCD_UNSUPPORTED_ARCH=arm64\nETCD_OPTIONS=\"\"\n\
               ETCD_INITIAL_ADVERTISE_PEER_URLS=http://127.0.0.1:2380\n\
               ETCD_INITIAL_CLUSTER=\"etcd1=http://127.0.0.1:2380,\\\netcd2=http://127.0.0.2:2380\"\n";
    let config = from_file(odd).unwrap_or_else(|errors| panic!("{errors}"));
    let BootstrapMethod::Static(cluster) = config.bootstrap.method else { panic!("static") };
    assert_eq!(cluster.to_string(), "etcd1=http://127.0.0.1:2380,etcd2=http://127.0.0.2:2380");
}
