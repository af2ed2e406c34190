//! A command's way to the cluster.

use std::io::{self, BufRead, IsTerminal};

use nix::sys::termios::{self, LocalFlags, SetArg};
use tracing::warn;

use super::{
    super::{
        failure::{Exit, Failure},
        log,
        output::{self, Shown, Style},
        parse::Call,
        speak::{complain, say},
    },
    global::{self, Notices, Settings},
};
use crate::client::{Client, ClientError, Rpc};

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

/// The same for a command that has variables of its own.
pub(super) fn settings_with(call: &mut Call, watched: &[&str]) -> Result<Settings, Failure> {
    let notices = global::apply_environment(call, std::env::vars_os(), watched);
    let debug = global::is_debug(call);
    log::start(debug);
    tell(&notices)?;
    if debug {
        complain(global::debug_lines(call).join("\n"));
    }
    global::settings(&call.flags, || ask_password("Password: "))
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

/// Asks for a secret on standard output and reads it from standard input, unseen on a terminal.
fn ask_password(prompt: &str) -> Result<String, Failure> {
    say(format_args!("{prompt}"))?;
    let password = read_unseen()?;
    say(format_args!("\n"))?;
    Ok(password)
}

fn read_unseen() -> io::Result<String> {
    let stdin = io::stdin();
    let mut line = String::new();
    if !stdin.is_terminal() {
        stdin.lock().read_line(&mut line)?;
        return Ok(without_end(&line));
    }
    let shown = termios::tcgetattr(&stdin)?;
    let mut unseen = shown.clone();
    unseen.local_flags.remove(LocalFlags::ECHO);
    termios::tcsetattr(&stdin, SetArg::TCSAFLUSH, &unseen)?;
    let read = stdin.lock().read_line(&mut line);
    termios::tcsetattr(&stdin, SetArg::TCSAFLUSH, &shown)?;
    read.map(|_| without_end(&line))
}

fn without_end(line: &str) -> String {
    line.trim_end_matches(['\r', '\n']).to_owned()
}
