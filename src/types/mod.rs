//! The words every floor shares: identifiers, positions, intervals and refusals.
//!
//! Plain values without behaviour of their own beyond ordering, printing and parsing. Floor 0: builds on nothing.

mod causes;
mod ids;
mod key_range;
mod rejection;

pub use causes::with_causes;
pub use ids::{ClusterId, LeaseId, LogIndex, MemberId, RequestId, RequestIds, Revision, Term, Ticks};
pub use key_range::{KeyEnd, KeyRange};
pub use rejection::{Code, Rejection};

/// Longest encoded proposal a member accepts unless configured otherwise: 1.5 MiB, the limit clients are told of.
pub const REQUEST_BYTES_MAX_DEFAULT: usize = 1_572_864;
/// What a gRPC message may exceed [`REQUEST_BYTES_MAX_DEFAULT`] by before it is refused unread.
pub const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;
/// Longest user key: the engine stores at most 65 535 bytes and the key's escaping can double it.
pub const KEY_BYTES_MAX: usize = 32_000;
/// Most operations on one level of a transaction unless configured otherwise.
pub const TXN_OPS_MAX_DEFAULT: usize = 128;
/// Longest time to live a lease may ask for, in seconds.
pub const LEASE_TTL_SECONDS_MAX: i64 = 9_000_000_000;
