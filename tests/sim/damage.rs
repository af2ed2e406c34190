//! What the bugs put in on purpose do.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use quorate::pb::etcdserverpb::{InternalRaftRequest, request_op::Request as Op};
use quorate::pb::raftpb::Entry;
use quorate::raft::{Change, Input, LogBatch};
use quorate::storage::{Engine, MemoryEngine, Read as _, Table, Writes};
use quorate::watch::{Body, Delivery, Past};

use crate::bug::Bug;
use crate::clients::Reply;
use crate::host::{Awaited, Life};
use crate::watchers::{deletions_at, is_busy};
use crate::world::World;

/// The row that says where the state stands, and the bytes of the index at its head.
const POSITION: &[u8] = b"position";
const INDEX_BYTES: usize = 8;
/// Index and term, before the revision; the revision.
const HEAD_BYTES: usize = 16;
const REVISION_BYTES: usize = 8;

impl World {
    /// Before a batch goes to the log.
    pub(crate) fn bug_in_batch(&mut self, life: &mut Life, batch: &mut LogBatch) {
        match self.bug {
            Some(Bug::LosesVotes) => {
                if let Some(state) = &mut batch.hard_state {
                    state.vote = 0;
                }
            }
            Some(Bug::LosesWritesAlone) if life.sole_voter && batch.must_sync => {
                life.process.tell(Input::Synced(batch.number));
            }
            Some(Bug::AnswersBeforeCommit) if life.process.leads() => self.answer_early(life, &batch.entries),
            _ => {}
        }
    }

    fn answer_early(&mut self, life: &mut Life, entries: &[Entry]) {
        use quorate::apply::Response;
        use quorate::pb::etcdserverpb::{PutResponse, ResponseHeader};
        for entry in entries {
            let Ok(request) = InternalRaftRequest::decode(entry.data.clone()) else { continue };
            let id = request.header.map_or(0, |header| header.id);
            let awaited = life.awaited.remove(&quorate::types::RequestId(id)).filter(|_| request.put.is_some());
            if let Some(Awaited::Client(waiter)) = awaited {
                let revision = life.process.applier.published().view.revision() + 1;
                let header = Some(ResponseHeader { revision, ..Default::default() });
                let response = Response::Put(PutResponse { header, prev_kv: None });
                self.reply(waiter, Reply::Applied(Ok(response)));
            }
        }
    }

    /// Before a group is applied.
    pub(crate) fn bug_in_group(&mut self, life: &Life, group: &[Entry], loaded: bool) -> Option<Vec<Entry>> {
        match self.bug {
            Some(Bug::DivergesUnderLoad) if loaded && !life.process.leads() => {
                let mut group = group.to_vec();
                let last = group.iter_mut().rev().find(|entry| entry.r#type == 0)?;
                last.data = Bytes::new();
                Some(group)
            }
            Some(Bug::ReadsCompactedInTxn) => {
                let view = life.process.applier.published().view;
                let compacted = view.compact_revision();
                // Only where the compaction is still at work are the rows there.
                life.process.compaction_due.then(|| group.iter().map(|entry| without_past(entry, compacted)).collect())
            }
            _ => None,
        }
    }

    pub(crate) fn bug_in_change(&mut self, change: Change) -> Change {
        match change {
            Change::AddLearner(id) if self.bug == Some(Bug::CountsLearners) => Change::AddVoter(id),
            change => change,
        }
    }

    /// Before responses go out.
    pub(crate) fn bug_in_deliveries(&mut self, _life: &Life, deliveries: &mut Vec<Delivery>, compacts: bool) {
        let is_events = |delivery: &Delivery| matches!(delivery.body, Body::Events { .. });
        match self.bug {
            Some(Bug::DropsEventAtCompaction) if compacts => deliveries.retain(|delivery| !is_events(delivery)),
            Some(Bug::DuplicatesEvents) if self.random.chance(3) => {
                deliveries.extend(deliveries.iter().find(|delivery| is_events(delivery)).cloned());
            }
            Some(Bug::WatchTravelsInTime) => swap_neighbours(deliveries),
            Some(Bug::LosesEventsOfBusyStream) if is_busy(deliveries) => {
                let last = deliveries.iter().rposition(is_events);
                last.map(|last| deliveries.remove(last));
            }
            _ => {}
        }
    }

    pub(crate) fn bug_in_past(&mut self, past: &mut Past, compact_revision: i64) {
        if self.bug == Some(Bug::LosesDeletionAtCompaction) {
            deletions_at(past, compact_revision);
        }
    }

    /// After a machine has gone down.
    pub(crate) fn damage(&mut self, host: usize, before: &MemoryEngine, power: bool) {
        let engine = self.hosts[host].disk.engine.clone();
        match self.bug {
            Some(Bug::AppliesTwice) => {
                if let Some(row) = position(&engine) {
                    let index = row.get(..INDEX_BYTES).map_or(0, number);
                    if index > 1 {
                        let mut lower = BytesMut::new();
                        lower.put_u64(index - 1);
                        lower.extend_from_slice(&row[INDEX_BYTES..]);
                        set_position(&engine, lower.freeze());
                    }
                }
            }
            Some(Bug::ReusesRevisions) if power => {
                if let (Some(newer), Some(older)) = (position(before), position(&engine)) {
                    let revision = HEAD_BYTES..HEAD_BYTES + REVISION_BYTES;
                    let mut row = newer.to_vec();
                    row[revision.clone()].copy_from_slice(&older[revision]);
                    set_position(&engine, row.into());
                }
            }
            Some(Bug::DivergesOnCompactionCrash) if self.hosts[host].compacting_at_crash => {
                let snapshot = engine.snapshot();
                let row = snapshot.rows(Table::Live).next().and_then(Result::ok);
                if let Some((key, value)) = row {
                    let mut damaged = value.to_vec();
                    if let Some(last) = damaged.last_mut() {
                        *last ^= 1;
                    }
                    put(&engine, Table::Live, &key, damaged.into());
                }
            }
            _ => {}
        }
    }
}

fn swap_neighbours(deliveries: &mut [Delivery]) {
    for place in 1..deliveries.len() {
        let (left, right) = (&deliveries[place - 1], &deliveries[place]);
        let events = matches!((&left.body, &right.body), (Body::Events { .. }, Body::Events { .. }));
        if events && left.stream == right.stream {
            deliveries.swap(place - 1, place);
            return;
        }
    }
}

/// The entry with its reads of compacted revisions left out, its writes carried out all the same.
fn without_past(entry: &Entry, compacted: i64) -> Entry {
    let Ok(mut request) = InternalRaftRequest::decode(entry.data.clone()) else { return entry.clone() };
    let Some(txn) = request.txn.as_mut().filter(|_| entry.r#type == 0) else { return entry.clone() };
    let past = |op: &Option<Op>| matches!(op, Some(Op::RequestRange(r)) if r.revision > 0 && r.revision < compacted);
    txn.success.retain(|op| !past(&op.request));
    Entry { data: request.encode_to_vec().into(), ..entry.clone() }
}

fn position(engine: &MemoryEngine) -> Option<Bytes> {
    engine.snapshot().row(Table::Meta, POSITION).ok().flatten()
}

fn set_position(engine: &MemoryEngine, row: Bytes) {
    put(engine, Table::Meta, POSITION, row);
}

fn put(engine: &MemoryEngine, table: Table, key: &[u8], value: Bytes) {
    let mut writes = Writes::default();
    writes.put(table.key(key), value);
    engine.commit(writes).and_then(|()| engine.persist()).expect("a memory engine takes everything");
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
