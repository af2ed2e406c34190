//! The v3 services, one file each, and the table that finds them.
//!
//! A method is a function from an encoded request to an encoded reply, so that gRPC and the JSON gateway run the same
//! code, checks and counters included. The order of checks is etcd's: decode, learner, client version, leader, then the
//! method's own. Who may do it is asked on the way to the member ([`session`]).

mod auth;
mod call;
mod cluster;
mod contest;
mod election;
mod headers;
mod health;
mod insight;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod methods;
mod parts;
mod request_text;
mod session;
mod slow;
mod watch;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use prost::{DecodeError, Message};

pub(crate) use call::Call;
#[cfg(test)]
pub(crate) use methods::METHODS;
pub(crate) use methods::find;
pub(crate) use parts::Parts;
use session::Session;
use slow::Slow;

use crate::{
    api::{
        Api,
        audit::Audited,
        status::Status,
        wire::{Inbound, Outbound, PREFIX_BYTES, framed},
    },
    metrics::GrpcMethod,
    types::Code,
};

/// The answer of a unary method.
#[derive(Debug)]
pub(crate) enum Reply {
    /// The encoded message with its frame.
    Whole(Bytes),
    /// A message too long to be held in memory.
    Parts(Box<Parts>),
}

impl Reply {
    /// An answer that fits into memory.
    pub(crate) fn of(message: &impl Message) -> Self {
        Self::Whole(framed(message))
    }

    /// The begin of the encoded message, the header included.
    fn head(&self) -> &[u8] {
        match self {
            Self::Whole(frame) => frame.get(PREFIX_BYTES..).unwrap_or_default(),
            Self::Parts(parts) => parts.head(),
        }
    }

    /// All of the encoded message but for pairs that are still to be read, and how long it is.
    fn frame(&self) -> ([&[u8]; 2], usize) {
        match self {
            Self::Whole(_) => ([self.head(), &[]], self.head().len()),
            Self::Parts(parts) => parts.frame(),
        }
    }
}

/// How a unary method is served.
pub(crate) type UnaryHandler = fn(Session, Bytes) -> BoxFuture<'static, Result<Reply, Status>>;
/// How a streaming method is served; its answers go into the last argument.
pub(crate) type StreamHandler = for<'a> fn(&'a Session, Inbound, &'a mut Outbound) -> BoxFuture<'a, Result<(), Status>>;

/// One entry of the table.
#[derive(Debug)]
pub(crate) struct Method {
    /// `/package.Service/Method`.
    pub path: &'static str,
    /// Its counters.
    pub counters: &'static GrpcMethod,
    /// What runs.
    pub handler: Handler,
}

/// Unary or streaming.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Handler {
    /// One request, one answer.
    Unary(UnaryHandler),
    /// Anything else.
    Stream(StreamHandler),
}

/// Serves one unary call from its encoded request.
///
/// # Errors
/// What the client is to hear.
pub(crate) async fn unary(api: Arc<Api>, method: &Method, call: Call, request: Bytes) -> Result<Reply, Status> {
    let Handler::Unary(serve) = method.handler else {
        return Err(Status::new(Code::Internal, format!("{} is not unary", method.path)));
    };
    let patience = call.timeout()?;
    let slow = Slow::begin(&api, &call, method.path, &request);
    let session = Session::new(api, call, method.path);
    let witness = session.witness().clone();
    // A copy of the metadata, for the audit log alone.
    let asker = session.entry().is_some().then(|| session.clone());
    let outcome = match patience {
        None => serve(session, request).await,
        Some(patience) => match tokio::time::timeout(patience, serve(session, request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Status::deadline_exceeded()),
        },
    };
    if let Some(asker) = asker {
        asker.name_refused(&outcome);
    }
    witness.end(&outcome, outcome.as_ref().map_or(&[], Reply::head));
    slow.end(outcome.as_ref().ok());
    outcome
}

/// Serves one streaming call, as long as its client waits.
///
/// # Errors
/// What the client is to hear.
pub(crate) async fn stream(
    api: Arc<Api>,
    method: &Method,
    call: Call,
    inbound: Inbound,
    outbound: &mut Outbound,
) -> Result<(), Status> {
    let Handler::Stream(serve) = method.handler else {
        return Err(Status::new(Code::Internal, format!("{} is no stream", method.path)));
    };
    let session = Session::new(api, call, method.path);
    let outcome = session.call().within_deadline(serve(&session, inbound, outbound)).await;
    session.name_refused(&outcome);
    session.witness().end(&outcome, &[]);
    outcome
}

/// Reads the request of a unary call.
///
/// # Errors
/// `Internal`, as gRPC libraries answer bytes that are not the message.
pub(crate) fn decode<M: Message + Default>(request: Bytes) -> Result<M, Status> {
    M::decode(request).map_err(|error| undecodable(&error))
}

/// The answer to a request of a unary call that is none.
fn undecodable(error: &DecodeError) -> Status {
    complained(error, "grpc: error unmarshalling request")
}

/// Reads a message of a stream.
///
/// # Errors
/// As [`decode`].
fn decode_streamed<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message).map_err(|error| complained(&error, "grpc: failed to unmarshal the received message"))
}

/// The request of a call that answers with a stream.
///
/// # Errors
/// As [`decode`], `Internal` for a client that sends none; what receiving failed with.
async fn only_request<M: Message + Default + Audited>(session: &Session, inbound: &mut Inbound) -> Result<M, Status> {
    const MISSING: &str = "cardinality violation: received no request message from non-client-streaming RPC";
    let request = inbound.next().await?.ok_or_else(|| Status::new(Code::Internal, MISSING))?;
    let request = decode_streamed(request)?;
    session.tell(&request);
    Ok(request)
}

fn complained(error: &DecodeError, complaint: &str) -> Status {
    tracing::debug!(%error, "a message that cannot be decoded");
    Status::new(Code::Internal, format!("{complaint}: {}", in_etcds_words(error)))
}

/// What etcd's decoder says in such a case. It tells three of them apart.
fn in_etcds_words(error: &DecodeError) -> &'static str {
    let text = error.to_string();
    if text.ends_with("recursion limit reached") {
        "proto: exceeded maximum recursion depth"
    } else if text.ends_with("data is not UTF-8 encoded") {
        "string field contains invalid UTF-8"
    } else {
        "proto: cannot parse invalid wire-format data"
    }
}

/// A unary method that no learner serves: decode, admit, serve, encode.
async fn plain<Q, A, F>(session: Session, request: Bytes, serve: impl FnOnce(Session, Q) -> F) -> Result<Reply, Status>
where
    Q: Message + Default + Audited,
    A: Message,
    F: Future<Output = Result<A, Status>>,
{
    let request = decode(request)?;
    session.tell(&request);
    session.admit(call::UNARY, false)?;
    serve(session, request).await.map(|answer| Reply::of(&answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::etcdserverpb::{MemberAddRequest, RangeRequest};

    fn refusal<M: Message + Default>(request: &'static [u8]) -> String {
        let status = decode::<M>(Bytes::from_static(request)).map(drop).unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        status.message().to_owned()
    }

    #[test]
    fn what_cannot_be_decoded_is_refused_in_etcds_words() {
        for broken in [&b"\xff"[..], b"\x0a", b"\x0a\x05ab", b"\x00"] {
            let text = "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data";
            assert_eq!(refusal::<RangeRequest>(broken), text);
        }
        let text = "grpc: error unmarshalling request: string field contains invalid UTF-8";
        assert_eq!(refusal::<MemberAddRequest>(b"\x0a\x02\xff\xfe"), text);
        let text = "grpc: error unmarshalling request: proto: exceeded maximum recursion depth";
        assert_eq!(refusal::<RangeRequest>(&[0x9b, 6].repeat(200).leak()[..]), text);
    }
}
