//! What can go wrong on the way to an answer, in the words of etcd's v2 client.

use std::fmt::{self, Display, Write};

use http::StatusCode;
use thiserror::Error;

use super::Endpoint;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum V2Error {
    /// Every endpoint failed, each for a reason of its own.
    #[error("client: etcd cluster is unavailable or misconfigured{}", joined(.0))]
    Unavailable(Vec<Attempt>),
    /// The only endpoint that was asked failed. Whether the request was carried out is unknown.
    #[error(transparent)]
    Attempt(Attempt),
    /// The store refused.
    #[error("{code}: {message} ({cause}) [{index}]")]
    Store {
        /// One of the codes of the v2 API, such as 100 for a missing key.
        code: i64,
        /// What the code means.
        message: String,
        /// What it is about, often a key.
        cause: String,
        /// The index of the store.
        index: u64,
    },
    /// Members or authentication refused, in words of their own.
    #[error("{0}")]
    Refused(String),
    /// A status that nobody expects there.
    #[error("unexpected status code {0}")]
    Status(u16),
    /// An answer about keys that is none.
    #[error("client: response is invalid json. The endpoint is probably not valid etcd cluster endpoint")]
    InvalidAnswer,
    /// An answer about members or authentication that is none.
    #[error("{0}")]
    BadJson(String),
    /// A member stopped while it was watched.
    #[error("client: response body is empty")]
    Empty,
    /// There is nobody to ask.
    #[error("client: no endpoints available")]
    NoEndpoints,
    /// Something that is no URL.
    #[error("{0}")]
    BadUrl(String),
    /// The caller's time limit passed. Whether the request was carried out is unknown.
    #[error("context deadline exceeded")]
    DeadlineExceeded,
}

impl V2Error {
    /// Whether no endpoint could be reached, as opposed to an answer that says no.
    pub fn is_connection_failure(&self) -> bool {
        match self {
            Self::Unavailable(attempts) => attempts.iter().all(|attempt| attempt.is_connection),
            Self::Attempt(attempt) => attempt.is_connection,
            Self::DeadlineExceeded => true,
            _ => false,
        }
    }

    /// One line for each endpoint that failed; empty if it is not about several.
    pub fn detail(&self) -> String {
        let Self::Unavailable(attempts) = self else { return String::new() };
        let mut lines = String::new();
        for (number, attempt) in attempts.iter().enumerate() {
            push(&mut lines, format_args!("error #{number}: {attempt}\n"));
        }
        lines
    }
}

/// Why one endpoint gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    text: String,
    is_connection: bool,
}

impl Attempt {
    /// There is no connection.
    pub(super) fn connection(text: impl Display) -> Self {
        Self { text: text.to_string(), is_connection: true }
    }

    /// There was one, or none was tried.
    pub(super) fn other(text: impl Display) -> Self {
        Self { text: text.to_string(), is_connection: false }
    }

    /// The endpoint answered that it cannot answer.
    pub(super) fn refused(endpoint: &Endpoint, status: StatusCode) -> Self {
        match status {
            StatusCode::INTERNAL_SERVER_ERROR | StatusCode::SERVICE_UNAVAILABLE => {
                Self::other(format_args!("client: etcd member {endpoint} has no leader"))
            }
            _ => Self::other(format_args!(
                "client: etcd member {endpoint} returns server error [{}]",
                status.canonical_reason().unwrap_or_default()
            )),
        }
    }
}

impl Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Attempt {}

fn joined(attempts: &[Attempt]) -> String {
    let mut text = String::new();
    for (number, attempt) in attempts.iter().enumerate() {
        push(&mut text, format_args!("; error #{number}: {attempt}\n"));
    }
    text
}

fn push(text: &mut String, piece: fmt::Arguments) {
    // Writing to a string cannot fail.
    text.write_fmt(piece).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_is_named_twice_over() {
        let error = V2Error::Unavailable(vec![Attempt::connection("a"), Attempt::other("b")]);
        let text = "client: etcd cluster is unavailable or misconfigured; error #0: a\n; error #1: b\n";
        assert_eq!((error.to_string().as_str(), error.detail().as_str()), (text, "error #0: a\nerror #1: b\n"));
        assert!(!error.is_connection_failure() && V2Error::DeadlineExceeded.is_connection_failure());
    }

    #[test]
    fn a_member_that_cannot_answer_has_no_leader() {
        let endpoint = Endpoint::parse("http://a:1").unwrap();
        let text = |status| Attempt::refused(&endpoint, status).to_string();
        assert_eq!(text(StatusCode::SERVICE_UNAVAILABLE), "client: etcd member http://a:1 has no leader");
        assert_eq!(text(StatusCode::BAD_GATEWAY), "client: etcd member http://a:1 returns server error [Bad Gateway]");
    }
}
