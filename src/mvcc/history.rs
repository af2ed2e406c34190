//! Past changes, for watchers that catch up.

use super::{
    ReadError,
    rows::{Trace, Version},
    state::State,
};
use crate::{
    pb::mvccpb::{Event, KeyValue, event::EventType},
    storage::{Read, StorageError, Table},
    types::{Rejection, Revision},
};

/// How much one call may return. Revisions are never split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Most distinct revisions.
    pub revisions_max: usize,
    /// No further revision once the events hold that many bytes of keys and values.
    pub bytes_max: usize,
    /// Most changes looked at, matching or not, so that a call stays short.
    pub rows_max: usize,
    /// Whether to fill `prev_kv`.
    pub prev_kv: bool,
}

/// All matching changes of one revision, in sub-revision order.
#[derive(Clone, Debug, PartialEq)]
pub struct RevisionEvents {
    /// The revision.
    pub revision: i64,
    /// Its events of the asked keys.
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

/// Reads the changes of the keys that are `wanted` from the revision `from` on.
pub(super) fn read<R: Read>(
    state: State<'_, R>,
    wanted: &dyn Fn(&[u8]) -> bool,
    from: i64,
    limits: HistoryLimits,
) -> Result<History, ReadError> {
    if from < state.compact_revision {
        return Err(Rejection::Compacted.into());
    }
    let end = state.revision.saturating_add(1);
    let mut reader = Reader { state, limits, bytes: 0, rows: 0, revisions: Vec::new() };
    for change in state.changes(Revision { main: from, sub: 0 }, state.revision) {
        let (revision, trace) = change?;
        if revision.sub == 0 && reader.is_full() {
            return Ok(History { revisions: reader.revisions, next: revision.main });
        }
        reader.rows += 1;
        if wanted(&trace.key) {
            reader.push(revision, trace)?;
        }
    }
    Ok(History { revisions: reader.revisions, next: end.max(from) })
}

struct Reader<'a, R> {
    state: State<'a, R>,
    limits: HistoryLimits,
    bytes: usize,
    rows: usize,
    revisions: Vec<RevisionEvents>,
}

impl<R: Read> Reader<'_, R> {
    fn is_full(&self) -> bool {
        let Self { limits, bytes, rows, revisions, state: _ } = self;
        revisions.len() >= limits.revisions_max || *bytes >= limits.bytes_max || *rows >= limits.rows_max
    }

    fn push(&mut self, revision: Revision, trace: Trace) -> Result<(), StorageError> {
        let prev_kv = self.previous(revision, &trace)?;
        let event = if trace.tombstone {
            let kv = KeyValue { key: trace.key, mod_revision: revision.main, ..KeyValue::default() };
            Event { r#type: EventType::Delete.into(), kv: Some(kv), prev_kv }
        } else {
            let written = self.state.written_at(&trace.key, revision)?.ok_or_else(|| missing(revision))?;
            Event { r#type: EventType::Put.into(), kv: Some(written.key_value(trace.key)), prev_kv }
        };
        let pairs = [&event.kv, &event.prev_kv].into_iter().flatten();
        self.bytes += pairs.map(|pair| pair.key.len() + pair.value.len()).sum::<usize>();
        match self.revisions.last_mut() {
            Some(last) if last.revision == revision.main => last.events.push(event),
            _ => self.revisions.push(RevisionEvents { revision: revision.main, events: vec![event] }),
        }
        Ok(())
    }

    /// The pair before the request, unless it was compacted away.
    fn previous(&self, revision: Revision, trace: &Trace) -> Result<Option<KeyValue>, StorageError> {
        if !self.limits.prev_kv || revision.main <= self.state.compact_revision {
            return Ok(None);
        }
        let Some(superseded) = trace.supersedes else { return Ok(None) };
        let previous = if superseded.main == revision.main {
            // Written and replaced by the same request: what was there before both counts.
            self.state.at(&trace.key, revision.main - 1)?
        } else {
            Some(self.superseded(trace, superseded)?)
        };
        Ok(previous.map(|version| version.key_value(trace.key.clone())))
    }

    fn superseded(&self, trace: &Trace, at: Revision) -> Result<Version, StorageError> {
        self.state.written_at(&trace.key, at)?.ok_or_else(|| missing(at))
    }
}

fn missing(revision: Revision) -> StorageError {
    StorageError::corrupt(Table::Revision, revision.to_string().as_bytes(), "what the change wrote is not there")
}
