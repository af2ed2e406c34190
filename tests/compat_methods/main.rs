//! Every method of the v3 API through both doors, with etcdctl 3.7.1 and as JSON, at a plain member, at one with
//! authentication on and at one behind mutual TLS. Each answer must be that of etcd.
//!
//! With authentication on, everybody asks for everything: nobody, a user with few rights, root. The table is printed:
//! `cargo test --test compat_methods -- --nocapture`.

#[path = "../support/mod.rs"]
mod support;
mod table;

use std::fmt::Write as _;

use support::{
    certificates::Authority,
    daemon::{Daemon, READY_LIMIT},
    gateway,
    mask::{self, Mask},
    program::Program,
    session::{Session, Step},
};
use table::{ROWS, Row};

/// What stands between a client and a member.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Setting {
    Plain,
    Auth,
    Tls,
}
const SETTINGS: [Setting; 3] = [Setting::Plain, Setting::Auth, Setting::Tls];

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Door {
    Etcdctl,
    Gateway,
}
const DOORS: [Door; 2] = [Door::Etcdctl, Door::Gateway];

/// Everybody, the least mighty first, with their passwords.
const USERS: [(&str, &str); 3] = [("", ""), ("guest", "secret"), ("root", "secret")];

/// Users, roles and rights before authentication goes on.
const HOUSEHOLD: [&str; 8] = [
    "user add root:secret",
    "role add root",
    "user grant-role root root",
    "user add guest:secret",
    "role add few",
    "role grant-permission few readwrite list/ --prefix",
    "user grant-role guest few",
    "auth enable",
];

/// Flags for mutual TLS.
struct Credentials {
    daemon: Vec<String>,
    /// As both etcdctl and curl spell them.
    client: Vec<String>,
}

impl Credentials {
    fn new(authority: &Authority) -> Self {
        let ca = authority.file();
        let mut daemon: Vec<String> = authority.issue("server", &["127.0.0.1", "localhost"]).flags("--").into();
        daemon.extend([format!("--trusted-ca-file={}", ca.display()), "--client-cert-auth".to_owned()]);
        let mut client: Vec<String> = authority.issue("client", &["127.0.0.1"]).client_flags().into();
        client.push(format!("--cacert={}", ca.display()));
        Self { daemon, client }
    }
}

/// One member, and a client in front of one of its doors.
struct Side<'a> {
    daemon: &'a Daemon,
    session: Session<'a>,
    mask: Mask,
    flags: Vec<String>,
    /// What stands for what in bodies.
    names: Vec<(&'static str, String)>,
}

impl<'a> Side<'a> {
    fn new(daemon: &'a Daemon, tool: &'a Program, flags: Vec<String>) -> Self {
        let status = gateway::post(&curl_flags(&flags), &url(daemon, "/v3/maintenance/status"), Some("{}"));
        let mask = Mask::told_by(daemon, &status);
        let member = u64::from_str_radix(mask.member(), 16).expect("an id").to_string();
        let mut session = Session::with(tool, daemon, mask.clone(), &flags);
        session.name("FILE", daemon.directory().join("saved.db").display().to_string());
        Self { daemon, session, mask, flags, names: vec![("MEMBER", member)] }
    }

    /// The answer, without what two members need not have in common.
    fn ask(&mut self, row: &Row, door: Door, setting: Setting) -> Option<String> {
        let callers = if setting == Setting::Auth { &USERS[..] } else { &USERS[2..] };
        match door {
            Door::Etcdctl => {
                let step = row.etcdctl.ok()?;
                Some(callers.iter().map(|(user, password)| self.command(step, user, password)).collect())
            }
            Door::Gateway => {
                let (path, body) = row.gateway.ok()?;
                Some(callers.iter().map(|(user, password)| self.post(path, body, user, password)).collect())
            }
        }
    }

    fn command(&mut self, step: Step, user: &str, password: &str) -> String {
        let credentials = format!("--user={user}:{password}");
        let own = support::session::command_line(step).contains("--user=");
        let flags = if user.is_empty() || own { vec![] } else { vec![credentials.as_str()] };
        format!("{}\n", self.session.perform_as(step, &flags))
    }

    fn post(&mut self, path: &str, body: &str, user: &str, password: &str) -> String {
        let mut flags = curl_flags(&self.flags);
        if let Some(token) = self.token(user, password) {
            flags.extend(["--header".to_owned(), format!("Authorization: {token}")]);
        }
        let body = self.names.iter().fold(body.to_owned(), |body, (name, value)| body.replace(name, value));
        let answer = gateway::post(&flags, &url(self.daemon, path), Some(&body));
        self.learn(path, &answer);
        format!("{}\n", normal(&self.mask.apply(&answer)))
    }

    /// A fresh token; `None` while there is nothing to log in to, or nobody.
    fn token(&self, user: &str, password: &str) -> Option<String> {
        if user.is_empty() {
            return None;
        }
        let body = format!(r#"{{"name":"{user}","password":"{password}"}}"#);
        let answer = gateway::post(&curl_flags(&self.flags), &url(self.daemon, "/v3/auth/authenticate"), Some(&body));
        text_after(&answer, r#""token":""#)
    }

    /// Remembers what later requests have to name.
    fn learn(&mut self, path: &str, answer: &str) {
        let learnt = match path {
            "/v3/election/campaign" => object_after(answer, r#""leader":"#).map(|leader| ("ELECTED", leader)),
            "/v3/lock/lock" => text_after(answer, r#""key":""#).map(|key| ("LOCKED", key)),
            "/v3/cluster/member/add" => {
                let member = object_after(answer, r#""member":"#).and_then(|member| mask::number_after(&member, "ID"));
                member.map(|id| ("NEWCOMER", id.to_string()))
            }
            _ => None,
        };
        if let Some((name, value)) = learnt {
            if name == "NEWCOMER" {
                self.mask.add(value.clone(), name);
            }
            self.names.insert(0, (name, value));
        }
    }
}

fn url(daemon: &Daemon, path: &str) -> String {
    format!("{}{path}", daemon.endpoint())
}

/// curl takes a flag and its value as words of their own.
fn curl_flags(flags: &[String]) -> Vec<String> {
    flags.iter().flat_map(|flag| flag.split('=').map(str::to_owned)).collect()
}

/// The text behind `mark`, to the next quote.
fn text_after(json: &str, mark: &str) -> Option<String> {
    let (_, rest) = json.split_once(mark)?;
    Some(rest.split_once('"')?.0.to_owned())
}

/// The flat object behind `mark`.
fn object_after(json: &str, mark: &str) -> Option<String> {
    let (_, rest) = json.split_once(mark)?;
    Some(format!("{}}}", rest.trim_start().split_once('}')?.0))
}

/// What else two members need not have in common.
fn normal(answer: &str) -> String {
    // Leases are counted down.
    let text = mask::without_numbers(&sorted(gateway::normal(answer)), "TTL");
    // A snapshot is as long as the engine makes it, and a hash of a whole database is the engine's.
    if let (Some((head, _)), Some((_, code))) = (text.split_once("\"blob\":"), text.rsplit_once("\n[")) {
        return format!("{head}…\n[{code}");
    }
    if text.contains("\"hash\":") && !text.contains("compact_revision") {
        mask::without_numbers(&text, "hash")
    } else {
        text
    }
}

/// Members are listed by their ids, which are chance.
fn sorted(answer: String) -> String {
    let (Some((head, _)), Some((json, code))) = (answer.split_once(r#""members":["#), answer.rsplit_once("\n[")) else {
        return answer;
    };
    let mut members = serde_json::from_str::<serde_json::Value>(json).map_or_else(
        |_| Vec::new(),
        |value| {
            value
                .get("members")
                .and_then(serde_json::Value::as_array)
                .map_or_else(Vec::new, |all| all.iter().map(ToString::to_string).collect())
        },
    );
    members.sort();
    format!("{head}\"members\":[{}]\n[{code}", members.join(","))
}

/// The answers of both members to every row, for one setting and door.
fn compare(setting: Setting, door: Door, credentials: &Credentials) -> Vec<Option<[String; 2]>> {
    let tool = Program::etcdctl();
    let [ours, theirs] = [Program::subject(), Program::etcd()].map(|program| start(&program, setting, credentials));
    let flags = if setting == Setting::Tls { credentials.client.clone() } else { Vec::new() };
    let mut sides = [&ours, &theirs].map(|daemon| Side::new(daemon, &tool, flags.clone()));
    for side in &mut sides {
        let household: &[&'static str] = match setting {
            Setting::Auth => &HOUSEHOLD,
            // So that authentication can be switched on when its turn comes.
            _ => &HOUSEHOLD[..3],
        };
        for line in household {
            let told = side.session.perform(Step::Run(line));
            assert!(told.contains("[exit 0]"), "{line}: {told}");
        }
    }
    let ask = |row: &Row| {
        let [ours, theirs] = sides.each_mut().map(|side| side.ask(row, door, setting));
        ours.zip(theirs).map(|(ours, theirs)| [ours, theirs])
    };
    ROWS.iter().map(ask).collect()
}

fn start(program: &Program, setting: Setting, credentials: &Credentials) -> Daemon {
    let flags = if setting == Setting::Tls { credentials.daemon.clone() } else { Vec::new() };
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut daemon = Daemon::prepare(&std::env::temp_dir(), program, &flags);
    if setting == Setting::Tls {
        daemon.client_scheme = "https";
    }
    daemon.spawn();
    assert!(daemon.wait_ready(READY_LIMIT), "{} {setting:?}:\n{}", program.name, daemon.log());
    daemon
}

#[test]
fn every_method_through_every_door() {
    let authority = Authority::new("ca");
    let credentials = Credentials::new(&authority);
    let columns: Vec<(Setting, Door)> =
        SETTINGS.iter().flat_map(|setting| DOORS.map(|door| (*setting, door))).collect();
    // Columns have members of their own, and most of their time is waiting.
    let answers: Vec<_> = std::thread::scope(|scope| {
        let asking = |(setting, door): &(Setting, Door)| {
            let (setting, door, credentials) = (*setting, *door, &credentials);
            scope.spawn(move || compare(setting, door, credentials))
        };
        let asked: Vec<_> = columns.iter().map(asking).collect();
        asked.into_iter().map(|column| column.join().expect("the column is asked to its end")).collect()
    });
    let (mut printed, mut differences) = (heading(&columns), String::new());
    for (number, row) in ROWS.iter().enumerate() {
        write!(printed, "\n{:28}", row.method).expect("a string");
        for ((setting, door), answers) in columns.iter().zip(&answers) {
            let mark = match &answers[number] {
                None => "-",
                Some([ours, theirs]) if ours == theirs => {
                    if std::env::var_os("METHODS_SHOWN").is_some() {
                        println!("{} {setting:?} {door:?}\n{ours}", row.method);
                    }
                    "="
                }
                Some([ours, theirs]) => {
                    writeln!(differences, "{} {setting:?} {door:?}\nours:\n{ours}\netcd:\n{theirs}", row.method)
                        .expect("a string");
                    "DIFFERS"
                }
            };
            write!(printed, "{mark:16}").expect("a string");
        }
    }
    let reasons = ROWS.iter().filter_map(|row| Some((row.method, row.etcdctl.err().or(row.gateway.err())?)));
    let reasons: Vec<String> = reasons.map(|(method, why)| format!("- {method}: {why}")).collect();
    println!("{printed}\n{}", reasons.join("\n"));
    assert!(differences.is_empty(), "{differences}");
}

fn heading(columns: &[(Setting, Door)]) -> String {
    columns.iter().fold(format!("{:28}", "method"), |line, (setting, door)| {
        format!("{line}{:16}", format!("{door:?} {setting:?}").to_lowercase())
    })
}

/// Nothing that a service offers is missing in the table, and nothing is in it twice.
#[test]
fn the_table_is_whole() {
    let sources = [
        include_str!("../../proto/etcdserverpb.proto"),
        include_str!("../../proto/v3electionpb.proto"),
        include_str!("../../proto/v3lockpb.proto"),
    ];
    let mut offered: Vec<String> = sources.iter().flat_map(|source| methods(source)).collect();
    let mut listed: Vec<String> = ROWS.iter().map(|row| row.method.to_owned()).collect();
    offered.sort();
    listed.sort();
    assert_eq!(listed, offered);
    assert_eq!(listed.len(), 49);
}

fn methods(proto: &str) -> Vec<String> {
    let mut service = "";
    let mut found = Vec::new();
    for line in proto.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("service ") {
            service = rest.trim_end_matches([' ', '{']);
        }
        if let Some((name, _)) = line.strip_prefix("rpc ").and_then(|rest| rest.split_once('(')) {
            found.push(format!("{service}/{}", name.trim()));
        }
    }
    found
}
