//! The space quota, as far as it is checked before a request is proposed.
//!
//! Costs are etcd's estimates. A request of no cost always passes. The member that finds its quota used up raises the
//! alarm for itself; from then on apply refuses on every member.

use crate::{
    api::{Api, status::Status},
    pb::etcdserverpb::{
        AlarmRequest, AlarmType, InternalRaftRequest, PutRequest, RequestOp, TxnRequest,
        alarm_request::AlarmAction, request_op::Request,
    },
    types::Rejection,
};

/// What a pair costs beside its key and value.
const PAIR_BYTES: u64 = 256;
/// What a lease costs.
pub(super) const LEASE_BYTES: u64 = 64;

/// The cost of a put.
pub(super) fn put_cost(request: &PutRequest) -> u64 {
    PAIR_BYTES + request.key.len() as u64 + request.value.len() as u64
}

/// The cost of a transaction: that of its dearer branch.
pub(super) fn txn_cost(request: &TxnRequest) -> u64 {
    let branch = |ops: &[RequestOp]| ops.iter().map(op_cost).sum::<u64>();
    branch(&request.success).max(branch(&request.failure))
}

fn op_cost(op: &RequestOp) -> u64 {
    match &op.request {
        Some(Request::RequestPut(put)) => put_cost(put),
        Some(Request::RequestTxn(txn)) => txn_cost(txn),
        _ => 0,
    }
}

impl Api {
    /// Refuses what no longer fits, after raising the alarm.
    ///
    /// # Errors
    /// `NoSpace`, or what kept the alarm from being raised.
    pub(super) async fn check_quota(&self, cost: u64) -> Result<(), Status> {
        if cost == 0 || self.has_room(cost) {
            return Ok(());
        }
        let alarm = AlarmRequest {
            action: AlarmAction::Activate.into(),
            member_id: self.identity().member.0,
            alarm: AlarmType::Nospace.into(),
        };
        self.server().propose(InternalRaftRequest { alarm: Some(alarm), ..Default::default() }).await?;
        Err(Rejection::NoSpace.into())
    }

    fn has_room(&self, cost: u64) -> bool {
        let status = self.server().status();
        let Ok(quota) = u64::try_from(status.quota) else { return true };
        u64::try_from(status.db_size).unwrap_or(0).saturating_add(cost) < quota
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn put(value: &'static [u8]) -> RequestOp {
        let put = PutRequest { key: Bytes::from_static(b"k"), value: Bytes::from_static(value), ..Default::default() };
        RequestOp { request: Some(Request::RequestPut(put)) }
    }

    #[test]
    fn a_transaction_costs_its_dearer_branch_nested_puts_included() {
        let nested = TxnRequest { success: vec![put(b"12345")], failure: vec![], compare: vec![] };
        let nested = RequestOp { request: Some(Request::RequestTxn(nested)) };
        let request = TxnRequest { success: vec![put(b"1")], failure: vec![put(b""), nested], compare: vec![] };
        assert_eq!(txn_cost(&request), 257 + 262);
        assert_eq!(txn_cost(&TxnRequest::default()), 0);
    }
}
