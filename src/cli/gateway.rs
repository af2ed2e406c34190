//! `quorate gateway`: the command line of the TCP gateway. What it does is the daemon's; here it is read and explained.

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use super::{
    parse::Call,
    standin,
    table::{Command, Flag, Kind, Running, Values},
};

const LISTEN_ADDR: Flag = Flag::text("listen-addr", "127.0.0.1:23790", "address to listen on");
const ENDPOINTS: Flag = Flag { kind: Kind::List, ..Flag::text("endpoints", "127.0.0.1:2379", "members to connect to") };
const ENDPOINTS_FILE: Flag =
    Flag::text("endpoints-file", "", "file with the members to connect to, taken over whenever it changes")
        .values(Values::Files);
const DISCOVERY_SRV: Flag = Flag::text("discovery-srv", "", "DNS domain whose SRV records name the members");
const DISCOVERY_SRV_NAME: Flag = Flag::text("discovery-srv-name", "", "suffix of the service that is asked for");
const INSECURE_DISCOVERY: Flag =
    Flag::switch("insecure-discovery", "take SRV records of services without TLS without a check");
const TRUSTED_CA_FILE: Flag =
    Flag::text("trusted-ca-file", "", "certificate authority that members found by DNS are checked with")
        .values(Values::Files);
const RETRY_DELAY: Flag =
    Flag::duration("retry-delay", "1m0s", "time between two tests of a member that does not answer");

/// The commands behind `gateway`.
pub(super) static ROOT: Command = Command {
    name: "gateway",
    about: "Passes bytes between clients and the members of a cluster.",
    commands: &[Command {
        name: "start",
        about: "Starts the gateway",
        flags: &[
            LISTEN_ADDR,
            ENDPOINTS,
            ENDPOINTS_FILE,
            DISCOVERY_SRV,
            DISCOVERY_SRV_NAME,
            INSECURE_DISCOVERY,
            TRUSTED_CA_FILE,
            RETRY_DELAY,
        ],
        run: Some(start),
        ..Command::EMPTY
    }],
    ..Command::EMPTY
};

/// What the gateway is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayOptions {
    /// `--listen-addr`.
    pub listen_addr: String,
    /// `--endpoints`.
    pub endpoints: Vec<String>,
    /// `--endpoints-file`.
    pub endpoints_file: Option<PathBuf>,
    /// `--discovery-srv`; empty for none.
    pub discovery_srv: String,
    /// `--discovery-srv-name`; empty for none.
    pub discovery_srv_name: String,
    /// `--insecure-discovery`.
    pub insecure_discovery: bool,
    /// `--trusted-ca-file`.
    pub trusted_ca: Option<PathBuf>,
    /// `--retry-delay`.
    pub retry_delay: Duration,
}

/// Reads the words behind `gateway`.
///
/// # Errors
/// The exit code, after everything was said: help was asked for, or the words are wrong.
pub fn read(words: &[OsString]) -> Result<GatewayOptions, ExitCode> {
    let call = standin::read("quorate gateway", &ROOT, words)?;
    Ok(options(&call))
}

fn options(call: &Call) -> GatewayOptions {
    let path = |flag: &Flag| Some(call.flags.text(flag)).filter(|path| !path.is_empty()).map(PathBuf::from);
    GatewayOptions {
        listen_addr: call.flags.text(&LISTEN_ADDR).to_owned(),
        endpoints: call.flags.list(&ENDPOINTS).to_vec(),
        endpoints_file: path(&ENDPOINTS_FILE),
        discovery_srv: call.flags.text(&DISCOVERY_SRV).to_owned(),
        discovery_srv_name: call.flags.text(&DISCOVERY_SRV_NAME).to_owned(),
        insecure_discovery: call.flags.switch(&INSECURE_DISCOVERY),
        trusted_ca: path(&TRUSTED_CA_FILE),
        retry_delay: call.flags.duration(&RETRY_DELAY),
    }
}

/// Never called: the daemon takes what [`read`] hands out.
fn start(_: Call) -> Running {
    Box::pin(std::future::ready(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::table::tests::check;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_table_is_sound() {
        check(&ROOT);
    }

    #[test]
    fn defaults_are_etcds() {
        let options = read(&words("start")).unwrap();
        assert_eq!((options.listen_addr.as_str(), options.retry_delay), ("127.0.0.1:23790", Duration::from_mins(1)));
        assert_eq!((options.endpoints, options.endpoints_file), (vec!["127.0.0.1:2379".to_owned()], None));
    }

    #[test]
    fn flags_are_read() {
        let line = "start --endpoints=a:1,b:2 --endpoints c:3 --retry-delay=1s --endpoints-file /etc/members";
        let options = read(&words(line)).unwrap();
        assert_eq!(options.endpoints, ["a:1", "b:2", "c:3"]);
        assert_eq!(options.retry_delay, Duration::from_secs(1));
        assert_eq!(options.endpoints_file, Some("/etc/members".into()));
    }

    #[test]
    fn anything_else_ends_here() {
        for line in ["", "--help", "start --help", "stop", "start now", "start --retry-delay=soon", "start --nothing"] {
            assert!(read(&words(line)).is_err(), "{line}");
        }
    }
}
