//! Messages, snapshots and questions between members: etcd's rafthttp, spoken to etcd and among ourselves.
//!
//! [`Transport`] carries raft messages to and from the other members: two streams that each member dials at each other
//! one (appends on one, everything else on the other), single requests where no stream is up, and a request of its own
//! for each snapshot. [`ask`] puts plain questions to a peer URL, for joining and forwarding. The member it all works
//! for is behind [`Local`].
//!
//! Left to others: what a message means (`raft`), what a snapshot contains (`server`), accepting connections and routing
//! `/raft*` to [`Transport::serve`] (`api`).
//!
//! Invariants:
//! - [`Transport::send`] never waits; every queue is bounded in messages and bytes, and what finds no room is dropped
//!   and reported as unreachable;
//! - heartbeats, votes and reads wait behind no entries and no snapshot;
//! - 403 and 410 are answered only to members removed from the applied state;
//! - no length or count that a peer names is believed before it is compared with a limit, and nothing is allocated for
//!   bytes that have not arrived.

pub mod ask;
mod capabilities;
mod carrier;
mod codec;
mod connect;
mod deliver;
mod headers;
mod inbound;
mod incoming;
mod local;
mod outbox;
mod outgoing;
mod pace;
mod patience;
mod peer;
mod pipeline;
mod probe;
mod processes;
mod reports;
mod response;
mod serve;
mod snapshot_body;
mod snapshot_send;
#[cfg(test)]
mod tests;

pub use capabilities::Capabilities;
pub use carrier::{SendError, Transport, TransportOptions};
pub use local::{Busy, Local, SnapshotRefusal};
pub use response::ResponseBody;
pub use snapshot_body::{SnapshotBody, SnapshotForm};
