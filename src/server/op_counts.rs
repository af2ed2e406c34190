//! What applied entries add to the counters of the key space, as etcd counts: operations, not keys; and a transaction
//! only if it did more than one thing.

use crate::{
    apply::{Applied, Response},
    metrics,
    mvcc::Changes,
    pb::{
        etcdserverpb::{TxnResponse, response_op},
        mvccpb::event::EventType,
    },
};

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
    use crate::pb::etcdserverpb::{DeleteRangeResponse, PutResponse, RangeResponse, ResponseOp};

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
