//! gRPC on HTTP/2, by hand: connections, frames, calls.
//!
//! What a call costs here is what the member costs its clients, so the way of a small call is short: its future is
//! polled at once by the task of its connection, without a spawn, and most reads end there. Invariants: a message
//! longer than the limit is refused from its length alone; nothing is queued towards a client beyond one message and
//! the send window; every call that was counted as started is counted as handled once, however it ends.

mod encoding;
mod frame;
mod http2;
mod impatient;
mod inbound;
mod keepalive;
mod lookout;
mod outbound;
mod sniff;
mod tally;

pub(crate) use encoding::Encoding;
pub(crate) use frame::{PREFIX_BYTES, framed, prefix};
pub(crate) use http2::{Http2Service, is_grpc, send_plain, serve_http2, unless_reset};
pub(crate) use impatient::Impatient;
pub(crate) use inbound::{Inbound, finish};
pub(crate) use keepalive::PingGuard;
pub(crate) use lookout::watched;
pub(crate) use outbound::{Outbound, answer, refuse};
pub(crate) use sniff::{Prefixed, Protocol, begun_within, sniff_within};
pub(crate) use tally::Tally;
