//! What everybody outside of the member has seen, and what must therefore be true from now on.

use std::collections::{BTreeMap, BTreeSet};

use quorate::apply::{Applied, Published};
use quorate::lease::LeaseRow;
use quorate::membership::MemberChange;
use quorate::mvcc::{HashKv, HistoryLimits, View};
use quorate::pb::raftpb::{Entry, EntryType};
use quorate::server::Identity;
use quorate::storage::Read;
use quorate::types::{KeyRange, LogIndex, RequestId, Term};

use crate::request::{Encoded, Request};
use crate::simulated::Wrong;
use crate::simulated::model::{Change, Model, changes_of, render};

/// The memory of clients and operators. It survives every crash.
pub(crate) struct Oracle {
    issued: BTreeMap<RequestId, Issued>,
    model: Model,
    /// Every applied entry, from the first on. Somebody may have read what it did.
    seen: Vec<Seen>,
    /// What happened at each revision.
    history: BTreeMap<i64, Vec<Change>>,
    hashes: BTreeMap<(i64, i64), HashKv>,
    identity: Identity,
    /// A term that was durable.
    term: Term,
    /// Up to here the state was made durable.
    persisted: LogIndex,
    pub(crate) acknowledged: u64,
}

struct Issued {
    request: Request,
    encoded: Encoded,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// No answer yet.
    Unknown,
    /// The member has said that it will never happen.
    Dropped,
    /// It has happened at this index.
    Applied(u64),
}

/// One applied entry.
struct Seen {
    entry: Entry,
    /// Answer, changes and effects, as text.
    outcome: String,
    /// The state behind it.
    state: String,
}

impl Oracle {
    /// A cluster was founded.
    pub(crate) fn new(identity: Identity) -> Self {
        Self {
            issued: BTreeMap::new(),
            model: founded_by(identity),
            seen: Vec::new(),
            history: BTreeMap::new(),
            hashes: BTreeMap::new(),
            identity,
            term: Term(0),
            persisted: LogIndex(0),
            acknowledged: 0,
        }
    }

    /// Where the store stands, as clients know.
    pub(crate) fn revision(&self) -> i64 {
        self.model.revision
    }

    /// The last applied entry anybody can have seen.
    pub(crate) fn last_seen(&self) -> LogIndex {
        LogIndex(self.seen.len() as u64)
    }

    /// A client asks.
    pub(crate) fn issue(&mut self, id: RequestId, request: Request) -> Encoded {
        let encoded = request.encode(id);
        self.issued.insert(id, Issued { request, encoded: encoded.clone(), fate: Fate::Unknown });
        encoded
    }

    /// The member refuses to append.
    pub(crate) fn dropped(&mut self, ids: &[RequestId]) -> Result<(), Wrong> {
        for id in ids {
            let issued = self.issued.get_mut(id).ok_or_else(|| format!("{id} was dropped, and nobody issued it"))?;
            if issued.fate != Fate::Unknown {
                return Err(format!("{id} was dropped after it was {:?}", issued.fate));
            }
            issued.fate = Fate::Dropped;
        }
        Ok(())
    }

    /// A batch with this term is durable.
    pub(crate) fn term_durable(&mut self, term: Term) {
        self.term = self.term.max(term);
    }

    /// The state is durable up to here.
    pub(crate) fn state_durable(&mut self, index: LogIndex) {
        self.persisted = self.persisted.max(index);
    }

    /// An entry is applied, and its client hears what came of it.
    pub(crate) fn applied(&mut self, entry: &Entry, applied: &Applied) -> Result<(), Wrong> {
        let outcome = format!("{:?} {:?} {:?}", applied.outcome, applied.changes, applied.effects);
        if let Some(before) = position(entry.index).and_then(|position| self.seen.get(position)) {
            return same(entry, &outcome, before);
        }
        if entry.index != self.last_seen().0 + 1 {
            return Err(format!("entry {} is applied after {}", entry.index, self.last_seen()));
        }
        self.asked_for(entry, applied.request)?;
        let expected = self.model.apply(entry)?;
        expected.check(applied)?;
        if !expected.changes.is_empty() {
            self.history.insert(expected.revision, expected.changes);
        }
        self.acknowledged += u64::from(applied.request.is_some());
        self.seen.push(Seen { entry: entry.clone(), outcome, state: self.model.render() });
        Ok(())
    }

    /// Whatever happens was asked for, once.
    fn asked_for(&mut self, entry: &Entry, request: Option<RequestId>) -> Result<(), Wrong> {
        let Some(id) = request else { return self.without_client(entry) };
        let issued =
            self.issued.get_mut(&id).ok_or_else(|| format!("nobody has issued {id} of entry {}", entry.index))?;
        if issued.fate != Fate::Unknown {
            return Err(format!("{id} is applied at {}, and was {:?}", entry.index, issued.fate));
        }
        if issued.encoded.data() != entry.data {
            return Err(format!("entry {} is not what {id} asked for: {:?}", entry.index, issued.request));
        }
        issued.fate = Fate::Applied(entry.index);
        Ok(())
    }

    /// The empty entry of a new leader, or the founding entry.
    fn without_client(&self, entry: &Entry) -> Result<(), Wrong> {
        if entry.r#type == i32::from(EntryType::EntryConfChange) {
            let (id, change) = MemberChange::decode(entry.data.clone()).map_err(|error| error.to_string())?;
            let founding = entry.index == 1 && id == RequestId(0) && change.id() == self.identity.member;
            return if founding {
                Ok(())
            } else {
                Err(format!("nobody has asked for {change:?} of entry {}", entry.index))
            };
        }
        if entry.data.is_empty() {
            Ok(())
        } else {
            Err(format!("entry {} is of nobody: {:?}", entry.index, entry.data))
        }
    }

    /// Remembers what operators saw of the hash of the whole history.
    pub(crate) fn hashed(&mut self, hash: HashKv) -> Result<(), Wrong> {
        let key = (hash.revision, hash.compact_revision);
        let before = self.hashes.entry(key).or_insert(hash);
        if before.hash == hash.hash {
            return Ok(());
        }
        Err(format!("the hash at revision {} (compacted {}) was {:x}, is {:x}", key.0, key.1, before.hash, hash.hash))
    }

    /// What a start has found, before anything is applied again.
    pub(crate) fn recovered(&mut self, found: &Found<'_, impl Read + Clone>) -> Result<(), Wrong> {
        let Found { identity, term, last, entries, state, leases } = found;
        if *identity != self.identity {
            return Err(format!("the member was {:?}, and is {identity:?}", self.identity));
        }
        if *last < self.last_seen() {
            return Err(format!("entry {} was seen applied, and the log ends at {last}", self.last_seen()));
        }
        if *term < self.term {
            return Err(format!("the member was in term {}, and is in {term}", self.term));
        }
        if state.applied < self.persisted {
            return Err(format!("the state was durable at {}, and is at {}", self.persisted, state.applied));
        }
        for entry in *entries {
            let seen = position(entry.index).and_then(|position| self.seen.get(position));
            if seen.is_some_and(|seen| seen.entry != *entry) {
                return Err(format!("entry {} was seen applied, and is another now", entry.index));
            }
        }
        self.check_state(state, leases)
    }

    /// The state at its applied index: it must be exactly what it was when it was there before.
    pub(crate) fn check_state(
        &mut self,
        state: &Published<impl Read + Clone>,
        leases: &[LeaseRow],
    ) -> Result<(), Wrong> {
        let index = state.applied;
        let expected = match position(index.0) {
            None => founded_by(self.identity).render(),
            Some(position) => {
                let seen = self.seen.get(position);
                seen.ok_or_else(|| format!("the state is at {index}, which nobody has seen"))?.state.clone()
            }
        };
        let found = render(&state.view, leases, &state.cluster)?;
        if found != expected {
            return Err(format!("the state at {index} is\n{found}and was\n{expected}"));
        }
        self.check_history(&state.view)?;
        self.check_hashes(&state.view)
    }

    /// Every revision that is not compacted holds what it held before, wholly.
    fn check_history(&self, view: &View<impl Read + Clone>) -> Result<(), Wrong> {
        let everything = KeyRange::new(b"\0".as_slice().into(), &b"\0".as_slice().into());
        let limits =
            HistoryLimits { revisions_max: usize::MAX, bytes_max: usize::MAX, rows_max: usize::MAX, prev_kv: false };
        let from = view.compact_revision().max(0) + 1;
        let past = view.history(&everything, from, limits).map_err(|error| error.to_string())?;
        let mut found = past.revisions.iter().map(|events| (events.revision, changes_of(&events.events)));
        for (revision, changes) in self.history.range(from..).take_while(|(revision, _)| **revision <= view.revision())
        {
            let here = found.next();
            if here.as_ref() != Some(&(*revision, changes.clone())) {
                return Err(format!("revision {revision} was {changes:?}, and the history goes on with {here:?}"));
            }
        }
        found.next().map_or(Ok(()), |more| Err(format!("nobody has seen {more:?}")))
    }

    /// Hashes that were taken relative to the same compaction stay the same, however many rows it has removed.
    fn check_hashes(&self, view: &View<impl Read + Clone>) -> Result<(), Wrong> {
        let (current, compacted) = (view.revision(), view.compact_revision());
        for hash in self.hashes.values().filter(|hash| hash.compact_revision == compacted && hash.revision <= current) {
            let now = view.hash_kv(hash.revision).map_err(|error| error.to_string())?;
            if now.hash != hash.hash {
                return Err(format!("the hash at {} was {:x}, and is {:x}", hash.revision, hash.hash, now.hash));
            }
        }
        Ok(())
    }

    /// Whether everything that was promised is applied at the end.
    pub(crate) fn check_end(&self, applied: LogIndex) -> Result<(), Wrong> {
        let lost: BTreeSet<_> = self
            .issued
            .iter()
            .filter(|(_, issued)| matches!(issued.fate, Fate::Applied(index) if index > applied.0))
            .map(|(id, _)| *id)
            .collect();
        if lost.is_empty() { Ok(()) } else { Err(format!("never applied again: {lost:?}")) }
    }
}

/// What a start has found.
pub(crate) struct Found<'a, S> {
    pub(crate) identity: Identity,
    pub(crate) term: Term,
    pub(crate) last: LogIndex,
    /// The log behind the state.
    pub(crate) entries: &'a [Entry],
    pub(crate) state: &'a Published<S>,
    pub(crate) leases: &'a [LeaseRow],
}

fn founded_by(identity: Identity) -> Model {
    Model::founded_by(BTreeSet::from([identity.member.0]))
}

fn position(index: u64) -> Option<usize> {
    usize::try_from(index).ok()?.checked_sub(1)
}

fn same(entry: &Entry, outcome: &str, before: &Seen) -> Result<(), Wrong> {
    if *entry != before.entry {
        return Err(format!("entry {} was {:?}, and is {entry:?}", entry.index, before.entry));
    }
    if outcome != before.outcome {
        return Err(format!("entry {} led to {}, and now to {outcome}", entry.index, before.outcome));
    }
    Ok(())
}
