//! One committed entry after the other becomes rows, an answer, events and effects.
//!
//! [`Applier`] is the single writer of the replicated state. It is a function of the state and the entry: no clock, no
//! chance, no role of the member enters a row (peer-and-disk, §3.9). What depends on this member alone, such as its
//! disk's fill, changes answers and effects only.
//!
//! Left to others: agreeing on entries (`raft`), proposing them, timing leases, telling watchers (`server`), and the
//! contents of the key space (`mvcc`).
//!
//! Invariants:
//! - every call commits one batch, with the position of its last entry in it; grouping entries differently gives the
//!   same rows;
//! - an entry at or below the applied index has no effect and no answer; a gap in the indexes is an error;
//! - a refusal leaves no row but the index;
//! - an entry this version does not fully understand stops the member, before anything of it is written;
//! - after a failure the value refuses everything until the state is opened again.

mod alarms;
mod applier;
mod authorize;
mod digest;
mod entry;
mod error;
pub mod exchange;
mod execute;
pub mod native;
mod quota;
mod state;
#[cfg(test)]
mod tests;
mod v2;

pub use alarms::{AlarmKind, Alarms};
pub use applier::{Applier, ApplyOptions, CompactionProgress, Published};
pub use digest::{DIGEST_FORM, Digest};
pub use entry::{EntryError, check_entry};
pub use error::{ApplyError, OpenError};
pub use quota::{LEASE_COST_BYTES, PUT_OVERHEAD_BYTES, QUOTA_BYTES_DEFAULT, put_cost, quota_cost, txn_cost, v2_cost};
pub use state::{Position, Proof, position};

use std::sync::Arc;

use crate::{
    auth::Token,
    membership::Cluster,
    mvcc::Changes,
    pb::{etcdserverpb as pb, raftpb::ConfChange},
    types::{LeaseId, LogIndex, MemberId, Rejection, RequestId, Term},
    v2store,
};

/// What became of one entry.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Its place in the log.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// Who waits for it, if anybody can.
    pub request: Option<RequestId>,
    /// What etcd calls the request, if it is one.
    pub operation: Option<&'static str>,
    /// The answer, with `header.revision` filled, or the refusal that every member computes alike.
    pub outcome: Result<Response, Rejection>,
    /// What it changed in the key space.
    pub changes: Option<Arc<Changes>>,
    /// What else follows from it, in order.
    pub effects: Vec<Effect>,
    /// What was changed up to and including this entry.
    pub digest: Digest,
}

/// The answer to an entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// The empty entry of a new leader: the member that leads in this term may begin to manage leases.
    NewLeader,
    /// Nothing to say, as for cluster version and attributes.
    Done,
    /// A range that travelled through the log.
    Range(pb::RangeResponse),
    /// A put.
    Put(pb::PutResponse),
    /// A delete.
    DeleteRange(pb::DeleteRangeResponse),
    /// A transaction.
    Txn(pb::TxnResponse),
    /// An accepted compaction; the rows go later.
    Compaction(pb::CompactionResponse),
    /// A grant.
    LeaseGrant(pb::LeaseGrantResponse),
    /// A revocation.
    LeaseRevoke(pb::LeaseRevokeResponse),
    /// Recorded remaining times.
    LeaseCheckpoint(pb::LeaseCheckpointResponse),
    /// Alarms read, raised or cleared.
    Alarm(pb::AlarmResponse),
    /// An accepted configuration change: the cluster as it is behind it.
    Members(Arc<Cluster>),
    /// Whether requests are checked.
    AuthStatus(pb::AuthStatusResponse),
    /// A change of users, roles or permissions.
    AuthChanged,
    /// All users.
    AuthUserList(pb::AuthUserListResponse),
    /// The roles of a user.
    AuthUserGet(pb::AuthUserGetResponse),
    /// All roles.
    AuthRoleList(pb::AuthRoleListResponse),
    /// What a role permits.
    AuthRoleGet(pb::AuthRoleGetResponse),
    /// A user has logged in, and this stands for him from now on.
    Authenticated(Token),
    /// What became of a request of the v2 API, refusals included: they are none of [`Rejection`].
    V2(Arc<v2store::Outcome>),
}

/// What follows from an entry besides rows, answer and events.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// A lease exists from now on.
    LeaseGranted {
        /// The lease.
        id: LeaseId,
        /// Its effective time to live in seconds.
        ttl: i64,
    },
    /// A lease is gone.
    LeaseRevoked(LeaseId),
    /// A later leader starts the countdown from here (zero: from the full time).
    LeaseCheckpointed {
        /// The lease.
        id: LeaseId,
        /// Seconds left.
        remaining: i64,
    },
    /// Present for every configuration-change entry: what raft must be told. `None` means the configuration stays as
    /// it is, because the change was refused or moves URLs only; raft must then be told exactly that.
    ConfChange(Option<ConfChange>),
    /// Members were added, removed, promoted or moved, or published their attributes.
    MembersChanged,
    /// This very member left the cluster and must stop.
    RemovedSelf(MemberId),
    /// The cluster version changed; `lowered` asks for a snapshot, so that an older version finds none of the entries
    /// it does not know.
    ClusterVersionChanged {
        /// Whether it went down.
        lowered: bool,
    },
    /// The downgrade state changed.
    DowngradeChanged,
    /// The set of alarms changed.
    AlarmsChanged,
    /// A compaction was accepted; drive [`Applier::compact_some`] until it is finished.
    CompactionRequested {
        /// Reads below this revision fail from now on.
        revision: i64,
    },
    /// A user has logged in.
    TokenAssigned {
        /// The user.
        user: String,
        /// What stands for him.
        token: Token,
    },
    /// No token stands for this user any more.
    UserForgotten(String),
    /// No token stands for anybody any more.
    TokensForgotten,
    /// This member's disk is over its quota: the member that owns the caller proposes the alarm.
    QuotaExceeded,
}
