//! One response for one stream, not yet framed.

use std::borrow::Cow;

use bytes::Bytes;

use super::StreamId;

/// The `watch_id` of responses that belong to no watcher.
pub const NO_WATCHER: i64 = -1;

/// One response for one stream, to be framed by [`Delivery::frames`].
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// Where it goes.
    pub stream: StreamId,
    /// The watcher, or [`NO_WATCHER`].
    pub watch_id: i64,
    /// `header.revision`.
    pub revision: i64,
    /// What it says.
    pub body: Body,
}

/// What a response says.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// The watcher exists from now on.
    Created,
    /// The watcher was not created, for this reason.
    Refused(RefusalReason),
    /// The client's cancellation is done.
    Canceled,
    /// The watcher is gone for this reason, which is neither its client's wish nor a compaction.
    Ended(RefusalReason),
    /// The watcher is gone because its next revision is compacted away; its id stays taken until the client cancels.
    Compacted {
        /// Reads from here on would succeed.
        compact_revision: i64,
    },
    /// Everything up to the revision is delivered.
    Progress,
    /// Events.
    Events {
        /// The field `events` of the response, encoded; shared by all watchers that get the same events.
        events: Bytes,
        /// Whether the client accepts the response in fragments.
        fragment: bool,
    },
}

/// `cancel_reason` of a refusal or an end.
pub type RefusalReason = Cow<'static, str>;

impl Delivery {
    /// Bytes of events it carries: what it takes from the room of its stream besides one response.
    pub fn event_bytes(&self) -> usize {
        match &self.body {
            Body::Events { events, .. } => events.len(),
            _ => 0,
        }
    }
}
