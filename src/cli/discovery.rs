//! `quorate discovery`: what its command line and its variables ask for.
//!
//! One table of flags is what parser, help, completions and manual read. Every flag is also a variable,
//! `QUORATE_DISCOVERY_` and its name in capitals, because a unit's options stand in an environment file; a flag is the
//! stronger. All mistakes are told at once.

use std::{ffi::OsString, net::IpAddr, path::PathBuf, process::ExitCode, time::Duration};

use super::{
    Program, help,
    parse::{self, Call, Flags},
    speak::{complain, say},
    table::{Command, Flag, Kind, Values},
};
use crate::{
    client::{self, Credentials},
    config::{ListenUrl, Scheme, Sources, Url},
    discovery::service::{self, V2Member},
    tls::PairFiles,
};

/// What stands before the name of a flag in its variable.
pub(super) const PREFIX: &str = "QUORATE_DISCOVERY_";
/// Exit code: an option has a value that makes no sense.
const INVALID: u8 = 1;
/// Exit code: the command line is wrong.
const USAGE: u8 = 2;

const LISTEN_URLS: Flag = list("listen-urls", "http://localhost:8087", "URLs to serve on");
const CERT_FILE: Flag = file("cert-file", "certificate that https URLs to serve on show, PEM");
const KEY_FILE: Flag = file("key-file", "key of that certificate");
const PUBLIC_URL: Flag = Flag::text("public-url", "", "what token URLs begin with; empty for the host a request names");
const DATA_DIR: Flag =
    Flag::text("data-dir", "quorate-discovery", "where the member inside keeps tokens").values(Values::Files);
const ENDPOINTS: Flag = list("endpoints", "", "keep tokens in this cluster instead, by its v3 API");
const USER: Flag = Flag::text("user", "", "name[:password] in that cluster");
const PASSWORD: Flag = Flag::text("password", "", "password of that user");
const ETCD: Flag = list("etcd", "", "keep tokens in this cluster instead, by its v2 API");
const CACERT: Flag = file("cacert", "authorities of that cluster's certificates; those of the system if empty");
const CERT: Flag = file("cert", "certificate shown to that cluster");
const KEY: Flag = file("key", "key of that certificate");
const MIN_AGE: Flag =
    Flag::duration("min-age", "168h", "how long a token stays after its last registration; 0 for ever");
const TOKENS_MAX: Flag = Flag::integer("tokens-max", "most tokens at a time").default("10000");
const NEW_PER_MINUTE: Flag = Flag::integer("new-per-minute", "new tokens of one address in a minute").default("60");
const PROXIES: Flag = list("proxies", "", "addresses of proxies whose X-Forwarded-For is believed");
const LOG_LEVEL: Flag = Flag::text("log-level", "info", "debug, info, warn or error")
    .values(Values::Words(&["debug", "info", "warn", "error"]));
const LOG_FORMAT: Flag =
    Flag::text("log-format", "json", "json or console").values(Values::Words(&["json", "console"]));

const fn file(name: &'static str, help: &'static str) -> Flag {
    Flag::text(name, "", help).values(Values::Files)
}

const fn list(name: &'static str, default: &'static str, help: &'static str) -> Flag {
    Flag { name, short: None, also: "", kind: Kind::List, default, help, values: Values::Any }
}

/// The command, with all its flags.
pub(super) static COMMAND: Command = Command {
    name: "discovery",
    arguments: "",
    about: "Serves the discovery service: nodes started with the URL of a token find each other and found a cluster",
    flags: &[
        LISTEN_URLS,
        CERT_FILE,
        KEY_FILE,
        PUBLIC_URL,
        DATA_DIR,
        ENDPOINTS,
        USER,
        PASSWORD,
        ETCD,
        CACERT,
        CERT,
        KEY,
        MIN_AGE,
        TOKENS_MAX,
        NEW_PER_MINUTE,
        PROXIES,
        LOG_LEVEL,
        LOG_FORMAT,
    ],
    ..Command::EMPTY
};

/// What the service is to be.
#[derive(Debug)]
pub struct Asked {
    /// Where it listens.
    pub listen: Vec<ListenUrl>,
    /// What https URLs show.
    pub shown: Option<PairFiles>,
    /// Where tokens are kept.
    pub store: Store,
    /// How to encrypt connections to its cluster; `None` if nothing says so.
    pub to_store: Option<ToStore>,
    /// How long a token stays after its last registration; `None` for ever.
    pub lifetime: Option<Duration>,
    /// Limits, and what URLs begin with.
    pub service: service::Options,
    /// Options of the daemon: the level and shape of log records, as flags.
    pub daemon_flags: Vec<OsString>,
    /// Variables that look like options and are none.
    pub unknown: Vec<String>,
}

/// Where tokens are kept.
#[derive(Debug)]
pub enum Store {
    /// In a member inside this process, with this data directory.
    Embedded(PathBuf),
    /// In a cluster with the v3 API.
    V3(client::Options),
    /// In a cluster with the v2 API.
    V2(Vec<V2Member>),
}

/// How to encrypt connections to a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToStore {
    /// A file of authorities; `None` for those of the system.
    pub authorities: Option<PathBuf>,
    /// What is shown.
    pub shown: Option<PairFiles>,
}

/// An answer instead of a service: help, or what is wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    text: String,
    code: u8,
}

impl Answer {
    /// Prints it, help to standard output and mistakes to standard error.
    pub fn give(self) -> ExitCode {
        if self.code != 0 {
            complain(self.text.trim_end());
        } else if say(format_args!("{}", self.text)).is_err() {
            return ExitCode::FAILURE;
        }
        ExitCode::from(self.code)
    }
}

/// Understands the words behind `discovery`, and the variables of the process.
///
/// # Errors
/// What to print instead of serving.
pub fn read(sources: &Sources, words: &[OsString]) -> Result<Asked, Answer> {
    let program = Program { name: "quorate discovery", version: env!("CARGO_PKG_VERSION") };
    let usage = || help::usage(program, &[&COMMAND]);
    let wrong = |text: String| Answer { text: format!("error: {text}\n{}", usage()), code: USAGE };
    let called = parse::parse(program, &COMMAND, words.to_vec());
    let mut call = called.map_err(|failure| wrong(failure.message.unwrap_or_default()))?;
    if call.flags.switch(&parse::HELP) {
        return Err(Answer { text: format!("{}\n\n{}\n{VARIABLES}", COMMAND.about, usage()), code: 0 });
    }
    if let Some(word) = call.argument_texts().first() {
        return Err(wrong(format!("discovery takes no arguments, and {word:?} is one")));
    }
    let mut mistakes = Vec::new();
    let unknown = apply_variables(&mut call, sources, &mut mistakes);
    let asked = understand(&call.flags, unknown, &mut mistakes);
    asked.filter(|_| mistakes.is_empty()).ok_or_else(|| {
        let lines: Vec<String> = mistakes.iter().map(|mistake| format!("error: {mistake}")).collect();
        Answer { text: lines.join("\n"), code: INVALID }
    })
}

const VARIABLES: &str = "Each flag is also a variable, in capitals behind QUORATE_DISCOVERY_: QUORATE_DISCOVERY_LISTEN_URLS for \
                         --listen-urls. Flags are stronger.\n";

/// Takes values from the environment for flags that were not typed.
fn apply_variables(call: &mut Call, sources: &Sources, mistakes: &mut Vec<String>) -> Vec<String> {
    let mut unknown = Vec::new();
    for (name, value) in &sources.env {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        let Some(own) = name.strip_prefix(PREFIX) else { continue };
        let flag = COMMAND.flags.iter().find(|flag| variable(flag) == own);
        match flag {
            None => unknown.push(name.into_owned()),
            // Empty lines of an environment file say nothing.
            Some(flag) if value.is_empty() || call.flags.is_set(flag) => {}
            Some(flag) => {
                if let Err(why) = call.flags.set(flag, &value) {
                    mistakes.push(format!("{name}={value}: {why}; correct: {name}={}", flag.default));
                }
            }
        }
    }
    unknown
}

fn variable(flag: &Flag) -> String {
    flag.name.to_uppercase().replace('-', "_")
}

fn understand(flags: &Flags, unknown: Vec<String>, mistakes: &mut Vec<String>) -> Option<Asked> {
    let listen = collect(flags.list(&LISTEN_URLS), mistakes, listen_url);
    if listen.is_empty() {
        mistakes
            .push("--listen-urls: there is nothing to listen on; correct: --listen-urls=http://localhost:8087".into());
    }
    let proxies = collect(flags.list(&PROXIES), mistakes, |text| {
        let address = text.parse::<IpAddr>().map(|address| address.to_canonical());
        address.map_err(|_| format!("--proxies={text}: not an IP address; correct: --proxies=127.0.0.1"))
    });
    let public_url = public_url(flags.text(&PUBLIC_URL)).map_err(|why| mistakes.push(why)).ok().flatten();
    let mut limit = |flag: &Flag| {
        let number = u32::try_from(flags.integer(flag)).ok().filter(|number| *number > 0);
        let wrong = || {
            format!(
                "--{}={}: must be a number above 0; correct: --{}={}",
                flag.name,
                flags.shown(flag),
                flag.name,
                flag.default
            )
        };
        number.ok_or_else(wrong).map_err(|why| mistakes.push(why)).ok()
    };
    let (tokens_max, new_per_minute) = (limit(&TOKENS_MAX), limit(&NEW_PER_MINUTE));
    let store = store(flags, mistakes)?;
    let shown = pair(flags, (&CERT_FILE, &KEY_FILE), mistakes);
    if let Some(url) = listen.iter().find(|url| url.url.scheme().is_tls() && shown.is_none()) {
        mistakes.push(format!("--listen-urls={url}: needs --cert-file and --key-file"));
    }
    let authorities = Some(flags.text(&CACERT)).filter(|path| !path.is_empty()).map(PathBuf::from);
    let to_store = ToStore { authorities, shown: pair(flags, (&CERT, &KEY), mistakes) };
    let to_store = Some(to_store).filter(|tls| tls.authorities.is_some() || tls.shown.is_some());
    let service = service::Options {
        public_url,
        tokens_max: usize::try_from(tokens_max?).unwrap_or(usize::MAX),
        new_per_minute: new_per_minute?,
        proxies,
    };
    let lifetime = Some(flags.duration(&MIN_AGE)).filter(|age| !age.is_zero());
    let daemon_flags = daemon_flags(flags, mistakes);
    Some(Asked { listen, shown, store, to_store, lifetime, service, daemon_flags, unknown })
}

fn collect<T>(texts: &[String], mistakes: &mut Vec<String>, read: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
    let read = texts.iter().map(|text| read(text.trim()));
    read.filter_map(|outcome| outcome.map_err(|why| mistakes.push(why)).ok()).collect()
}

fn listen_url(text: &str) -> Result<ListenUrl, String> {
    let told = |why: String| format!("--listen-urls={text}: {why}; correct: --listen-urls=http://127.0.0.1:8087");
    ListenUrl::new(Url::parse(text).map_err(told)?).map_err(told)
}

/// A certificate and its key, which belong together.
fn pair(flags: &Flags, (cert, key): (&Flag, &Flag), mistakes: &mut Vec<String>) -> Option<PairFiles> {
    let (certificate, secret) = (flags.text(cert), flags.text(key));
    if certificate.is_empty() != secret.is_empty() {
        mistakes.push(format!("--{} and --{} belong together, and one of them is missing", cert.name, key.name));
    }
    (!certificate.is_empty() && !secret.is_empty()).then(|| PairFiles::new(certificate, secret))
}

/// What token URLs begin with, without its last slash.
fn public_url(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let told = || {
        format!(
            "--public-url={text}: must be an http or https URL without query and fragment; correct: --public-url=https://discovery.example.com"
        )
    };
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).ok_or_else(told)?;
    let is_plain = |letter: char| letter.is_ascii_graphic() && !"?#\"'<>\\^`{|}".contains(letter);
    if rest.is_empty() || rest.starts_with('/') || !rest.chars().all(is_plain) {
        return Err(told());
    }
    Ok(Some(text.trim_end_matches('/').to_owned()))
}

fn store(flags: &Flags, mistakes: &mut Vec<String>) -> Option<Store> {
    let (v2, v3) = (flags.list(&ETCD), flags.list(&ENDPOINTS));
    if !v2.is_empty() && !v3.is_empty() {
        mistakes.push("--etcd and --endpoints name two stores; leave one of them out".into());
        return None;
    }
    if !v3.is_empty() {
        let credentials = credentials(flags.text(&USER), flags.text(&PASSWORD), mistakes)?;
        return Some(Store::V3(client::Options { endpoints: v3.to_vec(), credentials, ..client::Options::default() }));
    }
    if !flags.text(&USER).is_empty() {
        mistakes.push("--user says who asks the cluster of --endpoints, which is missing".into());
    }
    if v2.is_empty() {
        return Some(Store::Embedded(PathBuf::from(flags.text(&DATA_DIR))));
    }
    Some(Store::V2(collect(v2, mistakes, v2_member)))
}

fn v2_member(text: &str) -> Result<V2Member, String> {
    let told = |why: String| format!("--etcd={text}: {why}; correct: --etcd=http://127.0.0.1:2379");
    let url = Url::parse(text).map_err(told)?;
    let authority = |scheme: &str| url.as_str().trim_start_matches(scheme).to_owned();
    match url.scheme() {
        Scheme::Http => Ok(V2Member { authority: authority("http://"), secure: false }),
        Scheme::Https => Ok(V2Member { authority: authority("https://"), secure: true }),
        Scheme::Unix | Scheme::Unixs => Err(told("must be an http or https URL".to_owned())),
    }
}

fn credentials(user: &str, password: &str, mistakes: &mut Vec<String>) -> Option<Credentials> {
    let (name, typed) = user.split_once(':').unwrap_or((user, password));
    match (name.is_empty(), typed.is_empty()) {
        (true, true) => Some(Credentials::Nobody),
        (false, false) => Some(Credentials::Password { user: name.to_owned(), password: typed.to_owned() }),
        _ => {
            mistakes.push("--user and its password belong together; correct: --user=name --password=secret".into());
            None
        }
    }
}

/// The options that the service shares with the daemon, as the daemon reads them.
fn daemon_flags(flags: &Flags, mistakes: &mut Vec<String>) -> Vec<OsString> {
    let mut words = Vec::new();
    for flag in [LOG_LEVEL, LOG_FORMAT] {
        let text = flags.text(&flag);
        if flag.values.words().contains(&text) {
            words.push(format!("--{}={text}", flag.name).into());
        } else {
            mistakes.push(format!(
                "--{}={text}: one of {}; correct: --{}={}",
                flag.name,
                flag.values.words().join(", "),
                flag.name,
                flag.default
            ));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str], env: &[(&str, &str)]) -> Result<Asked, Answer> {
        let env = env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        read(&Sources { env, ..Sources::default() }, &words)
    }

    #[test]
    fn without_options_tokens_are_kept_inside_for_a_week() {
        let asked = asked(&[], &[]).unwrap();
        assert!(matches!(&asked.store, Store::Embedded(dir) if dir.ends_with("quorate-discovery")), "{asked:?}");
        assert_eq!(asked.lifetime, Some(service::LIFETIME_DEFAULT));
        assert_eq!(asked.listen[0].url.as_str(), "http://localhost:8087");
        assert_eq!(
            (asked.service.tokens_max, asked.service.new_per_minute),
            (service::TOKENS_MAX_DEFAULT, service::NEW_PER_MINUTE_DEFAULT)
        );
    }

    #[test]
    fn variables_stand_for_flags_and_flags_are_stronger() {
        let env = [
            ("QUORATE_DISCOVERY_PUBLIC_URL", "https://disc.example/"),
            ("QUORATE_DISCOVERY_MIN_AGE", "0"),
            ("QUORATE_DISCOVERY_TOKENS_MAX", "5"),
            ("QUORATE_DISCOVERY_LISTEN_URLS", ""),
            ("QUORATE_DISCOVERY_SIZE", "1"),
            ("ETCD_NAME", "x"),
        ];
        let asked = asked(&["--tokens-max=7", "--endpoints", "a:1,b:1", "--user=me:secret"], &env).unwrap();
        assert_eq!(asked.service.public_url.as_deref(), Some("https://disc.example"));
        assert_eq!((asked.lifetime, asked.service.tokens_max), (None, 7));
        assert!(matches!(&asked.store, Store::V3(options) if options.endpoints == ["a:1", "b:1"]), "{asked:?}");
        assert_eq!(asked.unknown, ["QUORATE_DISCOVERY_SIZE"]);
    }

    #[test]
    fn every_mistake_is_told_with_what_is_right() {
        let words = ["--listen-urls=https://127.0.0.1:1", "--public-url=ftp://x", "--proxies=a"];
        let refused = asked(&words, &[]).unwrap_err();
        assert_eq!(refused.code, INVALID);
        assert_eq!(refused.text.lines().count(), 3, "{}", refused.text);
        for (words, part) in [
            (vec!["--etcd=http://h:1", "--endpoints=h:1"], "two stores"),
            (vec!["--etcd=unix://h:1"], "must be an http or https URL"),
            (vec!["--cert-file=a"], "belong together"),
            (vec!["--etcd=h:1"], "correct: --etcd=http://127.0.0.1:2379"),
            (vec!["--tokens-max=0"], "above 0"),
            (vec!["--log-level=loud"], "one of debug, info, warn, error"),
            (vec!["--user=me"], "missing"),
            (vec!["--user=me", "--endpoints=h:1"], "belong together"),
        ] {
            let refused = asked(&words, &[]).unwrap_err();
            assert!(refused.code == INVALID && refused.text.contains(part), "{words:?}: {}", refused.text);
        }
        assert_eq!(asked(&["--bogus"], &[]).unwrap_err().code, USAGE);
        assert_eq!(asked(&["word"], &[]).unwrap_err().code, USAGE);
        let help = asked(&["--help"], &[]).unwrap_err();
        assert!(help.code == 0 && help.text.contains("--min-age duration"), "{}", help.text);
    }
}
