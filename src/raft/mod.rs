//! One member's share of the raft protocol, without any input or output of its own.
//!
//! [`Member::handle`] takes what happened and lists what to do; a driver performs the list. The module agrees on the
//! order of opaque payloads and never learns what they mean; what a configuration change does is decided by whoever
//! applies it and handed back as [`Change`].
//!
//! Invariants:
//! - Only messages of [`crate::pb::raftpb`] cross the boundary, converted field by field. No byte from a disk or a
//!   network reaches the parser of the raft crate: bodies of configuration changes are decoded and encoded anew here.
//! - A vote or an acknowledgement leaves after the batch it promises is durable ([`Input::Synced`]), and after that
//!   input alone: the driver never sends one by itself.
//! - Every entry that is not applied is in memory, so that nothing here ever waits for a file.
//! - What a peer may send is checked at the door. A message that could break an invariant of the raft crate is
//!   refused with a reason ([`Effect::Refused`]) instead of stopping the member.

mod convert;
mod door;
mod effect;
mod held;
mod input;
mod log;
mod member;
mod options;
mod patience;
mod reads;
mod recovery;
mod terms;
mod trace;

#[cfg(test)]
mod tests;

pub use effect::{DropReason, Effect, FetchRequest, LogBatch, RefuseReason, Role, Standing};
pub use input::{Change, Fetched, Input, Proposal};
pub use member::{Member, PeerProgress};
pub use options::{
    ELECTION_TICKS_DEFAULT, HEARTBEAT_TICKS_DEFAULT, KEPT_BYTES_MAX_DEFAULT, Options, Recovered, RecoveryError,
    UNAPPLIED_BYTES_MAX_DEFAULT,
};
