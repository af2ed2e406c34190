//! Transactions: which branches are taken, and whether everything in them can be done.
//!
//! All compares, those of nested transactions on the way included, are evaluated on the state before the transaction.
//! They give a path of booleans. Then every operation on that path is checked on the same state; only if none fails is
//! anything carried out.

use std::cmp::Ordering;

use bytes::Bytes;

use super::{
    LeaseExists, ReadError, plan,
    rows::{Put, Version},
    state::State,
};
use crate::{
    pb::etcdserverpb::{
        Compare, PutRequest, RangeRequest, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op::Request,
        response_op::Response,
    },
    storage::Read,
    types::{KeyRange, LeaseId, Rejection, Revision},
};

/// Whether each transaction on the way succeeds, the outermost first, in the order of execution.
#[derive(Debug)]
pub(super) struct Choices(Vec<bool>);

/// A walk along the choices, in the order they were made.
pub(super) struct Path<'a>(std::slice::Iter<'a, bool>);

impl Choices {
    pub(super) fn walk(&self) -> Path<'_> {
        Path(self.0.iter())
    }
}

impl Path<'_> {
    /// Whether the next transaction on the way succeeds.
    pub(super) fn next(&mut self) -> bool {
        self.0.next().copied().unwrap_or_default()
    }
}

/// The operations of the branch that is taken.
pub(super) fn branch(request: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded { &request.success } else { &request.failure }
}

/// Evaluates the compares of `request` and of the transactions nested in the branches that will be taken.
pub(super) fn choose<R: Read>(state: State<'_, R>, request: &TxnRequest) -> Result<Choices, ReadError> {
    let mut choices = Choices(Vec::new());
    choose_into(state, request, &mut choices)?;
    Ok(choices)
}

fn choose_into<R: Read>(state: State<'_, R>, request: &TxnRequest, choices: &mut Choices) -> Result<(), ReadError> {
    let mut succeeded = true;
    for compare in &request.compare {
        succeeded = succeeded && holds(state, compare)?;
    }
    choices.0.push(succeeded);
    branch(request, succeeded).iter().try_for_each(|operation| match &operation.request {
        Some(Request::RequestTxn(nested)) => choose_into(state, nested, choices),
        _ => Ok(()),
    })
}

/// Whether every key of the interval satisfies the compare.
fn holds<R: Read>(state: State<'_, R>, compare: &Compare) -> Result<bool, ReadError> {
    let range = KeyRange::new(compare.key.clone(), &compare.range_end);
    let mut none = true;
    for pair in state.pairs(&range, i64::MAX) {
        none = false;
        if !holds_for(compare, &pair?.1) {
            return Ok(false);
        }
    }
    // No key counts as one whose numbers are zero and whose value compares with nothing.
    let by_value = compare.target == CompareTarget::Value as i32;
    Ok(!none || (!by_value && holds_for(compare, &missing())))
}

fn missing() -> Version {
    Version { modified: Revision::default(), put: Put { create: 0, version: 0, lease: 0, value: Bytes::new() } }
}

fn holds_for(compare: &Compare, version: &Version) -> bool {
    let order = order(compare, version);
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => order.is_eq(),
        Ok(CompareResult::NotEqual) => order.is_ne(),
        Ok(CompareResult::Greater) => order.is_gt(),
        Ok(CompareResult::Less) => order.is_lt(),
        Err(_) => true,
    }
}

/// How what is stored compares with the operand; an operand of another kind counts as zero or empty.
fn order(compare: &Compare, version: &Version) -> Ordering {
    let operand = compare.target_union.as_ref();
    let number = |stored: i64, operand: Option<i64>| stored.cmp(&operand.unwrap_or_default());
    let put = &version.put;
    match (CompareTarget::try_from(compare.target), operand) {
        (Ok(CompareTarget::Version), Some(TargetUnion::Version(number))) => put.version.cmp(number),
        (Ok(CompareTarget::Version), _) => number(put.version, None),
        (Ok(CompareTarget::Create), Some(TargetUnion::CreateRevision(number))) => put.create.cmp(number),
        (Ok(CompareTarget::Create), _) => number(put.create, None),
        (Ok(CompareTarget::Mod), Some(TargetUnion::ModRevision(number))) => version.modified.main.cmp(number),
        (Ok(CompareTarget::Mod), _) => number(version.modified.main, None),
        (Ok(CompareTarget::Lease), Some(TargetUnion::Lease(number))) => put.lease.cmp(number),
        (Ok(CompareTarget::Lease), _) => number(put.lease, None),
        (Ok(CompareTarget::Value), Some(TargetUnion::Value(value))) => put.value.cmp(value),
        (Ok(CompareTarget::Value), _) => put.value.as_ref().cmp(&[]),
        (Err(_), _) => Ordering::Equal,
    }
}

/// Whether an operation of the branches taken changes anything: a put, or a deletion of a key that is there.
pub(super) fn writes<R: Read>(state: State<'_, R>, request: &TxnRequest, choices: &Choices) -> Result<bool, ReadError> {
    writes_along(state, request, &mut choices.walk())
}

fn writes_along<R: Read>(state: State<'_, R>, request: &TxnRequest, path: &mut Path<'_>) -> Result<bool, ReadError> {
    let succeeded = path.next();
    for operation in branch(request, succeeded) {
        let writes = match &operation.request {
            Some(Request::RequestPut(_)) => true,
            Some(Request::RequestDeleteRange(delete)) => {
                let range = KeyRange::new(delete.key.clone(), &delete.range_end);
                state.pairs(&range, i64::MAX).next().transpose()?.is_some()
            }
            Some(Request::RequestTxn(nested)) => writes_along(state, nested, path)?,
            Some(Request::RequestRange(_)) | None => false,
        };
        if writes {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Checks every operation of the branches taken, on the state before any of them.
pub(super) fn check<R: Read>(
    state: State<'_, R>,
    request: &TxnRequest,
    choices: &Choices,
    leases: LeaseExists<'_>,
) -> Result<(), ReadError> {
    check_along(state, request, &mut choices.walk(), leases)
}

fn check_along<R: Read>(
    state: State<'_, R>,
    request: &TxnRequest,
    path: &mut Path<'_>,
    leases: LeaseExists<'_>,
) -> Result<(), ReadError> {
    let succeeded = path.next();
    branch(request, succeeded).iter().try_for_each(|operation| match &operation.request {
        Some(Request::RequestRange(range)) => Ok(check_revision(state, range)?),
        Some(Request::RequestPut(put)) => check_put(state, put, leases),
        Some(Request::RequestTxn(nested)) => check_along(state, nested, path, leases),
        Some(Request::RequestDeleteRange(_)) | None => Ok(()),
    })
}

/// Checks the ranges alone, before anything is proposed.
pub(super) fn check_ranges<R: Read>(state: State<'_, R>, request: &TxnRequest) -> Result<(), ReadError> {
    let choices = choose(state, request)?;
    check_ranges_along(state, request, &mut choices.walk())
}

fn check_ranges_along<R: Read>(
    state: State<'_, R>,
    request: &TxnRequest,
    path: &mut Path<'_>,
) -> Result<(), ReadError> {
    let succeeded = path.next();
    branch(request, succeeded).iter().try_for_each(|operation| match &operation.request {
        Some(Request::RequestRange(range)) => Ok(check_revision(state, range)?),
        Some(Request::RequestTxn(nested)) => check_ranges_along(state, nested, path),
        _ => Ok(()),
    })
}

/// Unlike a range of its own, a range in a transaction is refused for a negative revision below the compaction.
fn check_revision<R>(state: State<'_, R>, range: &RangeRequest) -> Result<(), Rejection> {
    match range.revision {
        0 => Ok(()),
        revision if revision > state.revision => Err(Rejection::FutureRevision),
        revision if revision < state.compact_revision => Err(Rejection::Compacted),
        _ => Ok(()),
    }
}

fn check_put<R: Read>(state: State<'_, R>, put: &PutRequest, leases: LeaseExists<'_>) -> Result<(), ReadError> {
    check_lease(put, leases)?;
    check_kept(state, put)
}

/// Refuses a put that is to keep what a missing key had.
pub(super) fn check_kept<R: Read>(state: State<'_, R>, put: &PutRequest) -> Result<(), ReadError> {
    if (put.ignore_value || put.ignore_lease) && state.newest(&put.key)?.is_none() {
        return Err(Rejection::KeyNotFound.into());
    }
    Ok(())
}

/// Refuses a put with a lease that does not exist.
pub(super) fn check_lease(put: &PutRequest, leases: LeaseExists<'_>) -> Result<(), Rejection> {
    if put.lease != 0 && !leases(LeaseId(put.lease)) {
        return Err(Rejection::LeaseNotFound);
    }
    Ok(())
}

/// Answers a transaction that only reads.
pub(super) fn read<R: Read>(state: State<'_, R>, request: &TxnRequest) -> Result<TxnResponse, ReadError> {
    let choices = choose(state, request)?;
    check(state, request, &choices, &|_| false)?;
    let mut response = read_along(state, request, &mut choices.walk())?;
    response.header = Some(ResponseHeader { revision: state.revision, ..ResponseHeader::default() });
    Ok(response)
}

fn read_along<R: Read>(
    state: State<'_, R>,
    request: &TxnRequest,
    path: &mut Path<'_>,
) -> Result<TxnResponse, ReadError> {
    let succeeded = path.next();
    let mut responses = Vec::new();
    for operation in branch(request, succeeded) {
        let response = match &operation.request {
            Some(Request::RequestRange(range)) => Some(Response::ResponseRange(plan::answer(state, range)?)),
            Some(Request::RequestTxn(nested)) => Some(Response::ResponseTxn(read_along(state, nested, path)?)),
            // Not reached: the caller asked `check::is_read_only`.
            Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) | None => None,
        };
        responses.push(ResponseOp { response });
    }
    Ok(TxnResponse { header: Some(ResponseHeader::default()), succeeded, responses })
}
