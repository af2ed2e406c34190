//! What everybody has seen of the cluster, and what must therefore be true of every member from now on.

use std::collections::{BTreeMap, BTreeSet};

use quorate::apply::{Applied, Effect, Published};
use quorate::lease::LeaseRow;
use quorate::mvcc::HashKv;
use quorate::pb::raftpb::{ConfState, Entry, EntryType, Message, MessageType};
use quorate::raft::LogBatch;
use quorate::storage::Read;
use quorate::types::{LogIndex, RequestId};

use crate::simulated::Wrong;
use crate::simulated::model::{Change, Expected, Model, render};

/// Whole states are remembered, and compared, at every so many entries.
const STATE_EVERY: u64 = 4;

/// Everything that was seen. It survives every crash.
pub(crate) struct Oracle {
    pub(crate) model: Model,
    /// Every applied entry, from the first on.
    seen: Vec<Seen>,
    founders: u64,
    states: BTreeMap<u64, String>,
    /// What happened at each revision.
    pub(crate) history: BTreeMap<i64, Vec<Change>>,
    hashes: BTreeMap<(i64, i64), u32>,
    /// Voters and learners behind each change of the configuration.
    configurations: BTreeMap<u64, (BTreeSet<u64>, BTreeSet<u64>)>,
    digests: BTreeMap<u64, u64>,
    /// Who led which term.
    leaders: BTreeMap<u64, u64>,
    /// Who was given a vote by whom in which term.
    votes: BTreeMap<(u64, u64), u64>,
    /// Of every entry ever written, by index and term: its checksum, and the term of the entry before it.
    written: BTreeMap<(u64, u64), (u32, u64)>,
    applied_requests: BTreeSet<RequestId>,
}

struct Seen {
    entry: Entry,
    expected: Expected,
    /// What follows from it on every member alike.
    effects: Vec<Effect>,
}

impl Oracle {
    pub(crate) fn new(founders: BTreeSet<u64>) -> Self {
        let (count, model) = (founders.len() as u64, Model::founded_by(founders));
        Self {
            model,
            founders: count,
            seen: Vec::new(),
            states: BTreeMap::new(),
            history: BTreeMap::new(),
            hashes: BTreeMap::new(),
            configurations: BTreeMap::new(),
            digests: BTreeMap::new(),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            written: BTreeMap::new(),
            applied_requests: BTreeSet::new(),
        }
    }

    /// The last entry that any member has applied.
    pub(crate) fn last_seen(&self) -> u64 {
        self.seen.len() as u64
    }

    /// Raft paper, 5.2: at most one leader in a term.
    ///
    /// Raft paper, 5.4: a leader has every entry that was committed in an earlier term. `log` is its log, by index.
    pub(crate) fn leads(&mut self, id: u64, term: u64, log: &Log) -> Result<(), Wrong> {
        let other = *self.leaders.entry(term).or_insert(id);
        if other != id {
            return Err(format!("election safety: {other:x} and {id:x} lead term {term}"));
        }
        let committed = self.seen.iter().rev().find(|seen| seen.entry.term < term);
        if let Some(Seen { entry, .. }) = committed
            && entry.index >= log.first()
            && log.term(entry.index) != Some(entry.term)
        {
            let found = log.term(entry.index);
            return Err(format!(
                "leader completeness: {id:x} leads term {term}, entry {} of term {} was applied, and its log has {found:?}",
                entry.index, entry.term
            ));
        }
        Ok(())
    }

    /// A message leaves a member: it may hold the one vote that this member has in a term.
    pub(crate) fn sent(&mut self, message: &Message) -> Result<(), Wrong> {
        let grants = message.r#type == i32::from(MessageType::MsgVoteResp) && !message.reject;
        let asks = message.r#type == i32::from(MessageType::MsgVote);
        if !grants && !asks {
            return Ok(());
        }
        let candidate = if asks { message.from } else { message.to };
        let before = *self.votes.entry((message.from, message.term)).or_insert(candidate);
        if before == candidate {
            return Ok(());
        }
        Err(format!("{:x} votes for {before:x} and for {candidate:x} in term {}", message.from, message.term))
    }

    /// Raft paper, 5.3: two logs with an entry of the same index and term are the same up to there.
    pub(crate) fn writes(&mut self, id: u64, log: &Log, entries: &[Entry]) -> Result<(), Wrong> {
        let mut before = entries.first().and_then(|first| log.term(first.index.saturating_sub(1)));
        for entry in entries {
            let sum = crc32c::crc32c(&entry.data);
            if let Some(before) = before {
                let known = *self.written.entry((entry.index, entry.term)).or_insert((sum, before));
                if known != (sum, before) {
                    let (index, term) = (entry.index, entry.term);
                    return Err(format!(
                        "log matching: entry {index} of term {term} at {id:x} is {:?}, elsewhere {known:?}",
                        (sum, before)
                    ));
                }
            }
            before = Some(entry.term);
        }
        Ok(())
    }

    /// An entry is applied by a member.
    pub(crate) fn applied(&mut self, id: u64, entry: &Entry, applied: &Applied) -> Result<(), Wrong> {
        if entry.index == self.last_seen() + 1 {
            self.applied_first(entry, applied)?;
        }
        let Some(seen) = position(entry.index).and_then(|position| self.seen.get(position)) else {
            return Err(format!("{id:x} applies entry {} after {}", entry.index, self.last_seen()));
        };
        if *entry != seen.entry {
            return Err(format!("state machine safety: {id:x} applies {entry:?}, another applied {:?}", seen.entry));
        }
        seen.expected.check(applied).map_err(|wrong| format!("{id:x}, {wrong}"))?;
        let effects = shared(&applied.effects);
        if effects != seen.effects {
            return Err(format!("{id:x}: entry {} leads to {effects:?}, elsewhere to {:?}", entry.index, seen.effects));
        }
        Ok(())
    }

    fn applied_first(&mut self, entry: &Entry, applied: &Applied) -> Result<(), Wrong> {
        let expected = self.model.apply(entry)?;
        if let Some(request) = expected.request
            && !self.applied_requests.insert(request)
        {
            return Err(format!("request {request} happens a second time at entry {}", entry.index));
        }
        if !expected.changes.is_empty() {
            self.history.insert(self.model.revision, expected.changes.clone());
        }
        if entry.r#type == i32::from(EntryType::EntryConfChange) && entry.index > self.founders {
            self.configurations.insert(entry.index, self.model.configuration());
        }
        // One who joins learns of the founders one by one.
        if entry.index >= self.founders && entry.index.is_multiple_of(STATE_EVERY) {
            self.states.insert(entry.index, self.model.render());
        }
        self.seen.push(Seen { entry: entry.clone(), expected, effects: shared(&applied.effects) });
        Ok(())
    }

    /// Raft's configuration behind a change is that of the membership there.
    pub(crate) fn configured(&self, id: u64, index: LogIndex, found: &ConfState) -> Result<(), Wrong> {
        let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<_>>();
        let found = (set(&found.voters), set(&found.learners));
        match self.configurations.get(&index.0) {
            Some(known) if *known != found => {
                Err(format!("{id:x} is configured at {index} with {found:x?}, and the membership is {known:x?}"))
            }
            _ => Ok(()),
        }
    }

    /// The state behind a group of entries: equal indexes have equal states.
    pub(crate) fn published(&mut self, id: u64, state: &Published<impl Read + Clone>) -> Result<(), Wrong> {
        let (index, digest) = (state.applied.0, state.view.digest());
        let known = *self.digests.entry(index).or_insert(digest);
        if known != digest {
            return Err(format!("{id:x}: the digest at entry {index} is {digest:x}, elsewhere {known:x}"));
        }
        let Some(seen) = position(index).and_then(|position| self.seen.get(position)) else { return Ok(()) };
        if state.term.0 != seen.entry.term || state.view.revision() != seen.expected.revision {
            let (term, revision) = (state.term, state.view.revision());
            let (there, then) = (seen.entry.term, seen.expected.revision);
            return Err(format!(
                "{id:x} is at entry {index} of term {term} and revision {revision}, not {there}, {then}"
            ));
        }
        Ok(())
    }

    /// Whether the whole state at this index is remembered.
    pub(crate) fn knows_state_at(&self, index: LogIndex) -> bool {
        self.states.contains_key(&index.0) || index.0 == self.last_seen()
    }

    /// The whole state, if it is remembered what it has to be.
    pub(crate) fn check_state(
        &self,
        id: u64,
        state: &Published<impl Read + Clone>,
        leases: &[LeaseRow],
    ) -> Result<(), Wrong> {
        let index = state.applied.0;
        let last = (index >= self.founders && index == self.last_seen()).then(|| self.model.render());
        let Some(expected) = last.or_else(|| self.states.get(&index).cloned()) else { return Ok(()) };
        let found = render(&state.view, leases, &state.cluster)?;
        if found == expected {
            Ok(())
        } else {
            Err(format!("{id:x}: the state at {index} is\n{found}and was\n{expected}"))
        }
    }

    /// The hash of the history, as operators compare it.
    pub(crate) fn hashed(&mut self, id: u64, hash: HashKv) -> Result<(), Wrong> {
        let key = (hash.revision, hash.compact_revision);
        let before = *self.hashes.entry(key).or_insert(hash.hash);
        if before == hash.hash {
            return Ok(());
        }
        Err(format!(
            "{id:x}: the hash at revision {} (compacted {}) is {:x}, elsewhere {before:x}",
            key.0, key.1, hash.hash
        ))
    }
}

/// What follows from an entry on every member alike.
fn shared(effects: &[Effect]) -> Vec<Effect> {
    effects.iter().filter(|effect| !matches!(effect, Effect::RemovedSelf(_) | Effect::QuotaExceeded)).cloned().collect()
}

fn position(index: u64) -> Option<usize> {
    usize::try_from(index).ok()?.checked_sub(1)
}

/// Which terms the entries of a log have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    terms: BTreeMap<u64, u64>,
}

impl Log {
    pub(crate) fn from(start: (u64, u64), entries: &[Entry]) -> Self {
        let mut log = Self { terms: BTreeMap::from([start]) };
        log.append(entries);
        log
    }

    /// One round of the protocol.
    pub(crate) fn take(&mut self, batch: &LogBatch) {
        if let Some(metadata) = batch.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref()) {
            self.terms = BTreeMap::from([(metadata.index, metadata.term)]);
        }
        self.append(&batch.entries);
    }

    fn append(&mut self, entries: &[Entry]) {
        if let Some(first) = entries.first() {
            self.terms.split_off(&first.index);
        }
        self.terms.extend(entries.iter().map(|entry| (entry.index, entry.term)));
    }

    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        self.terms.get(&index).copied()
    }

    pub(crate) fn first(&self) -> u64 {
        self.terms.keys().next().copied().unwrap_or(0)
    }

    pub(crate) fn last(&self) -> u64 {
        self.terms.keys().next_back().copied().unwrap_or(0)
    }
}
