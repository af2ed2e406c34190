//! What a request will cost on disk, as etcd estimates it.

use crate::{
    pb::etcdserverpb::{InternalRaftRequest, PutRequest, RequestOp, TxnRequest, request_op::Request},
    v2store::{self, Method},
};

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

/// The estimate for a request of the v2 API, of which etcd has none: a node that is written stands in its row and in that of
/// its event. What takes nodes away is free; so is what keeps those that are there from expiring, because without space
/// every registration of a cluster would go, and what is about users, because nobody could be shut out.
pub fn v2_cost(request: &v2store::Request) -> u64 {
    match Method::named(&request.method) {
        _ if request.only_refreshes() || request.is_about_users() => 0,
        Some(Method::Put | Method::Post) => PUT_OVERHEAD_BYTES + 2 * (request.path.len() + request.value.len()) as u64,
        _ => 0,
    }
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
    fn nodes_cost_twice_what_they_hold_and_their_removal_nothing() {
        let request = |method, value: &'static str| {
            let path = v2store::Path::clean(b"/1/ab");
            v2_cost(&v2store::Request { value: value.into(), ..v2store::Request::new(method, &path, 1) })
        };
        assert_eq!((request(Method::Put, "xyz"), request(Method::Post, "")), (256 + 16, 256 + 10));
        assert_eq!([Method::Delete, Method::Sync, Method::Know].map(|method| request(method, "x")), [0; 3]);
    }

    #[test]
    fn refreshes_and_what_is_about_users_cost_nothing() {
        let cost = |method, path: &str, prev_exist| {
            let request = v2store::Request::new(method, &v2store::Path::clean(path.as_bytes()), 1);
            v2_cost(&v2store::Request { refresh: Some(true), prev_exist, ..request })
        };
        assert_eq!([None, Some(true)].map(|prev_exist| cost(Method::Put, "/1/a", prev_exist)), [0; 2]);
        let makes_nodes = [cost(Method::Put, "/1/a", Some(false)), cost(Method::Post, "/1/a", None)];
        assert_eq!(makes_nodes, [256 + 8; 2], "a creation takes no notice of refresh");
        let record = |path| cost(Method::Put, path, Some(false));
        assert_eq!(["/2", "/2/users/u", "/2/enabled"].map(record), [0; 3]);
        assert_eq!(["/20/x", "/1/2"].map(record), [256 + 10, 256 + 8]);
    }

    #[test]
    fn only_puts_transactions_and_grants_cost() {
        let grant = InternalRaftRequest { lease_grant: Some(LeaseGrantRequest::default()), ..Default::default() };
        assert_eq!(quota_cost(&grant), 64);
        let range = InternalRaftRequest { range: Some(RangeRequest::default()), ..Default::default() };
        assert_eq!(quota_cost(&range), 0);
    }
}
