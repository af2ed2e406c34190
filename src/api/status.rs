//! The single table from this program's errors to gRPC codes, messages and HTTP statuses.
//!
//! A refusal's code and text come with it ([`Rejection::code`]); unreadable data leaves as `DataLoss`; whatever else is only
//! this member's failure leaves as `Unknown` with its text, as etcd sends errors it has no table entry for.

use std::{borrow::Cow, fmt::Write as _};

use http::{HeaderValue, StatusCode};

use crate::{
    mvcc::ReadError,
    server::{ServerError, SnapshotError},
    storage::StorageError,
    types::{Code, Rejection},
};

/// The HTTP status of a call its client gave up; no standard defines it, proxies know it.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// How a call ended other than well: gRPC's code and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    code: Code,
    message: Cow<'static, str>,
}

impl Status {
    /// A status of our own wording.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }

    /// An error without an entry in the table.
    pub fn unknown(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unknown, message)
    }

    /// A call this server knows but does not offer (yet), with the reason.
    pub fn unimplemented(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unimplemented, message)
    }

    /// How a call ends whose client went away.
    pub fn canceled() -> Self {
        Self::new(Code::Canceled, "context canceled")
    }

    /// How a call ends whose time is over.
    pub fn deadline_exceeded() -> Self {
        Rejection::DeadlineExceeded.into()
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The message, as clients compare it.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The message as the `grpc-message` header carries it: percent-encoded outside of printable ASCII.
    pub(crate) fn header_message(&self) -> HeaderValue {
        let mut encoded = String::with_capacity(self.message.len());
        for byte in self.message.bytes() {
            match byte {
                b'%' => encoded.push_str("%25"),
                0x20..=0x7e => encoded.push(char::from(byte)),
                _ => write!(encoded, "%{byte:02X}").expect("a String takes any text"),
            }
        }
        HeaderValue::try_from(encoded).expect("printable ASCII is a valid header value")
    }

    /// The code as the `grpc-status` header carries it.
    pub(crate) fn header_code(&self) -> HeaderValue {
        HeaderValue::from(self.code as u16)
    }

    /// The HTTP status the JSON gateway answers with.
    pub fn http(&self) -> StatusCode {
        match self.code {
            Code::Canceled => StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(StatusCode::BAD_REQUEST),
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<Rejection> for Status {
    fn from(rejection: Rejection) -> Self {
        Self::new(rejection.code(), rejection.to_string())
    }
}

impl From<ServerError> for Status {
    fn from(error: ServerError) -> Self {
        match error {
            ServerError::Rejected(rejection) => rejection.into(),
            ServerError::Storage(storage) => storage.into(),
            ServerError::NoRoom(_) => Self::new(Code::ResourceExhausted, error.to_string()),
        }
    }
}

impl From<SnapshotError> for Status {
    fn from(error: SnapshotError) -> Self {
        let code = match error {
            SnapshotError::Storage(storage) => return storage.into(),
            SnapshotError::V2Keys => Code::FailedPrecondition,
            SnapshotError::Busy | SnapshotError::NoRoom(_) => Code::ResourceExhausted,
            SnapshotError::Failed(_) => Code::Unknown,
        };
        Self::new(code, error.to_string())
    }
}

impl From<StorageError> for Status {
    /// Data that is there and cannot be read is lost on this member: clients must not take that for a passing trouble, and
    /// an operator must act, whatever clients make of it.
    fn from(error: StorageError) -> Self {
        let text = error.with_causes();
        tracing::error!(error = text, "a request failed at the state of this member");
        let code = if error.is_damage() { Code::DataLoss } else { Code::Unknown };
        Self::new(code, text)
    }
}

impl From<ReadError> for Status {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Rejected(rejection) => rejection.into(),
            ReadError::Storage(storage) => storage.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Table;

    #[test]
    fn every_code_has_the_gateways_http_status() {
        let expected = [
            (Code::Canceled, 499),
            (Code::Unknown, 500),
            (Code::InvalidArgument, 400),
            (Code::DeadlineExceeded, 504),
            (Code::NotFound, 404),
            (Code::PermissionDenied, 403),
            (Code::ResourceExhausted, 429),
            (Code::FailedPrecondition, 400),
            (Code::OutOfRange, 400),
            (Code::Unimplemented, 501),
            (Code::Internal, 500),
            (Code::Unavailable, 503),
            (Code::DataLoss, 500),
            (Code::Unauthenticated, 401),
        ];
        for (code, http) in expected {
            assert_eq!(Status::new(code, "").http().as_u16(), http, "{code:?}");
        }
    }

    #[test]
    fn rejections_keep_code_and_text() {
        let status = Status::from(Rejection::Compacted);
        assert_eq!(status.code(), Code::OutOfRange);
        assert_eq!(status.message(), "etcdserver: mvcc: required revision has been compacted");
        assert_eq!(Status::from(ServerError::Rejected(Rejection::TooManyRequests)).code(), Code::Unknown);
    }

    #[test]
    fn unreadable_data_is_lost_and_a_failing_disk_is_not() {
        let corrupt = || StorageError::corrupt(Table::Meta, b"k", "it does not decode");
        for status in [Status::from(ServerError::Storage(corrupt())), Status::from(ReadError::Storage(corrupt()))] {
            assert_eq!(status.code(), Code::DataLoss);
            assert_eq!(status.message(), "state store: table Meta holds a bad row at key k: it does not decode");
        }
        let poisoned = StorageError::Poisoned { first: "disk full".into() };
        assert_eq!(Status::from(ReadError::Storage(poisoned)).code(), Code::Unknown);
    }

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(Status::unknown("50 % größer\n").header_message(), "50 %25 gr%C3%B6%C3%9Fer%0A");
        assert_eq!(Status::unknown("").header_code(), "2");
    }
}
