//! Flags of the whole client, and the variables that stand in for them.

use std::{env, time::Duration};

use super::super::{
    failure::{Exit, Failure},
    go_text,
    parse::Flags,
    password,
    speak::complain,
    table::{Flag, Values},
};
use crate::{
    client::v2::{Endpoint, V2Error},
    discovery::{dns::Resolver, srv::Domain},
    tls::{Dialler, DiallerOptions, Identity, PairFiles, Trust},
};

const DEBUG: Flag = Flag::switch("debug", "tell every request on standard error, as a command line of curl");
const NO_SYNC: Flag = Flag::switch("no-sync", "use the endpoints as given, not the addresses that members announce");
const OUTPUT: Flag = Flag::text("output", "simple", "form of the answers: simple, extended or json")
    .short('o')
    .values(Values::Words(&["extended", "json", "simple"]));
const DISCOVERY_SRV: Flag = Flag::text("discovery-srv", "", "domain whose SRV records name the endpoints").short('D');
const INSECURE_DISCOVERY: Flag = Flag::switch("insecure-discovery", "accept endpoints without encryption from DNS");
const PEERS: Flag = Flag::text("peers", "", "old name of --endpoints").short('C');
const ENDPOINT: Flag = Flag::text("endpoint", "", "old name of --endpoints");
const ENDPOINTS: Flag = Flag::text(
    "endpoints",
    "",
    "where the members listen for clients, separated by commas (default: \"http://127.0.0.1:2379,http://127.0.0.1:4001\")",
);
const CERT_FILE: Flag = Flag::text("cert-file", "", "certificate file to identify with").values(Values::Files);
const KEY_FILE: Flag = Flag::text("key-file", "", "file with the key of that certificate").values(Values::Files);
const CA_FILE: Flag = Flag::text("ca-file", "", "file with the authorities that may sign the certificates of members")
    .values(Values::Files);
const USERNAME: Flag =
    Flag::text("username", "", "name[:password] to authenticate with; a missing password is asked for").short('u');
const TIMEOUT: Flag =
    Flag::duration("timeout", "2s", "time for connecting and the head of an answer, at each endpoint");
const TOTAL_TIMEOUT: Flag = Flag::duration("total-timeout", "5s", "time for a whole command, except a watch");

/// Flags of the whole client.
pub(super) const FLAGS: &[Flag] = &[
    DEBUG,
    NO_SYNC,
    OUTPUT,
    DISCOVERY_SRV,
    INSECURE_DISCOVERY,
    PEERS,
    ENDPOINT,
    ENDPOINTS,
    CERT_FILE,
    KEY_FILE,
    CA_FILE,
    USERNAME,
    TIMEOUT,
    TOTAL_TIMEOUT,
];

/// What flags and variables come to.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) endpoints: Vec<Endpoint>,
    /// How to encrypt, at endpoints that want it.
    pub(super) tls: Dialler,
    pub(super) credentials: Option<(String, String)>,
    /// Time for connecting and the head of an answer, at each endpoint.
    pub(super) timeout: Duration,
    /// Time for a whole command.
    pub(super) total_timeout: Duration,
    /// Whether to go on with the addresses that members announce.
    pub(super) sync: bool,
    /// Whether to tell every request.
    pub(super) debug: bool,
}

/// The form of the answers.
pub(super) fn output(flags: &Flags) -> &str {
    flags.text(&OUTPUT)
}

/// Reads the global flags and the environment, which counts only where a flag is missing, and asks the name servers if
/// there is a domain to ask for.
///
/// # Errors
/// A [`Failure`] for values that cannot be used, in the order etcdctl looks at them.
pub(super) async fn settings(flags: &Flags) -> Result<Settings, Failure> {
    let variable = |name: &str| env::var_os(name).unwrap_or_default().to_string_lossy().into_owned();
    let urls = discovered(flags, &variable).await.map_err(|why| Failure::bare(Exit::Error, why))?;
    settings_with(flags, &variable, &urls)
}

/// What the records of a domain name; nothing without a domain.
async fn discovered(flags: &Flags, variable: &dyn Fn(&str) -> String) -> Result<Vec<String>, String> {
    let (domain, is_insecure) = domain(flags, variable);
    if domain.is_empty() {
        return Ok(Vec::new());
    }
    let suffix = variable("ETCDCTL_DISCOVERY_SRV_NAME");
    let found = Domain { domain, suffix }.endpoints(&Resolver::of_system()).await?;
    let (kept, ignored): (Vec<_>, Vec<_>) =
        found.urls.into_iter().partition(|url| is_insecure || !url.starts_with("http://"));
    for url in ignored {
        complain(format_args!("ignoring discovered insecure endpoint {}", go_text::quote(url.as_bytes())));
    }
    Ok(kept)
}

/// The domain to ask for, and whether its endpoints may be anybody's.
fn domain(flags: &Flags, variable: &dyn Fn(&str) -> String) -> (String, bool) {
    let domain = value(flags, variable, &DISCOVERY_SRV, "ETCDCTL_DISCOVERY_SRV");
    (domain, flags.switch(&INSECURE_DISCOVERY) || !variable("ETCDCTL_INSECURE_DISCOVERY").is_empty())
}

fn value(flags: &Flags, variable: &dyn Fn(&str) -> String, flag: &Flag, name: &str) -> String {
    match flags.text(flag) {
        "" => variable(name),
        text => text.to_owned(),
    }
}

/// The settings of `flags`, with `variable` for the environment. What was discovered counts before all endpoints.
fn settings_with(flags: &Flags, variable: &dyn Fn(&str) -> String, discovered: &[String]) -> Result<Settings, Failure> {
    let value = |flag: &Flag, name: &str| value(flags, variable, flag, name);
    let typed = [(ENDPOINTS, "ETCDCTL_ENDPOINTS"), (ENDPOINT, "ETCDCTL_ENDPOINT"), (PEERS, "ETCDCTL_PEERS")];
    let endpoints = typed.iter().map(|(flag, name)| value(flag, name)).find(|text| !text.is_empty());
    let endpoints = if discovered.is_empty() {
        parsed(endpoints.as_deref().unwrap_or(ENDPOINTS_DEFAULT).split(','))
    } else {
        parsed(discovered.iter().map(String::as_str))
    };
    let endpoints = endpoints.map_err(|why| Failure::bare(Exit::Error, why))?;
    let files = [(CA_FILE, "ETCDCTL_CA_FILE"), (CERT_FILE, "ETCDCTL_CERT_FILE"), (KEY_FILE, "ETCDCTL_KEY_FILE")];
    let tls = tls(files.map(|(flag, name)| value(&flag, name))).map_err(|why| Failure::bare(Exit::Error, why))?;
    // Records are anybody's to forge: what they lead to has to be certified for the domain that was asked for.
    let tls = match domain(flags, variable) {
        (domain, false) if !domain.is_empty() => tls.named(&domain),
        _ => tls,
    };
    Ok(Settings {
        endpoints,
        tls,
        credentials: credentials(&value(&USERNAME, "ETCDCTL_USERNAME"))?,
        timeout: flags.duration(&TIMEOUT),
        total_timeout: flags.duration(&TOTAL_TIMEOUT),
        sync: !flags.switch(&NO_SYNC),
        debug: flags.switch(&DEBUG),
    })
}

fn parsed<'t>(endpoints: impl Iterator<Item = &'t str>) -> Result<Vec<Endpoint>, V2Error> {
    endpoints.map(Endpoint::parse_typed).collect()
}

/// How to encrypt. Without a file of authorities those of the system are believed.
fn tls([ca, cert, key]: [String; 3]) -> Result<Dialler, String> {
    if cert.is_empty() != key.is_empty() {
        return Err(format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]"));
    }
    let pair = (!cert.is_empty()).then(|| PairFiles::new(cert, key));
    if pair.is_none() && ca.is_empty() {
        return Ok(Dialler::default());
    }
    let trust = Some(if ca.is_empty() { Trust::System } else { Trust::File(ca.into()) });
    let identity = pair.map(Identity::read).transpose();
    identity
        .and_then(|identity| Dialler::new(DiallerOptions { identity, trust, ..DiallerOptions::default() }))
        .map_err(|error| error.to_string())
}

fn credentials(user: &str) -> Result<Option<(String, String)>, Failure> {
    if user.is_empty() {
        return Ok(None);
    }
    named(user, "Password: ").map(Some)
}

/// Name and password of `name[:password]`; a missing password is asked for with `prompt`.
///
/// # Errors
/// A [`Failure`] if nobody can be asked.
pub(super) fn named(user: &str, prompt: &str) -> Result<(String, String), Failure> {
    match user.split_once(':') {
        Some((name, password)) => Ok((name.to_owned(), password.to_owned())),
        None => Ok((user.to_owned(), password::ask(prompt)?.trim().to_owned())),
    }
}

const ENDPOINTS_DEFAULT: &str = "http://127.0.0.1:2379,http://127.0.0.1:4001";

#[cfg(test)]
mod tests {
    use super::*;

    fn of(typed: &[(Flag, &str)], variables: &[(&str, &str)]) -> Result<Settings, Failure> {
        let mut flags = Flags::defaults(&FLAGS.iter().collect::<Vec<_>>());
        for (flag, value) in typed {
            flags.add(flag, value).unwrap();
        }
        let variable = |name: &str| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map_or_else(String::new, |(_, value)| (*value).to_owned())
        };
        settings_with(&flags, &variable, &[])
    }

    fn endpoints(typed: &[(Flag, &str)], variables: &[(&str, &str)]) -> Vec<String> {
        of(typed, variables).unwrap().endpoints.iter().map(ToString::to_string).collect()
    }

    fn refused(typed: &[(Flag, &str)]) -> (u8, String) {
        let failure = of(typed, &[]).unwrap_err();
        (failure.exit.code(), failure.usage.unwrap_or_default())
    }

    #[test]
    fn flags_count_before_variables_and_new_names_before_old() {
        assert_eq!(endpoints(&[], &[]), ["http://127.0.0.1:2379", "http://127.0.0.1:4001"]);
        let variables = [("ETCDCTL_ENDPOINTS", "http://v:1"), ("ETCDCTL_PEERS", "http://p:1")];
        assert_eq!(endpoints(&[], &variables), ["http://v:1"]);
        assert_eq!(endpoints(&[(PEERS, "http://c:1")], &variables), ["http://v:1"], "as in etcdctl");
        assert_eq!(endpoints(&[(ENDPOINTS, "a,http://b:1")], &variables), ["http://a", "http://b:1"]);
        assert_eq!(endpoints(&[(PEERS, "http://c:1")], &[]), ["http://c:1"]);
    }

    #[test]
    fn servers_that_a_domain_names_have_to_be_certified_for_it() {
        let name = |variables: &[(&str, &str)]| of(&[], variables).unwrap().tls.name().map(str::to_owned);
        let domain = ("ETCDCTL_DISCOVERY_SRV", "example.com");
        assert_eq!(name(&[domain]).as_deref(), Some("example.com"));
        assert_eq!(name(&[domain, ("ETCDCTL_INSECURE_DISCOVERY", "1")]), None);
        assert_eq!(name(&[]), None);
    }

    #[test]
    fn credentials_come_with_their_password() {
        let user = of(&[], &[("ETCDCTL_USERNAME", "u:p:q")]).unwrap().credentials;
        assert_eq!(user, Some(("u".to_owned(), "p:q".to_owned())));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        assert_eq!(refused(&[(CA_FILE, "/absent")]), (1, "open /absent: no such file or directory".to_owned()));
        let text = "KeyFile and CertFile must both be present[key: , cert: c]";
        assert_eq!(refused(&[(CERT_FILE, "c")]), (1, text.to_owned()));
        let text = "parse \"127.0.0.1:1\": first path segment in URL cannot contain colon";
        assert_eq!(refused(&[(ENDPOINTS, "127.0.0.1:1")]), (1, text.to_owned()));
    }
}
