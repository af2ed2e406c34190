//! How a command ends when it cannot do what it was asked for.

use std::fmt::Display;

use crate::client::ClientError;

/// Exit codes of etcd's tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// The request failed, or anything else that has no code of its own.
    Error = 1,
    /// There is no connection, or the call that needs one failed.
    BadConnection = 2,
    /// Lines read from standard input make no sense.
    BadInput = 3,
    /// A known flag with a value that is not supported.
    BadFeature = 4,
    /// The work was broken off from outside.
    Interrupted = 5,
    /// Reading or writing failed on this machine.
    Io = 6,
    /// Arguments are missing, too many or unreadable.
    BadArguments = 128,
    /// Whoever read the answers went away; what a shell calls a death by SIGPIPE, which etcd's tools die of.
    BrokenPipe = 141,
}

/// The end of a command that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// What the process exits with.
    pub(super) exit: Exit,
    /// What stands behind `Error:`; `None` if everything was said already.
    pub(super) message: Option<String>,
    /// A usage text to print below the message.
    pub(super) usage: Option<String>,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Display) -> Self {
        Self { exit, message: Some(message.to_string()), usage: None }
    }

    /// Arguments are missing, too many or unreadable.
    pub(super) fn bad_arguments(message: impl Display) -> Self {
        Self::new(Exit::BadArguments, message)
    }

    /// The failure was already reported.
    pub(super) fn reported(exit: Exit) -> Self {
        Self { exit, message: None, usage: None }
    }
}

impl From<ClientError> for Failure {
    /// A request that failed.
    fn from(error: ClientError) -> Self {
        Self::new(Exit::Error, error)
    }
}

impl From<std::io::Error> for Failure {
    /// Standard output or input is gone.
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::reported(Exit::BrokenPipe),
            _ => Self::new(Exit::Io, error),
        }
    }
}
