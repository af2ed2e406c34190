//! Refusals that need no state: what can be said about a request before it is proposed, and again before it is applied.
//!
//! The order of the checks is etcd's, because a request can be wrong in two ways and clients compare texts.

use std::collections::HashSet;

use crate::{
    pb::etcdserverpb::{
        DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
        range_request::{SortOrder, SortTarget},
        request_op::Request,
    },
    pb::nested::TXN_DEPTH_MAX,
    types::{KEY_BYTES_MAX, Rejection},
};

/// Checks a put: key given, `ignore_value` without value, `ignore_lease` without lease, key not too long.
///
/// # Errors
/// The first refusal, in etcd's order.
pub fn check_put(request: &PutRequest) -> Result<(), Rejection> {
    refuse(request.key.is_empty(), Rejection::EmptyKey)?;
    refuse(request.ignore_value && !request.value.is_empty(), Rejection::ValueProvided)?;
    refuse(request.ignore_lease && request.lease != 0, Rejection::LeaseProvided)?;
    refuse(request.key.len() > KEY_BYTES_MAX, Rejection::KeyTooLong)
}

/// Checks a range: key given, sort order and target known.
///
/// # Errors
/// The first refusal, in etcd's order.
pub fn check_range(request: &RangeRequest) -> Result<(), Rejection> {
    refuse(request.key.is_empty(), Rejection::EmptyKey)?;
    refuse(SortOrder::try_from(request.sort_order).is_err(), Rejection::InvalidSortOption)?;
    refuse(SortTarget::try_from(request.sort_target).is_err(), Rejection::InvalidSortOption)
}

/// Checks a delete: key given.
///
/// # Errors
/// [`Rejection::EmptyKey`].
pub fn check_delete_range(request: &DeleteRangeRequest) -> Result<(), Rejection> {
    refuse(request.key.is_empty(), Rejection::EmptyKey)
}

/// Checks a transaction: number of operations, compares, every operation, double changes of one key.
///
/// # Errors
/// The first refusal, in etcd's order.
pub fn check_txn(request: &TxnRequest, ops_max: usize) -> Result<(), Rejection> {
    refuse(!txn_fits_entry(request), Rejection::TooManyOps)?;
    check_operations(request, ops_max)?;
    Touched::of(&request.success)?;
    Touched::of(&request.failure)?;
    Ok(())
}

/// Whether a transaction is nested so little that the entry which carries it can be decoded again on every member. With
/// etcd's usual allowance of operations there are none that are not.
pub fn txn_fits_entry(request: &TxnRequest) -> bool {
    fn fits(request: &TxnRequest, levels_left: usize) -> bool {
        both_branches(request).all(|operation| match &operation.request {
            Some(Request::RequestTxn(nested)) => levels_left > 0 && fits(nested, levels_left - 1),
            _ => true,
        })
    }
    fits(request, TXN_DEPTH_MAX)
}

/// Whether all operations of both branches are ranges, so that the transaction needs no entry in the log.
pub fn is_read_only(request: &TxnRequest) -> bool {
    both_branches(request).all(|operation| matches!(operation.request, Some(Request::RequestRange(_))))
}

/// Whether a range somewhere in the transaction names a revision.
pub fn names_revisions(request: &TxnRequest) -> bool {
    both_branches(request).any(|operation| match &operation.request {
        Some(Request::RequestRange(range)) => range.revision != 0,
        Some(Request::RequestTxn(nested)) => names_revisions(nested),
        _ => false,
    })
}

/// Whether a read-only transaction may be served from local state without asking the leader: all its ranges are
/// serializable. One without any operation is, too.
pub fn is_serializable(request: &TxnRequest) -> bool {
    both_branches(request).all(|operation| match &operation.request {
        Some(Request::RequestRange(range)) => range.serializable,
        _ => false,
    })
}

fn refuse(refused: bool, rejection: Rejection) -> Result<(), Rejection> {
    if refused { Err(rejection) } else { Ok(()) }
}

fn both_branches(request: &TxnRequest) -> impl Iterator<Item = &RequestOp> {
    request.success.iter().chain(&request.failure)
}

/// A nested transaction may have as many operations as its parent left of the allowance.
fn check_operations(request: &TxnRequest, ops_max: usize) -> Result<(), Rejection> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    let ops_left = ops_max.checked_sub(ops).ok_or(Rejection::TooManyOps)?;
    refuse(request.compare.iter().any(|compare| compare.key.is_empty()), Rejection::EmptyKey)?;
    both_branches(request).try_for_each(|operation| match &operation.request {
        Some(Request::RequestRange(range)) => check_range(range),
        Some(Request::RequestPut(put)) => check_put(put),
        Some(Request::RequestDeleteRange(delete)) => check_delete_range(delete),
        Some(Request::RequestTxn(nested)) => check_operations(nested, ops_left),
        None => Err(Rejection::KeyNotFound),
    })
}

/// What the operations of one branch change.
#[derive(Default)]
struct Touched<'a> {
    puts: HashSet<&'a [u8]>,
    deletes: Vec<&'a DeleteRangeRequest>,
}

impl<'a> Touched<'a> {
    /// Refuses a second put of a key, and a put of a key that the branch also deletes.
    ///
    /// The order is etcd's and visible: the deletes of the branch itself come first, then nested transactions in their
    /// order, then the puts of the branch. So a nested put is checked against the deletes of the nested transactions
    /// before it, and not against those behind it.
    fn of(operations: &'a [RequestOp]) -> Result<Self, Rejection> {
        let mut touched = Self::default();
        touched.deletes.extend(operations.iter().filter_map(|operation| match &operation.request {
            Some(Request::RequestDeleteRange(delete)) => Some(delete),
            _ => None,
        }));
        for operation in operations {
            if let Some(Request::RequestTxn(nested)) = &operation.request {
                touched.nest(Self::of(&nested.success)?, Self::of(&nested.failure)?)?;
            }
        }
        for operation in operations {
            if let Some(Request::RequestPut(put)) = &operation.request {
                touched.put(&put.key)?;
            }
        }
        Ok(touched)
    }

    /// Only one branch of a nested transaction is carried out, so both may put the same key.
    fn nest(&mut self, success: Self, failure: Self) -> Result<(), Rejection> {
        for key in &success.puts {
            self.put(key)?;
        }
        for key in failure.puts.difference(&success.puts) {
            self.put(key)?;
        }
        self.deletes.extend(success.deletes);
        self.deletes.extend(failure.deletes);
        Ok(())
    }

    fn put(&mut self, key: &'a [u8]) -> Result<(), Rejection> {
        let deleted = self.deletes.iter().any(|delete| deletes(delete, key));
        refuse(deleted || !self.puts.insert(key), Rejection::DuplicateKey)
    }
}

/// Whether etcd's check sees that `delete` touches `key`. It takes the end of an open interval (one zero byte) for an
/// ordinary key, and so sees nothing of an open, empty or reversed interval.
fn deletes(delete: &DeleteRangeRequest, key: &[u8]) -> bool {
    if delete.range_end.is_empty() {
        delete.key == key
    } else {
        (&delete.key[..]..&delete.range_end[..]).contains(&key)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message as _;

    use super::*;
    use crate::pb::{
        etcdserverpb::{Compare, InternalRaftRequest},
        nested::decode_entry,
    };

    fn put(key: &'static str) -> RequestOp {
        RequestOp { request: Some(Request::RequestPut(PutRequest { key: key.into(), ..Default::default() })) }
    }

    fn delete(key: &'static str, end: &'static [u8]) -> RequestOp {
        let delete = DeleteRangeRequest { key: key.into(), range_end: Bytes::from_static(end), prev_kv: false };
        RequestOp { request: Some(Request::RequestDeleteRange(delete)) }
    }

    fn range(key: &'static str, serializable: bool) -> RequestOp {
        let range = RangeRequest { key: key.into(), serializable, ..Default::default() };
        RequestOp { request: Some(Request::RequestRange(range)) }
    }

    fn txn(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
        TxnRequest { compare: Vec::new(), success, failure }
    }

    fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        RequestOp { request: Some(Request::RequestTxn(txn(success, failure))) }
    }

    fn refusal(success: Vec<RequestOp>) -> Option<Rejection> {
        check_txn(&txn(success, Vec::new()), 128).err()
    }

    const DUPLICATE: Option<Rejection> = Some(Rejection::DuplicateKey);

    #[test]
    fn transaction_too_deep_for_an_entry_is_refused() {
        let nest = |levels: usize| {
            let operations = (0..levels).fold(vec![put("k")], |inner, _| vec![nested(inner, Vec::new())]);
            txn(operations, Vec::new())
        };
        assert_eq!(check_txn(&nest(TXN_DEPTH_MAX), 128), Ok(()));
        assert_eq!(check_txn(&nest(TXN_DEPTH_MAX + 1), 128), Err(Rejection::TooManyOps));
        assert_eq!(check_txn(&nest(TXN_DEPTH_MAX + 1), 1_000), Err(Rejection::TooManyOps));
        let entry = InternalRaftRequest { txn: Some(nest(TXN_DEPTH_MAX)), ..Default::default() };
        assert!(decode_entry(&entry.encode_to_vec().into()).is_ok(), "the deepest one can be read");
    }

    #[test]
    fn puts_are_refused_in_the_order_of_etcd() {
        let mut request =
            PutRequest { ignore_value: true, value: "v".into(), ignore_lease: true, lease: 1, ..Default::default() };
        assert_eq!(check_put(&request), Err(Rejection::EmptyKey));
        request.key = "k".into();
        assert_eq!(check_put(&request), Err(Rejection::ValueProvided));
        request.value = Bytes::new();
        assert_eq!(check_put(&request), Err(Rejection::LeaseProvided));
        request.lease = 0;
        assert_eq!(check_put(&request), Ok(()));
        request.key = vec![0; KEY_BYTES_MAX + 1].into();
        assert_eq!(check_put(&request), Err(Rejection::KeyTooLong));
    }

    #[test]
    fn unknown_sort_options_are_refused() {
        let mut request = RangeRequest { sort_target: 9, ..Default::default() };
        assert_eq!(check_range(&request), Err(Rejection::EmptyKey));
        request.key = "k".into();
        assert_eq!(check_range(&request), Err(Rejection::InvalidSortOption));
        request.sort_target = 4;
        assert_eq!(check_range(&request), Ok(()));
        request.sort_order = -1;
        assert_eq!(check_range(&request), Err(Rejection::InvalidSortOption));
    }

    #[test]
    fn operations_are_limited_and_nested_ones_share_the_limit() {
        let puts: Vec<_> = (0..128).map(|_| range("k", false)).collect();
        assert_eq!(check_txn(&txn(puts.clone(), Vec::new()), 128), Ok(()));
        assert_eq!(check_txn(&txn(puts.clone(), Vec::new()), 127), Err(Rejection::TooManyOps));
        assert_eq!(check_txn(&txn(Vec::new(), puts.clone()), 127), Err(Rejection::TooManyOps));
        let compares = TxnRequest { compare: vec![Compare::default(); 129], ..Default::default() };
        assert_eq!(check_txn(&compares, 128), Err(Rejection::TooManyOps));
        let inner = |count: usize| nested(puts[..count].to_vec(), Vec::new());
        assert_eq!(check_txn(&txn(vec![inner(127)], Vec::new()), 128), Ok(()));
        assert_eq!(check_txn(&txn(vec![inner(128)], Vec::new()), 128), Err(Rejection::TooManyOps));
    }

    #[test]
    fn missing_keys_and_operations_are_refused() {
        let compares = TxnRequest { compare: vec![Compare::default()], ..Default::default() };
        assert_eq!(check_txn(&compares, 128), Err(Rejection::EmptyKey));
        assert_eq!(refusal(vec![put("")]), Some(Rejection::EmptyKey));
        assert_eq!(refusal(vec![nested(vec![delete("", b"")], vec![])]), Some(Rejection::EmptyKey));
        assert_eq!(refusal(vec![RequestOp { request: None }]), Some(Rejection::KeyNotFound));
    }

    #[test]
    fn two_changes_of_one_key_are_refused() {
        assert_eq!(refusal(vec![put("a"), put("b")]), None);
        assert_eq!(refusal(vec![put("a"), put("a")]), DUPLICATE);
        assert_eq!(refusal(vec![put("b"), delete("a", b"c")]), DUPLICATE);
        assert_eq!(refusal(vec![delete("a", b"c"), put("b")]), DUPLICATE);
        assert_eq!(refusal(vec![delete("a", b"c"), put("c")]), None);
        assert_eq!(refusal(vec![delete("a", b"c"), delete("b", b"")]), None);
        let either = txn(vec![put("a")], vec![put("a")]);
        assert_eq!(check_txn(&either, 128), Ok(()));
    }

    #[test]
    fn nested_changes_count_for_the_parent() {
        assert_eq!(refusal(vec![nested(vec![put("a")], vec![put("a")])]), None);
        assert_eq!(refusal(vec![nested(vec![put("a")], vec![]), nested(vec![], vec![put("a")])]), DUPLICATE);
        assert_eq!(refusal(vec![nested(vec![put("a")], vec![]), put("a")]), DUPLICATE);
        assert_eq!(refusal(vec![nested(vec![put("a")], vec![]), delete("a", b"")]), DUPLICATE);
        assert_eq!(refusal(vec![nested(vec![delete("a", b"")], vec![]), put("a")]), DUPLICATE);
    }

    #[test]
    fn gaps_of_etcds_overlap_check_are_kept() {
        // A delete without end is not seen at all, nor is a reversed one.
        assert_eq!(refusal(vec![delete("a", b"\0"), put("b")]), None);
        assert_eq!(refusal(vec![delete("a", b"\0"), put("a")]), None);
        assert_eq!(refusal(vec![delete("b", b"a"), put("b")]), None);
        // A nested put is not compared with the delete of a later sibling.
        assert_eq!(refusal(vec![nested(vec![put("a")], vec![]), nested(vec![delete("a", b"")], vec![])]), None);
        assert_eq!(refusal(vec![nested(vec![delete("a", b"")], vec![]), nested(vec![put("a")], vec![])]), DUPLICATE);
    }

    #[test]
    fn revisions_are_named_at_any_depth() {
        let mut at = range("a", false);
        assert!(!names_revisions(&txn(vec![at.clone(), put("b")], vec![])));
        if let Some(Request::RequestRange(range)) = &mut at.request {
            range.revision = 3;
        }
        assert!(names_revisions(&txn(vec![], vec![at.clone()])));
        assert!(names_revisions(&txn(vec![put("b"), nested(vec![], vec![at])], vec![])));
    }

    #[test]
    fn only_plain_ranges_are_read_only() {
        assert!(is_read_only(&txn(vec![range("a", false)], vec![])));
        assert!(!is_read_only(&txn(vec![range("a", false)], vec![put("a")])));
        assert!(!is_read_only(&txn(vec![nested(vec![range("a", false)], vec![])], vec![])));
        assert!(is_serializable(&txn(vec![range("a", true)], vec![])));
        assert!(!is_serializable(&txn(vec![range("a", true)], vec![range("a", false)])));
        assert!(is_serializable(&txn(vec![], vec![])));
    }
}
