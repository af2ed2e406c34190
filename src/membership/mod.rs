//! Who belongs to the cluster: members, removed members, cluster version and downgrade state.
//!
//! [`Cluster`] is the replicated value. [`MemberChange`] is one configuration change: built and encoded by the member
//! that proposes it, decoded and judged by every member that applies it. [`reconfig`] answers, before anything is
//! proposed, whether a change would endanger the quorum. What leaves this module as bytes equals etcd's bytes.
//!
//! Left to others: agreeing on a change (`raft`), writing the rows (`apply`), knowing who is connected (`server`).
//!
//! Invariants:
//! - an identifier is never in `members` and `removed` at once, and never leaves `removed`;
//! - members are iterated in order of their identifiers;
//! - a refused change alters nothing, on no member;
//! - the stored configuration of raft changes only through accepted changes and founding.

mod change;
mod cluster;
mod founding;
mod ids;
pub mod joining;
mod json;
mod member;
pub mod negotiate;
pub mod reconfig;
mod rows;
mod urls;
mod version;

pub use change::{ChangeError, MemberChange};
pub use cluster::{Cluster, Downgrade, LEARNERS_MAX_DEFAULT};
pub use founding::{Founding, FoundingError};
pub use ids::{added_member_id, cluster_id, founding_member_id};
pub use member::{Attributes, Member};
pub use rows::{Bucket, CONFIGURATION_KEY, ClusterRows, DOWNGRADE_KEY, Row, RowError, VERSION_KEY, configuration_row};
pub use urls::check_peer_urls;
pub use version::{Version, VersionError};

use crate::types::Rejection;

/// The text etcd's members use among themselves for a refused change, where it differs from the client's.
///
/// `added` tells apart the two internal texts behind [`Rejection::MemberNotFound`]: an addition is refused because the
/// identifier was removed, everything else because it is unknown.
pub fn internal_text(refusal: Rejection, added: bool) -> Option<&'static str> {
    match (refusal, added) {
        (Rejection::MemberNotFound, true) => Some("membership: ID removed"),
        (Rejection::MemberNotFound, false) => Some("membership: ID not found"),
        (Rejection::MemberExists, _) => Some("membership: ID exists"),
        (Rejection::PeerUrlExists, _) => Some("membership: peerURL exists"),
        (Rejection::NotLearner, _) => Some("membership: can only promote a learner member"),
        (Rejection::TooManyLearners, _) => Some("membership: too many learner members in cluster"),
        _ => None,
    }
}
