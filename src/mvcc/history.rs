//! Past changes, for watchers that catch up.

use crate::pb::mvccpb::Event;

/// How much one call may return. Revisions are never split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Most distinct revisions.
    pub revisions_max: usize,
    /// No further revision once the events hold that many bytes of keys and values.
    pub bytes_max: usize,
    /// Most revision rows looked at, matching or not, so that a call stays short.
    pub rows_max: usize,
    /// Whether to fill `prev_kv`.
    pub prev_kv: bool,
}

/// All matching changes of one revision, in sub-revision order.
#[derive(Clone, Debug, PartialEq)]
pub struct RevisionEvents {
    /// The revision.
    pub revision: i64,
    /// Its events inside the asked range.
    pub events: Vec<Event>,
}

/// A piece of the past.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// In ascending order of revision; revisions without a match are left out.
    pub revisions: Vec<RevisionEvents>,
    /// The first revision not looked at: where the next call begins. Above the view's revision when all was seen.
    pub next: i64,
}
