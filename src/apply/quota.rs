//! What a request will cost on disk, as etcd estimates it.

use crate::pb::etcdserverpb::{InternalRaftRequest, PutRequest, RequestOp, TxnRequest, request_op::Request};

/// Counted for each put besides key and value.
pub const PUT_OVERHEAD_BYTES: u64 = 256;
/// Counted for each lease.
pub const LEASE_COST_BYTES: u64 = 64;
/// The quota where none is configured: 2 GiB.
pub const QUOTA_BYTES_DEFAULT: u64 = 2 * 1024 * 1024 * 1024;

/// The estimate for one request, nested transactions included; requests of cost 0 pass under any quota and alarm.
pub fn quota_cost(request: &InternalRaftRequest) -> u64 {
    if let Some(put) = &request.put {
        put_cost(put)
    } else if let Some(txn) = &request.txn {
        txn_cost(txn)
    } else if request.lease_grant.is_some() {
        LEASE_COST_BYTES
    } else {
        0
    }
}

/// The estimate for one put.
pub fn put_cost(put: &PutRequest) -> u64 {
    PUT_OVERHEAD_BYTES + (put.key.len() + put.value.len()) as u64
}

/// The estimate for a transaction: the dearer of its branches.
pub fn txn_cost(txn: &TxnRequest) -> u64 {
    let branch = |ops: &[RequestOp]| ops.iter().map(op_cost).sum::<u64>();
    branch(&txn.success).max(branch(&txn.failure))
}

fn op_cost(op: &RequestOp) -> u64 {
    match &op.request {
        Some(Request::RequestPut(put)) => put_cost(put),
        Some(Request::RequestTxn(txn)) => txn_cost(txn),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::etcdserverpb::{LeaseGrantRequest, RangeRequest};

    fn put(bytes: usize) -> RequestOp {
        let put = PutRequest { key: vec![b'k'; bytes].into(), ..PutRequest::default() };
        RequestOp { request: Some(Request::RequestPut(put)) }
    }

    #[test]
    fn transaction_costs_its_dearer_branch_nested_ones_included() {
        let nested = TxnRequest { success: vec![put(4)], ..TxnRequest::default() };
        let nested = RequestOp { request: Some(Request::RequestTxn(nested)) };
        let range = RequestOp { request: Some(Request::RequestRange(RangeRequest::default())) };
        let txn = TxnRequest { success: vec![put(1), nested], failure: vec![put(2), range], ..TxnRequest::default() };
        assert_eq!(txn_cost(&txn), 2 * 256 + 5);
    }

    #[test]
    fn only_puts_transactions_and_grants_cost() {
        let grant = InternalRaftRequest { lease_grant: Some(LeaseGrantRequest::default()), ..Default::default() };
        assert_eq!(quota_cost(&grant), 64);
        let range = InternalRaftRequest { range: Some(RangeRequest::default()), ..Default::default() };
        assert_eq!(quota_cost(&range), 0);
    }
}
