//! What can go wrong on the way to an answer, in the words etcd's client uses.

use thiserror::Error;
use tonic::{Code, Status};

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClientError {
    /// The cluster refused in words every etcd client knows.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Any other gRPC status.
    #[error("rpc error: code = {} desc = {message}", code_name(*code))]
    Status {
        /// The status code.
        code: Code,
        /// Its message.
        message: String,
    },
    /// The member ended a watch and said why.
    #[error("{reason}")]
    WatchEnded {
        /// The member's words.
        reason: String,
    },
    /// The caller's time limit passed. Whether the request was carried out is unknown.
    #[error("context deadline exceeded")]
    DeadlineExceeded {
        /// The last failure to connect, if that is what used up the time.
        waiting_for: Option<String>,
    },
    /// There is nobody to call.
    #[error("etcdclient: no available endpoints")]
    NoEndpoints,
    /// An endpoint that cannot even be dialled.
    #[error("endpoint {endpoint:?} is not an address: {reason}; write it like 127.0.0.1:2379")]
    BadEndpoint {
        /// The endpoint as given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A token that cannot travel in a header.
    #[error("the authentication token contains characters that no header can carry")]
    BadToken,
}

/// A refusal whose text is one of the contract's; callers compare it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct Refusal {
    /// The status code it came with.
    pub code: Code,
    /// One of the texts in [`Refusal::KNOWN`].
    pub text: &'static str,
}

impl Refusal {
    /// The words an etcd 3.7 client prints bare; every other status it prints with its code.
    pub const KNOWN: &'static [&'static str] = &[
        "etcdserver: key is not provided",
        "etcdserver: key not found",
        "etcdserver: value is provided",
        "etcdserver: lease is provided",
        "etcdserver: too many operations in txn request",
        "etcdserver: duplicate key given in txn request",
        "etcdserver: invalid sort option",
        "etcdserver: mvcc: required revision has been compacted",
        "etcdserver: mvcc: required revision is a future revision",
        "etcdserver: mvcc: database space exceeded",
        "etcdserver: requested lease not found",
        "etcdserver: lease already exists",
        "etcdserver: too large lease TTL",
        "etcdserver: member ID already exist",
        "etcdserver: Peer URLs already exists",
        "etcdserver: re-configuration failed due to not enough started members",
        "etcdserver: given member URLs are invalid",
        "etcdserver: member not found",
        "etcdserver: can only promote a learner member",
        "etcdserver: can only promote a learner member which is in sync with leader",
        "etcdserver: too many learner members in cluster",
        "etcdserver: cluster ID mismatch",
        "etcdserver: request is too large",
        "etcdserver: too many requests",
        "etcdserver: root user does not exist",
        "etcdserver: root user does not have root role",
        "etcdserver: user name already exists",
        "etcdserver: user name is empty",
        "etcdserver: user name not found",
        "etcdserver: role name already exists",
        "etcdserver: role name not found",
        "etcdserver: role name is empty",
        "etcdserver: authentication failed, invalid user ID or password",
        "etcdserver: permission denied",
        "etcdserver: role is not granted to the user",
        "etcdserver: permission is not granted to the role",
        "etcdserver: authentication is not enabled",
        "etcdserver: invalid auth token",
        "etcdserver: invalid auth management",
        "etcdserver: revision of auth store is old",
        "etcdserver: no leader",
        "etcdserver: not leader",
        "etcdserver: leader changed",
        "etcdserver: not capable",
        "etcdserver: server stopped",
        "etcdserver: request timed out",
        "etcdserver: request timed out, possibly due to previous leader failure",
        "etcdserver: request timed out, possibly due to connection lost",
        "etcdserver: unhealthy cluster",
        "etcdserver: corrupt cluster",
        "etcdserver: rpc not supported for learner",
        "etcdserver: bad leader transferee",
        "etcdserver: cluster version not found during downgrade",
        "etcdserver: wrong downgrade target version format",
        "etcdserver: invalid downgrade target version",
        "etcdserver: cluster has a downgrade job in progress",
        "etcdserver: no inflight downgrade job",
    ];

    fn known(code: Code, text: &str) -> Option<Self> {
        Self::KNOWN.iter().find(|known| **known == text).map(|known| Self { code, text: known })
    }
}

impl ClientError {
    /// Reads the status of a call.
    ///
    /// A status with a cause was made on this side: the connection broke, which the gRPC library reports under several
    /// codes. All of them are [`Code::Unavailable`] to etcd's clients.
    pub fn from_status(status: &Status) -> Self {
        if let Some((bytes, limit)) = too_long(status) {
            let message = format!("grpc: received message larger than max ({bytes} vs. {limit})");
            return Self::Status { code: Code::ResourceExhausted, message };
        }
        if let (Some(cause), Code::Unknown | Code::Internal | Code::Cancelled) =
            (std::error::Error::source(status), status.code())
        {
            let message = format!("connection error: {cause}");
            return Self::Status { code: Code::Unavailable, message };
        }
        Self::from_parts(status.code(), status.message())
    }

    /// Reads a status code and its message, wherever they were carried.
    pub fn from_parts(code: Code, message: &str) -> Self {
        Refusal::known(code, message).map_or_else(|| Self::Status { code, message: message.to_owned() }, Self::Refused)
    }

    /// Whether the member knows no such method.
    pub fn is_unimplemented(&self) -> bool {
        self.code() == Code::Unimplemented
    }

    /// The gRPC code that fits this error.
    pub fn code(&self) -> Code {
        match self {
            Self::Refused(refusal) => refusal.code,
            Self::Status { code, .. } => *code,
            Self::WatchEnded { .. } => Code::Cancelled,
            Self::DeadlineExceeded { .. } => Code::DeadlineExceeded,
            Self::NoEndpoints | Self::BadEndpoint { .. } => Code::Unavailable,
            Self::BadToken => Code::InvalidArgument,
        }
    }

    /// Whether the cluster refused with exactly this text.
    pub fn is_refusal(&self, text: &str) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.text == text)
    }

    /// Whether another attempt, perhaps elsewhere, can succeed without anybody changing anything.
    pub(super) fn is_transient(&self) -> bool {
        self.code() == Code::Unavailable
    }

    /// The text of this error as a gRPC status, which is how log lines show it.
    pub(super) fn as_status_text(&self) -> String {
        match self {
            Self::DeadlineExceeded { waiting_for: Some(cause) } => {
                format!("rpc error: code = DeadlineExceeded desc = latest balancer error: {cause}")
            }
            Self::Refused(refusal) => {
                format!("rpc error: code = {} desc = {}", code_name(refusal.code), refusal.text)
            }
            Self::DeadlineExceeded { waiting_for: None } => {
                "rpc error: code = DeadlineExceeded desc = context deadline exceeded".to_owned()
            }
            other => other.to_string(),
        }
    }
}

/// The size of an answer that was refused unread, and the limit it exceeds. The gRPC library tells both in a text only.
fn too_long(status: &Status) -> Option<(usize, usize)> {
    let sizes = status.message().strip_prefix("Error, decoded message length too large: found ")?;
    let (bytes, limit) = sizes.split_once(" bytes, the limit is: ")?;
    Some((bytes.parse().ok()?, limit.strip_suffix(" bytes")?.parse().ok()?))
}

/// The name gRPC's Go implementation gives a code; users know these names from etcd's messages.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_refusals_print_bare_and_others_with_their_code() {
        let refused = ClientError::from_parts(Code::InvalidArgument, "etcdserver: key is not provided");
        assert_eq!(refused.to_string(), "etcdserver: key is not provided");
        let unknown = ClientError::from_parts(Code::Cancelled, "etcdserver: request canceled");
        assert_eq!(unknown.to_string(), "rpc error: code = Canceled desc = etcdserver: request canceled");
    }

    #[test]
    fn log_lines_show_every_error_as_a_status() {
        let refused =
            ClientError::from_parts(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
        assert_eq!(
            refused.as_status_text(),
            "rpc error: code = OutOfRange desc = etcdserver: mvcc: required revision has been compacted"
        );
        let waited = ClientError::DeadlineExceeded { waiting_for: Some("connection error".to_owned()) };
        assert_eq!(waited.to_string(), "context deadline exceeded");
        assert!(waited.as_status_text().ends_with("latest balancer error: connection error"));
    }
}
