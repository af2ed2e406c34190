//! The alert rules and the dashboard ask for metrics that members publish, and each alert says what it must.
//!
//! There is no Prometheus here: the expressions are read for the names in them, not evaluated.

mod support;

use saphyr_parser::{Event, Parser};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::Path;
use support::cluster::{Cluster, PATIENCE};
use support::daemon::Daemon;
use support::program::Program;
use support::{http, wait_for};

const RULES: &str = "packaging/monitoring/quorate.rules.yml";
const DASHBOARD: &str = "packaging/monitoring/dashboard.json";
/// Where the packages put both.
const INSTALLED: &str = "usr/share/doc/quorate/monitoring";
/// What a name begins with that a member publishes; anything else in an expression is `PromQL`'s own.
const PREFIXES: [&str; 5] = ["etcd_", "grpc_server_", "process_", "quorate_", "os_"];
/// Families that have no row before something went wrong, without TLS, without an audit log or without traces, and so no scrape
/// of a healthy member shows.
const ONLY_IN_TROUBLE: [&str; 6] = [
    "etcd_debugging_server_alarms",
    "etcd_network_snapshot_send_failures",
    "quorate_audit_records_total",
    "quorate_spans_total",
    "quorate_tls_certificate_end_timestamp_seconds",
    "quorate_tls_handshakes_failed_total",
];
/// The size at which a member refuses writes.
const QUOTA: &str = "etcd_server_quota_backend_bytes";
/// What an alert may be called in earnest.
const SEVERITIES: [&str; 2] = ["critical", "warning"];

#[test]
fn every_metric_is_published_by_a_member_or_a_cluster() {
    let [rules, dashboard] = [rules(), dashboard()].map(|file| names(&file));
    assert!(rules.len() > 15 && dashboard.len() > 20, "the reader of names finds none: {rules:?} {dashboard:?}");
    let cluster = Cluster::start(3, &[]);
    cluster.ctl_until(0, &["put", "key", "value"]);
    let mut missing = BTreeSet::new();
    // What describes peers comes with the first message and the first probe between them.
    let all = wait_for(PATIENCE, || {
        let published = published(cluster.members.first()?);
        missing = rules.union(&dashboard).filter(|name| !published.contains(*name)).cloned().collect();
        let known = |name: &String| ONLY_IN_TROUBLE.contains(&name.as_str()) && in_registry(name);
        missing.iter().all(known).then_some(())
    });
    assert!(all.is_some(), "no member publishes {missing:?}");
}

#[test]
fn metrics_of_one_member_suffice_for_all_but_the_peers() {
    let daemon = Daemon::start(&Program::subject(), &[]);
    let published = published(&daemon);
    let absent: Vec<_> = names(&rules()).into_iter().filter(|name| !published.contains(name)).collect();
    let of_peers = |name: &&String| !name.starts_with("etcd_network_") && !ONLY_IN_TROUBLE.contains(&name.as_str());
    // The histogram of requests has a row for each type once there was one.
    let fresh: Vec<_> = absent.iter().filter(of_peers).filter(|name| !name.contains("request_duration")).collect();
    assert!(fresh.is_empty(), "a member alone does not publish {fresh:?}");
}

#[test]
fn an_alarm_is_published_as_the_rules_ask_for_it() {
    let daemon = Daemon::start(&Program::subject(), &[]);
    for alarm in ["NOSPACE", "CORRUPT"] {
        let raise = format!(r#"{{"action":"ACTIVATE","alarm":"{alarm}","memberID":"17"}}"#);
        let answer = http::post(daemon.client, "/v3/maintenance/alarm", &raise).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
        let row = format!(r#"etcd_debugging_server_alarms{{alarm_type="{alarm}",server_id="11"}} 1"#);
        let seen = wait_for(PATIENCE, || scrape(&daemon).contains(&row).then_some(()));
        assert!(seen.is_some(), "no row {row} in:\n{}", scrape(&daemon));
        let asked = format!(r#"alarm_type="{alarm}""#);
        assert!(expressions(&rules()).iter().any(|expression| expression.contains(&asked)), "no rule asks for {asked}");
    }
}

#[test]
fn each_alert_has_its_labels_and_says_what_to_do() {
    let rules = rules();
    let alerts: Vec<_> = list(&rules, "groups").iter().flat_map(|group| list(group, "rules")).collect();
    let named: BTreeSet<_> = alerts.iter().map(|alert| text(alert, "alert")).collect();
    assert_eq!(named.len(), alerts.len(), "two alerts have one name");
    for alert in alerts {
        let name = text(alert, "alert");
        assert!(name.starts_with("Quorate"), "{name}");
        assert!(!text(alert, "expr").is_empty(), "{name}: no expression");
        let severity = text(alert.get("labels").unwrap_or(&Value::Null), "severity");
        assert!(SEVERITIES.contains(&severity), "{name}: severity {severity:?}");
        let annotations = alert.get("annotations").unwrap_or(&Value::Null);
        assert!(text(annotations, "summary").contains("{{ $"), "{name}: the summary does not tell who");
        // One sentence names the trouble, more tell what to do.
        let description = text(annotations, "description");
        assert!(description.matches(['.', ':', ';']).count() >= 2, "{name}: {description:?}");
        let known = ["alert", "expr", "for", "labels", "annotations"];
        let keys = alert.as_object().expect("an alert is a map").keys();
        assert_eq!(
            keys.filter(|key| !known.contains(&key.as_str())).count(),
            0,
            "{name}: Prometheus refuses other keys"
        );
    }
}

/// A member without a quota publishes 0. Comparisons of `PromQL` go from left to right, so only parentheses keep that 0
/// from being compared with what it is a limit of.
#[test]
fn a_missing_quota_is_left_out_before_anything_is_compared_with_it() {
    let rules = rules();
    let asking: Vec<_> = expressions(&rules).into_iter().filter(|expression| expression.contains(QUOTA)).collect();
    assert!(!asking.is_empty(), "no rule asks for {QUOTA}");
    let guarded = format!("({QUOTA} > 0)");
    for expression in asking {
        assert_eq!(expression.matches(QUOTA).count(), expression.matches(&guarded).count(), "{expression}");
    }
}

#[test]
fn descriptions_name_options_and_commands_that_exist() {
    let sample = run(&Program::subject(), &["config", "sample", "--format", "env"]);
    let rules = rules();
    for alert in list(&rules, "groups").iter().flat_map(|group| list(group, "rules")) {
        let description = text(alert.get("annotations").unwrap_or(&Value::Null), "description");
        for option in description.split(|letter: char| !letter.is_ascii_uppercase() && letter != '_') {
            let known = !option.starts_with("ETCD_") || sample.contains(&format!("{option}="));
            assert!(known, "{}: no option {option}", text(alert, "alert"));
        }
        for command in description.split('`').skip(1).step_by(2).filter(|command| command.starts_with("quoratectl ")) {
            let lower = |word: &&str| word.bytes().all(|letter| letter.is_ascii_lowercase() || letter == b'-');
            let words = command.split(' ').skip(1).take_while(lower).filter(|word| !word.starts_with('-'));
            run(&Program::quoratectl(), &words.chain(["--help"]).collect::<Vec<_>>());
        }
    }
}

#[test]
fn the_example_loads_the_rules_and_scrapes_its_members() {
    let directory = Path::new("examples/monitoring");
    let open = |file: &str| read(&directory.join(file).to_string_lossy());
    let prometheus = yaml(&open("prometheus.yml"));
    let loaded: Vec<_> = list(&prometheus, "rule_files").iter().filter_map(Value::as_str).map(open).collect();
    assert_eq!(loaded, [read(RULES)]);
    let [job] = list(&prometheus, "scrape_configs") else { panic!("one job: {prometheus}") };
    assert!(text(job, "job_name").starts_with("quorate"), "the rules look for such jobs");
    let targets = list(job, "static_configs").iter().flat_map(|group| list(group, "targets"));
    let members = ["m1", "m2", "m3"].map(|name| read(&format!("examples/three-members/{name}.conf")));
    let urls = members
        .each_ref()
        .map(|file| file.lines().find_map(|line| line.strip_prefix("ETCD_LISTEN_CLIENT_URLS=http://")));
    assert!(targets.map(Value::as_str).eq(urls), "{prometheus}");
}

#[test]
fn panels_have_titles_identifiers_and_places_of_their_own() {
    let dashboard = dashboard();
    let (mut identifiers, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in list(&dashboard, "panels") {
        let title = text(panel, "title");
        assert!(identifiers.insert(panel.get("id").and_then(Value::as_u64)), "{title}: its identifier is taken");
        assert!(places.insert(panel.get("gridPos").map(ToString::to_string)), "{title}: its place is taken");
        let row = text(panel, "type") == "row";
        assert!(row || !list(panel, "targets").is_empty(), "{title}: shows nothing");
        assert!(row || text(panel, "description").ends_with('.'), "{title}: is not explained");
    }
}

#[test]
fn both_packages_carry_the_files() {
    let manifest = read("Cargo.toml");
    let place = |text: &str| format!("packaging/monitoring/*\", {text}{INSTALLED}/");
    assert!(manifest.contains(&place("\"")) && manifest.contains(&place("dest = \"/")), "{INSTALLED}");
}

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rules() -> Value {
    yaml(&read(RULES))
}

fn dashboard() -> Value {
    serde_json::from_str(&read(DASHBOARD)).expect("the dashboard is JSON")
}

fn run(program: &Program, arguments: &[&str]) -> String {
    let output = program.command().args(arguments).output().expect("the program starts");
    assert!(output.status.success(), "{} {arguments:?}: {output:?}", program.name);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn scrape(daemon: &Daemon) -> String {
    let answer = http::get(daemon.client, "/metrics").expect("the member answers");
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

/// The names of all rows a member shows, histograms by those of their parts.
fn published(daemon: &Daemon) -> BTreeSet<String> {
    let scrape = scrape(daemon);
    let rows = scrape.lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

fn in_registry(name: &str) -> bool {
    quorate::metrics::TABLE.iter().any(|entry| entry.name == name)
}

/// Every `expr` in a document, however deep.
fn expressions(document: &Value) -> Vec<&str> {
    match document {
        Value::Array(items) => items.iter().flat_map(expressions).collect(),
        Value::Object(map) => {
            let own = map.get("expr").and_then(Value::as_str);
            own.into_iter().chain(map.values().flat_map(expressions)).collect()
        }
        _ => Vec::new(),
    }
}

/// The metrics that the expressions of a document name.
fn names(document: &Value) -> BTreeSet<String> {
    let word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = expressions(document).into_iter().flat_map(|expression| expression.split(move |letter| !word(letter)));
    let metric = |name: &&str| PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    words.filter(metric).map(str::to_owned).collect()
}

fn list<'a>(map: &'a Value, key: &str) -> &'a [Value] {
    map.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(map: &'a Value, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A YAML document without anchors and tags, every scalar as text.
fn yaml(source: &str) -> Value {
    let mut events = Parser::new_from_str(source).map(|event| event.expect("the file is YAML").0);
    let first = events.find(|event| !matches!(event, Event::StreamStart | Event::DocumentStart(_)));
    value(first.expect("a document"), &mut events)
}

fn value<'a>(event: Event<'a>, events: &mut impl Iterator<Item = Event<'a>>) -> Value {
    match event {
        Event::Scalar(text, ..) => Value::String(text.into_owned()),
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            while let Some(event) = events.next().filter(|event| !matches!(event, Event::SequenceEnd)) {
                items.push(value(event, events));
            }
            Value::Array(items)
        }
        Event::MappingStart(..) => {
            let mut map = Map::new();
            while let Some(Event::Scalar(key, ..)) = events.next() {
                let event = events.next().expect("a value behind each key");
                let twice = map.insert(key.clone().into_owned(), value(event, events));
                assert!(twice.is_none(), "{key} is there twice");
            }
            Value::Object(map)
        }
        other => panic!("the reader of this test knows no {other:?}"),
    }
}
