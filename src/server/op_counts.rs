//! What applied entries add to the counters of the key space, as etcd counts: operations, not keys; and a transaction
//! only if it did more than one thing. And how long they took, by what was asked.

use std::time::Duration;

use crate::{
    apply::{Applied, Response},
    metrics,
    mvcc::Changes,
    pb::{
        etcdserverpb::{TxnResponse, response_op},
        mvccpb::event::EventType,
    },
    types::Rejection,
};

/// Entries of one group that stand together and have one name and one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    operation: &'static str,
    success: bool,
    entries: u32,
}

/// The requests of one group of entries. A compaction that comes too late is none that failed (etcd's rule).
pub(super) fn runs(applied: &[Applied]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for entry in applied {
        let Some(operation) = entry.operation else { continue };
        let success = matches!(entry.outcome, Ok(_) | Err(Rejection::Compacted));
        match runs.last_mut() {
            Some(last) if (last.operation, last.success) == (operation, success) => last.entries += 1,
            _ => runs.push(Run { operation, success, entries: 1 }),
        }
    }
    runs
}

/// Observes how long each request of a group took: its share of the time of the group.
pub(super) fn observe(runs: &[Run], took: Duration) {
    let all: u32 = runs.iter().map(|run| run.entries).sum();
    for Run { operation, success, entries } in runs {
        let success = if *success { "true" } else { "false" };
        let instrument = metrics::APPLY_DURATION.with([operation, success, "v3"]);
        instrument.observe_shares(took.mul_f64(f64::from(*entries) / f64::from(all)), *entries);
    }
}

/// Operations of one entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ops {
    ranges: u64,
    puts: u64,
    deletes: u64,
}

/// Counts one applied entry.
pub(super) fn count(applied: &Applied) {
    let Ok(response) = &applied.outcome else { return };
    let mut ops = Ops::default();
    match response {
        Response::Range(_) => ops.ranges += 1,
        Response::Put(_) => ops.puts += 1,
        Response::DeleteRange(_) => ops.deletes += 1,
        Response::Txn(txn) => ops.add(txn),
        _ => return,
    }
    metrics::MVCC_RANGE.add(ops.ranges);
    metrics::MVCC_PUT.add(ops.puts);
    metrics::MVCC_DELETE.add(ops.deletes);
    if ops.ranges + ops.puts + ops.deletes > 1 {
        metrics::MVCC_TXN.inc();
    }
    if let Some(changes) = &applied.changes {
        metrics::MVCC_PUT_BYTES.add(put_bytes(changes));
    }
}

impl Ops {
    fn add(&mut self, txn: &TxnResponse) {
        for op in &txn.responses {
            match &op.response {
                Some(response_op::Response::ResponseRange(_)) => self.ranges += 1,
                Some(response_op::Response::ResponsePut(_)) => self.puts += 1,
                Some(response_op::Response::ResponseDeleteRange(_)) => self.deletes += 1,
                Some(response_op::Response::ResponseTxn(nested)) => self.add(nested),
                None => {}
            }
        }
    }
}

fn put_bytes(changes: &Changes) -> i64 {
    let puts = changes.events.iter().filter(|event| event.r#type() == EventType::Put);
    let bytes: usize = puts.filter_map(|event| event.kv.as_ref()).map(|kv| kv.key.len() + kv.value.len()).sum();
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::Digest;
    use crate::pb::etcdserverpb::{DeleteRangeResponse, PutResponse, RangeResponse, ResponseOp};
    use crate::types::{LogIndex, Term};

    #[test]
    fn requests_of_one_name_and_end_are_counted_together() {
        let entry = |operation, outcome| Applied {
            index: LogIndex(1),
            term: Term(1),
            request: None,
            operation,
            outcome,
            changes: None,
            effects: Vec::new(),
            digest: Digest::default(),
        };
        let done = || Ok(Response::Done);
        let applied = [
            entry(Some("Put"), done()),
            entry(None, Ok(Response::NewLeader)),
            entry(Some("Put"), done()),
            entry(Some("Put"), Err(Rejection::NoSpace)),
            entry(Some("Compaction"), Err(Rejection::Compacted)),
        ];
        let run = |operation, success, entries| Run { operation, success, entries };
        let runs = runs(&applied);
        assert_eq!(runs, [run("Put", true, 2), run("Put", false, 1), run("Compaction", true, 1)]);
        let seen = metrics::APPLY_DURATION.with(["Compaction", "true", "v3"]).count();
        observe(&runs, Duration::from_millis(4));
        assert!(metrics::APPLY_DURATION.with(["Compaction", "true", "v3"]).count() > seen);
    }

    #[test]
    fn operations_of_nested_transactions_count() {
        let op = |response| ResponseOp { response: Some(response) };
        let put = || op(response_op::Response::ResponsePut(PutResponse::default()));
        let range = op(response_op::Response::ResponseRange(RangeResponse::default()));
        let delete = op(response_op::Response::ResponseDeleteRange(DeleteRangeResponse::default()));
        let inner = TxnResponse { responses: vec![put(), range], ..Default::default() };
        let nested = op(response_op::Response::ResponseTxn(inner));
        let mut ops = Ops::default();
        ops.add(&TxnResponse { responses: vec![put(), nested, delete], ..Default::default() });
        assert_eq!(ops, Ops { ranges: 1, puts: 2, deletes: 1 });
    }
}
