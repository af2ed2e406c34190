//! A command's way to the cluster.

use std::time::Duration;

use tracing::warn;

use super::{
    super::{
        failure::{Exit, Failure},
        log,
        output::{self, Shown, Style},
        parse::Call,
        password,
        speak::complain,
    },
    global::{self, Notices, Settings},
};
use crate::{
    client::{Client, ClientError, KeepAlive, Rpc},
    types::LeaseId,
};

/// What the first renewal of a lease may take beyond the time to connect before the lease counts as lost.
const FIRST_ANSWER_EXTRA: Duration = Duration::from_secs(1);

/// A connected client and how its answers are printed.
#[derive(Debug)]
pub(super) struct Session {
    /// The connected client.
    pub(super) client: Client,
    /// What the global flags come to.
    pub(super) settings: Settings,
}

impl Session {
    /// Reads the global flags and the environment, and starts connecting.
    ///
    /// # Errors
    /// A [`Failure`] for settings that cannot be used, or whatever authentication answered.
    pub(super) async fn open(call: &mut Call) -> Result<Self, Failure> {
        let settings = settings(call)?;
        global::check_limits(&call.flags)?;
        let client = connect(&settings, settings.client.endpoints.clone()).await?;
        Ok(Self { client, settings })
    }

    /// Performs one short request.
    ///
    /// # Errors
    /// What the cluster answered, or that it did not within the command's time.
    pub(super) async fn call<R: Rpc>(&self, request: R) -> Result<R::Response, ClientError> {
        self.client.call(request, Some(self.settings.command_timeout)).await
    }

    /// Renews `lease` for as long as it is asked to.
    pub(super) fn keep_alive(&self, lease: LeaseId) -> KeepAlive {
        self.client.keep_alive(lease, self.settings.client.dial_timeout + FIRST_ANSWER_EXTRA)
    }

    /// Prints an answer.
    ///
    /// # Errors
    /// A [`Failure`] if the answer has no such form, or standard output is gone.
    pub(super) fn print(&self, shown: &dyn Shown) -> Result<(), Failure> {
        output::print(self.settings.style, shown)
    }

    /// How answers are printed.
    pub(super) fn style(&self) -> Style {
        self.settings.style
    }
}

/// Reads the global flags and the environment of a call, and starts the log.
///
/// # Errors
/// A [`Failure`] for settings that cannot be used.
pub(super) fn settings(call: &mut Call) -> Result<Settings, Failure> {
    settings_with(call, &[])
}

/// The same for a command that tells itself which calls have failed.
///
/// # Errors
/// As [`settings`].
pub(super) fn settings_without_calls_logged(call: &mut Call) -> Result<Settings, Failure> {
    read_settings(call, &[], log::start_without_calls)
}

/// The same for a command that has variables of its own.
pub(super) fn settings_with(call: &mut Call, watched: &[&str]) -> Result<Settings, Failure> {
    read_settings(call, watched, log::start)
}

fn read_settings(call: &mut Call, watched: &[&str], start_log: fn(bool)) -> Result<Settings, Failure> {
    let notices = global::apply_environment(call, std::env::vars_os(), watched);
    let debug = global::is_debug(call);
    start_log(debug);
    tell(&notices)?;
    if debug {
        complain(global::debug_lines(call).join("\n"));
    }
    global::settings(&call.flags, || password::ask("Password: "))
}

fn tell(notices: &Notices) -> Result<(), Failure> {
    for notice in &notices.warnings {
        warn!("environment-variable" = notice.variable, "{}", notice.message);
    }
    match &notices.conflict {
        None => Ok(()),
        Some(notice) => {
            log::fatal(notice.message, "environment-variable", &notice.variable);
            Err(Failure::reported(Exit::Error))
        }
    }
}

/// Starts connecting to `endpoints` with these settings.
///
/// # Errors
/// A [`Failure`] if no connection can even be tried, or whatever authentication answered.
pub(super) async fn connect(settings: &Settings, endpoints: Vec<String>) -> Result<Client, Failure> {
    try_connect(settings, endpoints).await.map_err(no_connection)
}

/// [`connect`] for a caller that can go on without the connection.
///
/// # Errors
/// As [`connect`].
pub(super) async fn try_connect(settings: &Settings, endpoints: Vec<String>) -> Result<Client, ClientError> {
    Client::connect(crate::client::Options { endpoints, ..settings.client.clone() }).await
}

/// The end of a command that needs the connection.
pub(super) fn no_connection(error: ClientError) -> Failure {
    Failure::new(Exit::BadConnection, error)
}
