//! How a command ends when it cannot do what it was asked for.

use std::fmt::Display;

use crate::client::ClientError;

/// Exit codes of etcd's tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// The request failed, or anything else that has no code of its own.
    Error,
    /// There is no connection, or the call that needs one failed.
    BadConnection,
    /// Lines read from standard input make no sense.
    BadInput,
    /// A known flag with a value that is not supported.
    BadFeature,
    /// The work was broken off from outside.
    Interrupted,
    /// Reading or writing failed on this machine.
    Io,
    /// Arguments are missing, too many or unreadable.
    BadArguments,
    /// Whoever read the answers went away; what a shell calls a death by SIGPIPE, which etcd's tools die of.
    BrokenPipe,
    /// What a command that was run on somebody's behalf ended with.
    Child(u8),
}

impl Exit {
    /// The v2 client was asked for help on something that does not exist.
    pub(super) const NO_HELP: Self = Self::BadInput;
    /// The cluster refused what the v2 client asked for, or nobody answered it.
    pub(super) const REFUSED: Self = Self::BadFeature;
    /// The v2 client found a member that is not healthy.
    pub(super) const NOT_HEALTHY: Self = Self::Interrupted;

    /// The number the process exits with.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Error => 1,
            Self::BadConnection => 2,
            Self::BadInput => 3,
            Self::BadFeature => 4,
            Self::Interrupted => 5,
            Self::Io => 6,
            Self::BadArguments => 128,
            Self::BrokenPipe => 141,
            Self::Child(code) => code,
        }
    }
}

/// The end of a command that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// What the process exits with.
    pub(super) exit: Exit,
    /// What stands behind `Error:`; `None` if everything was said already.
    pub(super) message: Option<String>,
    /// What stands on the lines below: a usage text, or all there is to say.
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

    /// A failure told in these words alone, without `Error:` before them.
    pub(super) fn bare(exit: Exit, message: impl Display) -> Self {
        Self { exit, message: None, usage: Some(message.to_string()) }
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
