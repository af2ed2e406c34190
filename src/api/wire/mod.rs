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
mod outbound;
mod sniff;
mod tally;

pub(crate) use encoding::Encoding;
pub(crate) use frame::{PREFIX_BYTES, framed, prefix};
pub(crate) use http2::serve_http2;
pub(crate) use impatient::Impatient;
pub(crate) use inbound::Inbound;
pub(crate) use keepalive::PingGuard;
pub(crate) use outbound::Outbound;
pub(crate) use sniff::{Prefixed, Protocol, sniff};
pub(crate) use tally::Tally;
