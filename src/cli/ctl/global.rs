//! Flags that every command takes, and their forms in the environment.

use std::{ffi::OsString, time::Duration};

use super::super::{
    failure::{Exit, Failure},
    output::{Format, Style},
    parse::{Call, Flags},
    speak::complain,
    table::{Flag, Kind, Values},
};
use crate::{
    client::{Credentials, Options, REQUEST_BYTES_MAX_DEFAULT, RESPONSE_BYTES_MAX_DEFAULT},
    discovery::{dns::Resolver, srv::Domain},
    tls::{Dialler, DiallerOptions, Identity, PairFiles, Trust},
};

const ENDPOINTS: Flag =
    Flag { kind: Kind::List, ..Flag::text("endpoints", "127.0.0.1:2379", "where the members listen for clients") };
const DEBUG: Flag = Flag::switch("debug", "tell on standard error what the client does");
const WRITE_OUT: Flag =
    Flag::text("write-out", "simple", "form of the answers: fields, json, protobuf, simple or table")
        .short('w')
        .values(Values::FORMS);
const HEX: Flag = Flag::switch("hex", "show bytes and identifiers in hexadecimal");
const DIAL_TIMEOUT: Flag = Flag::duration("dial-timeout", "2s", "time to connect and authenticate");
pub(super) const COMMAND_TIMEOUT: Flag =
    Flag::duration("command-timeout", "5s", "time for one short request, connecting included");
const KEEPALIVE_TIME: Flag = Flag::duration("keepalive-time", "2s", "silence after which a connection is probed");
const KEEPALIVE_TIMEOUT: Flag = Flag::duration("keepalive-timeout", "6s", "time for the answer to such a probe");
const MAX_REQUEST_BYTES: Flag = Flag::integer("max-request-bytes", "longest request to send in bytes, 0 means 2 MiB");
const MAX_RECV_BYTES: Flag = Flag::integer("max-recv-bytes", "longest answer to accept in bytes, 0 means 2 GiB");
const INSECURE_TRANSPORT: Flag = Flag::switch("insecure-transport", "speak without encryption").default("true");
const INSECURE_DISCOVERY: Flag =
    Flag::switch("insecure-discovery", "accept endpoints without encryption from DNS").default("true");
const INSECURE_SKIP_TLS_VERIFY: Flag =
    Flag::switch("insecure-skip-tls-verify", "do not check the certificates of members; for tests only");
const CERT: Flag = Flag::text("cert", "", "certificate file to identify with").values(Values::Files);
const KEY: Flag = Flag::text("key", "", "file with the key of that certificate").values(Values::Files);
const CACERT: Flag = Flag::text("cacert", "", "file with the authorities that may sign the certificates of members")
    .values(Values::Files);
const AUTH_JWT_TOKEN: Flag =
    Flag::text("auth-jwt-token", "", "token to authenticate with, instead of user and password");
const USER: Flag = Flag::text("user", "", "name[:password] to authenticate with; a missing password is asked for");
const PASSWORD: Flag = Flag::text("password", "", "password, when --user holds the name alone");
const DISCOVERY_SRV: Flag = Flag::text("discovery-srv", "", "domain whose SRV records name the endpoints").short('d');
const DISCOVERY_SRV_NAME: Flag = Flag::text("discovery-srv-name", "", "suffix of the service name in those records");

/// Flags of the whole program.
pub(super) const FLAGS: &[Flag] = &[
    ENDPOINTS,
    DEBUG,
    WRITE_OUT,
    HEX,
    DIAL_TIMEOUT,
    COMMAND_TIMEOUT,
    KEEPALIVE_TIME,
    KEEPALIVE_TIMEOUT,
    MAX_REQUEST_BYTES,
    MAX_RECV_BYTES,
    INSECURE_TRANSPORT,
    INSECURE_DISCOVERY,
    INSECURE_SKIP_TLS_VERIFY,
    CERT,
    KEY,
    CACERT,
    AUTH_JWT_TOKEN,
    USER,
    PASSWORD,
    DISCOVERY_SRV,
    DISCOVERY_SRV_NAME,
];

/// What the global flags come to.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// How to reach the cluster.
    pub(super) client: Options,
    /// How to print answers.
    pub(super) style: Style,
    /// Time for one short request.
    pub(super) command_timeout: Duration,
}

/// Something in the environment that deserves a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) message: &'static str,
    /// The variable, with its value if that is in question.
    pub(super) variable: String,
}

/// What the environment had to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notices {
    pub(super) warnings: Vec<Notice>,
    /// A variable and a flag set the same option: nothing may be done.
    pub(super) conflict: Option<Notice>,
}

/// Lets variables set the flags that were not typed. `watched` are variables that belong to the command itself.
///
/// Only flags that a command has from above have a variable. An empty variable sets nothing.
pub(super) fn apply_environment(
    call: &mut Call,
    variables: impl Iterator<Item = (OsString, OsString)>,
    watched: &[&str],
) -> Notices {
    let flags: Vec<&Flag> = call.inherited_flags().collect();
    let mut notices = Notices::default();
    for (name, value) in variables {
        let (name, value) = (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned());
        if !name.starts_with(PREFIX) || watched.contains(&name.as_str()) {
            continue;
        }
        let flag = flags.iter().find(|flag| variable(flag) == name);
        match flag {
            Some(flag) if call.flags.is_set(flag) => {
                notices.conflict.get_or_insert(Notice { message: CONFLICT, variable: name });
                return notices;
            }
            Some(flag) if !value.is_empty() => {
                if call.flags.set(flag, &value).is_err() {
                    notices.warnings.push(Notice { message: UNREADABLE, variable: format!("{name}={value}") });
                }
            }
            _ => notices.warnings.push(Notice { message: UNKNOWN, variable: format!("{name}={value}") }),
        }
    }
    notices
}

/// The variable of a flag.
fn variable(flag: &Flag) -> String {
    format!("{PREFIX}{}", flag.name.to_uppercase().replace('-', "_"))
}

/// Whether libraries shall log what they do.
pub(super) fn is_debug(call: &Call) -> bool {
    call.flags.switch(&DEBUG)
}

/// Every inherited flag as a variable with its value, in alphabetical order.
pub(super) fn debug_lines(call: &Call) -> Vec<String> {
    let mut flags: Vec<&Flag> = call.inherited_flags().collect();
    flags.sort_by_key(|flag| flag.name);
    flags.iter().map(|flag| format!("{}={}", variable(flag), call.flags.shown(flag))).collect()
}

/// Reads the global flags of a call; `ask_password` is called when a user has none.
///
/// # Errors
/// A [`Failure`] for values that cannot be used, in the order etcd's client looks at them.
pub(super) fn settings(
    flags: &Flags,
    ask_password: impl FnOnce() -> Result<String, Failure>,
) -> Result<Settings, Failure> {
    let endpoints = endpoints(flags)?;
    let tls = tls(flags)?;
    let credentials = credentials(flags, ask_password)?;
    let format = Format::named(flags.text(&WRITE_OUT));
    let format = format.ok_or_else(|| Failure::new(Exit::BadFeature, "unsupported output format"))?;
    let client = Options {
        endpoints,
        dial_timeout: flags.duration(&DIAL_TIMEOUT),
        keepalive_time: flags.duration(&KEEPALIVE_TIME),
        keepalive_timeout: flags.duration(&KEEPALIVE_TIMEOUT),
        request_bytes_max: bytes(flags, &MAX_REQUEST_BYTES).unwrap_or(REQUEST_BYTES_MAX_DEFAULT),
        response_bytes_max: bytes(flags, &MAX_RECV_BYTES).unwrap_or(RESPONSE_BYTES_MAX_DEFAULT),
        credentials,
        tls,
    };
    let style = Style { format, hex: flags.switch(&HEX), values_only: false };
    Ok(Settings { client, style, command_timeout: flags.duration(&COMMAND_TIMEOUT) })
}

/// Checks the limits on messages against each other, which etcd's client does when it connects.
///
/// # Errors
/// A [`Failure`] if more may be sent than received.
pub(super) fn check_limits(flags: &Flags) -> Result<(), Failure> {
    match (bytes(flags, &MAX_REQUEST_BYTES), bytes(flags, &MAX_RECV_BYTES)) {
        (Some(send), Some(receive)) if send > receive => Err(Failure::new(
            Exit::BadConnection,
            format_args!("gRPC message recv limit ({receive} bytes) must be greater than send limit ({send} bytes)"),
        )),
        _ => Ok(()),
    }
}

fn bytes(flags: &Flags, flag: &Flag) -> Option<usize> {
    usize::try_from(flags.integer(flag)).ok().filter(|bytes| *bytes > 0)
}

/// Those that a domain names; without a domain, or if nothing of it may be used, those that were typed.
fn endpoints(flags: &Flags) -> Result<Vec<String>, Failure> {
    let (domain, suffix) = (flags.text(&DISCOVERY_SRV), flags.text(&DISCOVERY_SRV_NAME));
    let mut found = Vec::new();
    if !domain.is_empty() {
        let domain = Domain { domain: domain.to_owned(), suffix: suffix.to_owned() };
        found = look_up(&domain).map_err(|why| Failure::new(Exit::Error, why))?;
    }
    if !flags.switch(&INSECURE_DISCOVERY) {
        found.retain(|endpoint| {
            let is_secure = !endpoint.starts_with("http://");
            if !is_secure {
                complain(format_args!("ignoring discovered insecure endpoint {endpoint:?}"));
            }
            is_secure
        });
    }
    if found.is_empty() {
        found = flags.list(&ENDPOINTS).iter().map(|endpoint| endpoint.trim().to_owned()).collect();
    }
    Ok(found)
}

/// Asks name servers, in a thread of its own: flags are read where nobody can wait otherwise.
fn look_up(domain: &Domain) -> Result<Vec<String>, String> {
    let asking = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("starting tokio: {error}"))?;
        Ok(runtime.block_on(domain.endpoints(&Resolver::of_system()))?.urls)
    };
    let asked = std::thread::scope(|scope| scope.spawn(asking).join());
    asked.unwrap_or_else(|_| Err("asking name servers failed".to_owned()))
}

/// How to encrypt, as etcd's client decides it: if certificates are named, or plain text or looking at certificates is
/// switched off.
fn tls(flags: &Flags) -> Result<Option<Dialler>, Failure> {
    for flag in [CERT, KEY, CACERT] {
        if flags.is_set(&flag) && flags.text(&flag).is_empty() {
            return Err(Failure::bad_arguments(format_args!("empty string is passed to --{} option", flag.name)));
        }
    }
    let dialler = dialler(flags)?;
    // Records are anybody's to forge: what they lead to has to be certified for the domain that was asked for.
    match flags.text(&DISCOVERY_SRV) {
        domain if !domain.is_empty() && !flags.switch(&INSECURE_DISCOVERY) => {
            Ok(Some(dialler.unwrap_or_default().named(domain)))
        }
        _ => Ok(dialler),
    }
}

fn dialler(flags: &Flags) -> Result<Option<Dialler>, Failure> {
    let [cert, key, ca] = [CERT, KEY, CACERT].map(|flag| flags.text(&flag));
    let (is_unverified, is_plain) = (flags.switch(&INSECURE_SKIP_TLS_VERIFY), flags.switch(&INSECURE_TRANSPORT));
    dialler_with([cert, key, ca], is_unverified, is_plain)
}

/// How to encrypt with a certificate, its key and authorities, each a file or nothing.
///
/// # Errors
/// A [`Failure`] for files that cannot be used.
pub(super) fn dialler_with(
    [cert, key, ca]: [&str; 3],
    is_unverified: bool,
    is_plain: bool,
) -> Result<Option<Dialler>, Failure> {
    if [cert, key, ca].iter().all(|file| file.is_empty()) && !is_unverified && is_plain {
        return Ok(None);
    }
    let pair = match (cert, key) {
        ("", "") => None,
        (_, "") | ("", _) => {
            let what = format_args!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]");
            return Err(Failure::bad_arguments(what));
        }
        (cert, key) => Some(PairFiles::new(cert, key)),
    };
    let trust = if ca.is_empty() { Trust::System } else { Trust::File(ca.into()) };
    let trust = (!is_unverified).then_some(trust);
    let dialler = pair
        .map(Identity::read)
        .transpose()
        .and_then(|identity| Dialler::new(DiallerOptions { identity, trust, ..DiallerOptions::default() }));
    dialler.map(Some).map_err(Failure::bad_arguments)
}

fn credentials(flags: &Flags, ask_password: impl FnOnce() -> Result<String, Failure>) -> Result<Credentials, Failure> {
    match flags.text(&AUTH_JWT_TOKEN) {
        "" => user(flags.text(&USER), flags.text(&PASSWORD), ask_password),
        token => Ok(Credentials::Token(token.to_owned())),
    }
}

/// Who a user is whose password stands behind a colon, by itself, or nowhere: then it is asked for.
///
/// # Errors
/// Whatever asking for the password came to.
pub(super) fn user(
    user: &str,
    password: &str,
    ask_password: impl FnOnce() -> Result<String, Failure>,
) -> Result<Credentials, Failure> {
    if user.is_empty() {
        return Ok(Credentials::Nobody);
    }
    let (user, password) = match (password, user.split_once(':')) {
        ("", Some((user, password))) => (user, password.to_owned()),
        ("", None) => (user, ask_password()?),
        (password, _) => (user, password.to_owned()),
    };
    Ok(Credentials::Password { user: user.to_owned(), password })
}

/// What variables of the client begin with.
const PREFIX: &str = "ETCDCTL_";
const UNKNOWN: &str = "unrecognized environment variable";
const UNREADABLE: &str = "environment variable is ignored because its value cannot be read";
const CONFLICT: &str = "conflicting environment variable is shadowed by corresponding command-line flag (either unset \
                        environment variable or disable flag))";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Program, parse};

    fn call(line: &str) -> Call {
        let words = line.split(' ').map(OsString::from).collect();
        parse::parse(Program { name: "etcdctl", version: "" }, &super::super::ROOT, words).unwrap()
    }

    fn applied(line: &str, variables: &[(&str, &str)]) -> (Call, Notices) {
        let mut call = call(line);
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let notices = apply_environment(&mut call, variables, &["ETCDCTL_WATCH_KEY"]);
        (call, notices)
    }

    fn of(line: &str) -> Result<Settings, Failure> {
        settings(&call(line).flags, || Ok("asked".to_owned()))
    }

    fn refused(line: &str) -> (Exit, String) {
        let failure = of(line).unwrap_err();
        (failure.exit, failure.message.unwrap_or_default())
    }

    #[test]
    fn variables_set_what_was_not_typed() {
        let variables = [("ETCDCTL_WRITE_OUT", "json"), ("ETCDCTL_ENDPOINTS", "a:1,b:2"), ("ETCDCTL_HEX", "true")];
        let (call, notices) = applied("get foo", &variables);
        assert_eq!(notices, Notices::default());
        let settings = settings(&call.flags, || unreachable!()).unwrap();
        assert_eq!(settings.client.endpoints, ["a:1", "b:2"]);
        assert_eq!(settings.style, Style { format: Format::Json, hex: true, values_only: false });
    }

    #[test]
    fn servers_that_a_domain_names_have_to_be_certified_for_it() {
        let name = |line: &str| tls(&call(line).flags).unwrap().and_then(|tls| tls.name().map(str::to_owned));
        assert_eq!(name("get foo -d example.com --insecure-discovery=false").as_deref(), Some("example.com"));
        assert_eq!(name("get foo -d example.com"), None);
        assert_eq!(name("get foo --insecure-discovery=false"), None);
    }

    #[test]
    fn a_variable_and_a_flag_for_one_option_conflict() {
        let (_, notices) = applied("get foo -w json", &[("ETCDCTL_WRITE_OUT", "fields")]);
        assert_eq!(notices.conflict.map(|notice| notice.variable), Some("ETCDCTL_WRITE_OUT".to_owned()));
    }

    #[test]
    fn variables_of_nobody_are_told() {
        let variables = [("ETCDCTL_API", "3"), ("ETCDCTL_PREFIX", "true"), ("ETCDCTL_USER", ""), ("ETCD_NAME", "x")];
        let (_, notices) = applied("get foo", &variables);
        let told: Vec<_> = notices.warnings.iter().map(|notice| notice.variable.as_str()).collect();
        assert_eq!(told, ["ETCDCTL_API=3", "ETCDCTL_PREFIX=true", "ETCDCTL_USER="]);
        assert_eq!(applied("watch", &[("ETCDCTL_WATCH_KEY", "k")]).1, Notices::default());
        let (call, notices) = applied("get foo", &[("ETCDCTL_COMMAND_TIMEOUT", "x")]);
        assert_eq!(notices.warnings.first().map(|notice| notice.message), Some(UNREADABLE));
        assert_eq!(call.flags.duration(&COMMAND_TIMEOUT), Duration::from_secs(5));
    }

    #[test]
    fn flags_from_above_have_variables_too() {
        let (call, notices) = applied("endpoint status", &[("ETCDCTL_CLUSTER", "true")]);
        assert_eq!(notices, Notices::default());
        assert_eq!(debug_lines(&call).first().map(String::as_str), Some("ETCDCTL_AUTH_JWT_TOKEN="));
        assert!(debug_lines(&call).contains(&"ETCDCTL_CLUSTER=true".to_owned()));
        assert!(debug_lines(&call).contains(&"ETCDCTL_ENDPOINTS=[127.0.0.1:2379]".to_owned()));
    }

    #[test]
    fn credentials_come_from_one_place() {
        let password =
            |user: &str, password: &str| Credentials::Password { user: user.into(), password: password.into() };
        assert_eq!(of("get").unwrap().client.credentials, Credentials::Nobody);
        assert_eq!(of("get --user u:p:q").unwrap().client.credentials, password("u", "p:q"));
        assert_eq!(of("get --user u").unwrap().client.credentials, password("u", "asked"));
        assert_eq!(of("get --user u:x --password p").unwrap().client.credentials, password("u:x", "p"));
        assert_eq!(of("get --user u --auth-jwt-token t").unwrap().client.credentials, Credentials::Token("t".into()));
    }

    #[test]
    fn what_is_not_there_yet_is_refused_in_one_line() {
        let (exit, message) = refused("get -d a..b");
        let text = "dns lookup errors: lookup _etcd-client-ssl._tcp.a..b";
        assert!(exit == Exit::Error && message.starts_with(text), "{message}");
        assert_eq!(refused("get -w yaml"), (Exit::BadFeature, "unsupported output format".to_owned()));
    }

    #[test]
    fn certificates_are_asked_for_in_the_ways_of_etcd() {
        let bad = |text: &str| (Exit::BadArguments, text.to_owned());
        assert_eq!(refused("get --cert="), bad("empty string is passed to --cert option"));
        assert_eq!(refused("get --cert c"), bad("KeyFile and CertFile must both be present[key: , cert: c]"));
        assert_eq!(refused("get --cacert /absent"), bad("open /absent: no such file or directory"));
        assert!(of("get").unwrap().client.tls.is_none());
        assert!(of("get --insecure-skip-tls-verify").unwrap().client.tls.is_some());
    }

    #[test]
    fn sending_more_than_receiving_is_refused() {
        let check = |line| check_limits(&call(line).flags).map_err(|failure| failure.message.unwrap_or_default());
        assert_eq!(check("get --max-recv-bytes 10"), Ok(()));
        let text = "gRPC message recv limit (10 bytes) must be greater than send limit (100 bytes)";
        assert_eq!(check("get --max-recv-bytes 10 --max-request-bytes 100"), Err(text.to_owned()));
    }
}
