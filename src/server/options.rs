//! How a member behaves, in the server's own words; the daemon fills it from the configuration.

use std::{path::PathBuf, time::Duration};

use crate::{auth::TokenKind, lease::ttl_min_seconds, membership::Version, tls::Dialler};

use super::{auto_compact::Policy, snapshots::Schedule};

/// Entries that may be committed but not applied before proposals are refused (etcd's limit).
pub const APPLY_GAP_MAX: u64 = 5_000;

/// How a member behaves.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "one switch per option, named as the option is")]
pub struct Options {
    /// `name`, published to the cluster.
    pub name: String,
    /// `advertise-client-urls`, published to the cluster.
    pub client_urls: Vec<String>,
    /// `initial-advertise-peer-urls`: where its peers are told to reach it.
    pub peer_urls: Vec<String>,
    /// The full version this member reports, like `3.7.1`.
    pub version: Version,
    /// `initial-election-tick-advance`.
    pub advance_first_election: bool,
    /// `pre-vote`.
    pub pre_vote: bool,
    /// Bytes of entries after which the state is made durable and the log compacted, however few they are.
    pub snapshot_bytes: usize,
    /// `max-snapshots`: `.snap` files kept; `None` keeps all.
    pub snapshots_max: Option<usize>,
    /// `snapshot-dir`: where snapshots go that the member takes by itself.
    pub snapshot_dir: PathBuf,
    /// `watch-progress-notify-interval`.
    pub progress_interval: Duration,
    /// `max-learners`.
    pub learners_max: usize,
    /// `strict-reconfig-check`: refuse changes of membership that would endanger the quorum.
    pub strict_reconfig: bool,
    /// `downgrade-check-time`: how often a leader looks whether a downgrade is complete.
    pub downgrade_check: Duration,
    /// Feature gate `LeaseCheckpoint`.
    pub lease_checkpoints: bool,
    /// `auth-token` and `auth-token-ttl`.
    pub tokens: TokenKind,
    /// `unsafe-no-fsync`.
    pub unsafe_no_fsync: bool,
    /// Bytes of blocks of the state kept in memory.
    pub cache_bytes: u64,
    /// Files of the state that are kept open.
    pub files_max: usize,
    /// Dials peer URLs that want TLS.
    pub dialler: Dialler,
    /// What may change while it runs, as it is at the start.
    pub tunables: Tunables,
}

/// What a running member takes new values of ([`super::Handle::tune`]). Everybody reads them where they are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunables {
    /// `heartbeat-interval`: one raft tick.
    pub tick: Duration,
    /// `election-timeout`.
    pub election: Duration,
    /// How long a proposal or a read index may take: 5 s and two election timeouts.
    pub request_timeout: Duration,
    /// `max-request-bytes`: the longest encoded proposal.
    pub request_bytes_max: usize,
    /// `quota-backend-bytes`; `None` switches it off.
    pub quota_bytes: Option<u64>,
    /// `nospace-disarm`: whether the member lifts its own NOSPACE alarm once it is back under its quota.
    pub lifts_no_space: bool,
    /// `snapshot-count`: entries after which the state is made durable and the log compacted.
    pub snapshot_entries: u64,
    /// `snapshot-catchup-entries`: entries kept behind a snapshot.
    pub catchup_entries: u64,
    /// `compaction-batch-limit`: rows looked at in one step.
    pub compaction_batch_max: usize,
    /// `compaction-sleep-interval`: pause between two steps.
    pub compaction_pause: Duration,
    /// `auto-compaction-mode` and `auto-compaction-retention`.
    pub auto_compaction: Option<Policy>,
    /// `snapshot-schedule` and what belongs to it: snapshots that the member takes by itself.
    pub snapshots: Option<Schedule>,
    /// `warning-apply-duration`.
    pub warn_apply: Duration,
    /// `corrupt-check-time`: how often a leader compares the key spaces of all members; `None` for never.
    pub corrupt_check: Option<Duration>,
    /// `compact-hash-check-time`: how often a leader compares hashes of compactions; `None` without the feature gate
    /// `CompactHashCheck`.
    pub compact_hash_check: Option<Duration>,
}

impl Tunables {
    /// Ticks in one election timeout, rounded down.
    pub fn election_ticks(&self) -> u32 {
        let ticks = self.election.as_millis() / self.tick.as_millis().max(1);
        u32::try_from(ticks).unwrap_or(u32::MAX)
    }

    /// Shortest time to live of a lease, in seconds.
    pub fn lease_ttl_min(&self) -> i64 {
        ttl_min_seconds(u64::try_from(self.election.as_millis()).unwrap_or(u64::MAX))
    }
}
