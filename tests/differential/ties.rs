//! Puts pairs that a sort holds equal into the order of their keys.
//!
//! etcd sorts with an unstable algorithm, so the order among equals follows from its library and from the number of
//! pairs. Nobody can rely on it; everything else about a sorted answer is compared. Where a limit cuts through equals,
//! which of them remain is undefined too: then only their number is.

use quorate::pb::etcdserverpb::{RangeRequest, RangeResponse, TxnRequest, TxnResponse, request_op, response_op};
use quorate::pb::mvccpb::KeyValue;

/// The targets of a sort, by number.
const VERSION: i32 = 1;
const CREATE: i32 = 2;
const MOD: i32 = 3;
const VALUE: i32 = 4;

pub(crate) fn settle_range(request: &RangeRequest, response: &mut RangeResponse) {
    let cut = response.more && request.limit > 0;
    let mut groups: Vec<Vec<KeyValue>> = Vec::new();
    for kv in std::mem::take(&mut response.kvs) {
        match groups.last_mut() {
            Some(group) if group.last().is_some_and(|last| equal(request, last, &kv)) => group.push(kv),
            _ => groups.push(vec![kv]),
        }
    }
    for group in &mut groups {
        group.sort_by(|a, b| a.key.cmp(&b.key));
    }
    if let Some(last) = groups.last_mut().filter(|_| cut && ties(request)) {
        last.fill(KeyValue::default());
    }
    response.kvs = groups.concat();
}

pub(crate) fn settle_txn(request: &TxnRequest, response: &mut TxnResponse) {
    let branch = if response.succeeded { &request.success } else { &request.failure };
    for (asked, answered) in branch.iter().zip(&mut response.responses) {
        match (&asked.request, &mut answered.response) {
            (Some(request_op::Request::RequestRange(asked)), Some(response_op::Response::ResponseRange(answered))) => {
                settle_range(asked, answered);
            }
            (Some(request_op::Request::RequestTxn(asked)), Some(response_op::Response::ResponseTxn(answered))) => {
                settle_txn(asked, answered);
            }
            _ => {}
        }
    }
}

/// Whether the sort of `request` can hold two keys equal.
fn ties(request: &RangeRequest) -> bool {
    (VERSION..=VALUE).contains(&request.sort_target)
}

/// Whether the sort holds the pairs equal. Values left out of the answer may have been equal.
fn equal(request: &RangeRequest, a: &KeyValue, b: &KeyValue) -> bool {
    match request.sort_target {
        VERSION => a.version == b.version,
        CREATE => a.create_revision == b.create_revision,
        MOD => a.mod_revision == b.mod_revision,
        VALUE => request.keys_only || a.value == b.value,
        _ => false,
    }
}
