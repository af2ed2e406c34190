//! Refusals that need no state: what can be said about a request before it is proposed, and again before it is applied.

use crate::{
    pb::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest},
    types::Rejection,
};

/// Checks a put: key given and short enough, `ignore_value` without value, `ignore_lease` without lease.
///
/// # Errors
/// The first refusal, in etcd's order.
pub fn check_put(_request: &PutRequest) -> Result<(), Rejection> {
    todo!()
}

/// Checks a range: key given, sort order and target known.
///
/// # Errors
/// The first refusal, in etcd's order.
pub fn check_range(_request: &RangeRequest) -> Result<(), Rejection> {
    todo!()
}

/// Checks a delete: key given.
///
/// # Errors
/// [`Rejection::EmptyKey`].
pub fn check_delete_range(_request: &DeleteRangeRequest) -> Result<(), Rejection> {
    todo!()
}

/// Checks a transaction: number of operations, compares, every operation, double changes of one key.
///
/// # Errors
/// The first refusal, in etcd's order.
pub fn check_txn(_request: &TxnRequest, _ops_max: usize) -> Result<(), Rejection> {
    todo!()
}

/// Whether all operations of both branches are ranges, so that the transaction needs no entry in the log.
pub fn is_read_only(_request: &TxnRequest) -> bool {
    todo!()
}

/// Whether a read-only transaction may be served from local state without asking the leader: all its ranges are
/// serializable.
pub fn is_serializable(_request: &TxnRequest) -> bool {
    todo!()
}
