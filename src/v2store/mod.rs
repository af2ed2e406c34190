//! The tree of the v2 API: nodes with a time to live, one index for all changes, and the newest of them to be watched.
//!
//! The tree lives in rows of the state (table `V2`), so nothing is loaded at a start and nothing of it is lost by one.
//! [`Tree`] reads it, [`Change`] carries out one request of the log, [`Hub`] knows who waits for which event. Time arrives
//! with the requests: a request says when it was received, and [`Method::Sync`] up to when nodes are to expire. So every
//! member computes the same, times to live in answers included.
//!
//! Left to others: agreeing on requests (`raft`), proposing them and their expiry (`server`), HTTP and JSON (`api`).
//! Member attributes and the cluster version, which etcd keeps in the same tree under `/0`, are `membership`'s here; they
//! count towards the index all the same, so that clients find the numbers they know.
//!
//! Invariants: every successful change takes exactly one index, and every expired node one more; a refusal writes nothing;
//! a parent of a node is a directory; of every node with an expiry there is one row in order of expiry; the rows of the
//! newest events are there, and no more than [`HISTORY_EVENTS`] and [`HISTORY_BYTES_MAX`] allow.

mod change;
mod error;
mod event;
mod history;
mod hub;
mod listing;
mod node;
mod path;
mod request;
mod tree;

pub use change::{Change, EXPIRED_PER_SYNC_MAX, Outcome, Told, note_internal};
pub use error::{Error, ErrorCode, Refused};
pub use event::{Action, Event, Shown};
pub use history::History;
pub use hub::{Full, Hub, Sink, WATCHERS_MAX, Watch, WatcherId};
pub use listing::{Listing, Step};
pub use path::{COMPONENTS_MAX, PATH_BYTES_MAX, Path};
pub use request::{Method, Request};
pub use tree::{Depth, Tree};

/// Events that can still be watched after they happened (etcd's number).
pub const HISTORY_EVENTS: u64 = 1_000;
/// Bytes of their rows, which count for the quota: an event holds up to two values of 10 MiB. The newest is always kept.
pub const HISTORY_BYTES_MAX: usize = 64 << 20;
/// Where the keys of users are; what clients see is what stands behind it.
pub const KEYS_PREFIX: &str = "/1";
/// Where the records of users are, which clients do not see.
pub const USERS_PREFIX: &str = "/2";

/// Nanoseconds since the Unix epoch; zero means never.
pub type Nanos = i64;

#[cfg(test)]
mod tests;
