//! Locks and elections, as keys that stand in line.
//!
//! Whoever wants the lock or the office `NAME` has a key `NAME/LEASE`, the lease in hexadecimal, and the key lives as long
//! as the lease. The key that was created first has what all want; the others wait until no older one is left. That is the
//! recipe of etcd's clients, so that their locks and ours are the same locks. Here are its requests and what the answers
//! mean; the services of `api` and the commands of `cli` send them.
//!
//! Invariants:
//! - Nothing but [`Line::enter`] creates a key; whatever changes or deletes one names the revision it was created in, and so
//!   never touches the key of somebody who came later.
//! - Everybody waits for one key only, the newest of the older ones: a key that goes wakes one.

use bytes::Bytes;

use crate::{
    pb::{
        etcdserverpb::{
            Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, ResponseOp, TxnRequest,
            TxnResponse, WatchCreateRequest,
            compare::{CompareResult, CompareTarget, TargetUnion},
            range_request::{SortOrder, SortTarget},
            request_op::Request,
            response_op::Response,
            watch_create_request::FilterType,
        },
        mvccpb::KeyValue,
    },
    types::LeaseId,
};

/// Seconds that the lease of somebody lives who brings none.
pub const TTL_SECONDS_DEFAULT: i64 = 60;

/// Everybody who wants one lock or one office.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    prefix: Bytes,
}

impl Line {
    /// The line for the lock or office called `name`.
    pub fn of(name: &[u8]) -> Self {
        Self { prefix: [name, b"/"].concat().into() }
    }

    /// The key of whoever has `lease`.
    pub fn key(&self, lease: LeaseId) -> Bytes {
        let sign = if lease.0 < 0 { "-" } else { "" };
        let number = format!("{sign}{:x}", lease.0.unsigned_abs());
        [&self.prefix, number.as_bytes()].concat().into()
    }

    /// Takes a place at the end, or finds the place that this lease has already. [`Entered::read`] reads the answer.
    pub fn enter(&self, lease: LeaseId, value: Bytes) -> TxnRequest {
        let key = self.key(lease);
        let put = PutRequest { key: key.clone(), value, lease: lease.0, ..Default::default() };
        TxnRequest {
            compare: vec![created_in(key.clone(), 0)],
            success: vec![op(Request::RequestPut(put)), op(Request::RequestRange(self.first()))],
            failure: vec![op(Request::RequestRange(one(key))), op(Request::RequestRange(self.first()))],
        }
    }

    /// Reads who has it.
    pub fn first(&self) -> RangeRequest {
        self.oldest_or_newest(SortOrder::Ascend)
    }

    /// Reads whom to wait for before it is the turn of the key that was created in `created`: nobody, once it is.
    pub fn last_before(&self, created: i64) -> RangeRequest {
        RangeRequest { max_create_revision: created - 1, ..self.oldest_or_newest(SortOrder::Descend) }
    }

    /// Watches for whoever enters, from the revision `since` on.
    pub fn entries(&self, since: i64) -> WatchCreateRequest {
        WatchCreateRequest {
            key: self.prefix.clone(),
            range_end: self.end(),
            start_revision: since,
            filters: vec![FilterType::Nodelete.into()],
            ..Default::default()
        }
    }

    fn oldest_or_newest(&self, order: SortOrder) -> RangeRequest {
        RangeRequest {
            key: self.prefix.clone(),
            range_end: self.end(),
            limit: 1,
            sort_order: order.into(),
            sort_target: SortTarget::Create.into(),
            ..Default::default()
        }
    }

    /// The first key behind all of the line: a zero follows the slash.
    fn end(&self) -> Bytes {
        let name = self.prefix.strip_suffix(b"/").unwrap_or(&self.prefix);
        [name, b"0"].concat().into()
    }
}

/// A key that was in a line once, told from later ones of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The key.
    pub key: Bytes,
    /// The revision it was created in.
    pub created: i64,
}

impl Place {
    /// Reads it. [`Place::is_kept`] reads the answer.
    pub fn read(&self) -> RangeRequest {
        one(self.key.clone())
    }

    /// Whether the place was still there when it was read.
    pub fn is_kept(&self, answer: &RangeResponse) -> bool {
        answer.kvs.first().is_some_and(|kv| kv.create_revision == self.created)
    }

    /// Gives it another value; does nothing if the place is lost.
    pub fn write(&self, lease: LeaseId, value: Bytes) -> TxnRequest {
        let put = PutRequest { key: self.key.clone(), value, lease: lease.0, ..Default::default() };
        self.if_kept(Request::RequestPut(put))
    }

    /// Gives it up; does nothing if it is lost.
    pub fn leave(&self) -> TxnRequest {
        self.if_kept(Request::RequestDeleteRange(DeleteRangeRequest { key: self.key.clone(), ..Default::default() }))
    }

    fn if_kept(&self, request: Request) -> TxnRequest {
        TxnRequest {
            compare: vec![created_in(self.key.clone(), self.created)],
            success: vec![op(request)],
            failure: Vec::new(),
        }
    }
}

/// What came of [`Line::enter`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entered {
    /// The place.
    pub place: Place,
    /// Whether it is the first of its line, so that there is nothing to wait for.
    pub is_first: bool,
    /// The value it had before, if the place was there already.
    pub value: Option<Bytes>,
}

impl Entered {
    /// Reads the answer to [`Line::enter`] with `key`; `None` if it is not the answer to that.
    pub fn read(key: Bytes, answer: &TxnResponse) -> Option<Self> {
        let (created, value) = if answer.succeeded {
            (answer.header.as_ref()?.revision, None)
        } else {
            let kv = first_kv(answer.responses.first()?)?;
            (kv.create_revision, Some(kv.value.clone()))
        };
        let is_first = first_kv(answer.responses.get(1)?).is_none_or(|first| first.create_revision == created);
        Some(Self { place: Place { key, created }, is_first, value })
    }
}

/// Watches for the deletion of `key`, from the revision `since` on.
pub fn deletion(key: Bytes, since: i64) -> WatchCreateRequest {
    WatchCreateRequest { filters: vec![FilterType::Noput.into()], ..changes(key, since) }
}

/// Watches `key`, from the revision `since` on.
pub fn changes(key: Bytes, since: i64) -> WatchCreateRequest {
    WatchCreateRequest { key, start_revision: since, ..Default::default() }
}

fn created_in(key: Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key,
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Default::default()
    }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn one(key: Bytes) -> RangeRequest {
    RangeRequest { key, ..Default::default() }
}

fn first_kv(answer: &ResponseOp) -> Option<&KeyValue> {
    match &answer.response {
        Some(Response::ResponseRange(range)) => range.kvs.first(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::etcdserverpb::{PutResponse, ResponseHeader};

    fn found(kvs: Vec<KeyValue>) -> ResponseOp {
        let range = RangeResponse { kvs, ..Default::default() };
        ResponseOp { response: Some(Response::ResponseRange(range)) }
    }

    fn created(revision: i64) -> KeyValue {
        KeyValue { create_revision: revision, value: "old".into(), ..Default::default() }
    }

    fn answer(succeeded: bool, responses: Vec<ResponseOp>) -> TxnResponse {
        let header = Some(ResponseHeader { revision: 9, ..Default::default() });
        TxnResponse { header, succeeded, responses }
    }

    #[test]
    fn keys_end_with_the_lease_as_go_prints_it() {
        let line = Line::of(b"lock");
        assert_eq!(line.key(LeaseId(0x1f)), "lock/1f");
        assert_eq!(line.key(LeaseId(-255)), "lock/-ff");
        assert_eq!(Line::of(b"").key(LeaseId(1)), "/1");
    }

    #[test]
    fn a_line_ends_where_other_names_begin() {
        let first = Line::of(b"a").first();
        assert_eq!((first.key, first.range_end), ("a/".into(), "a0".into()));
    }

    #[test]
    fn whoever_finds_nobody_older_is_first() {
        let put = || ResponseOp { response: Some(Response::ResponsePut(PutResponse::default())) };
        let read = |answer| Entered::read("k".into(), &answer).map(|entered| (entered.place.created, entered.is_first));
        assert_eq!(read(answer(true, vec![put(), found(vec![created(9)])])), Some((9, true)));
        assert_eq!(read(answer(true, vec![put(), found(vec![created(4)])])), Some((9, false)));
        assert_eq!(read(answer(false, vec![found(vec![created(4)]), found(vec![created(4)])])), Some((4, true)));
        assert_eq!(read(answer(false, vec![found(vec![]), found(vec![])])), None);
    }

    #[test]
    fn a_place_that_was_there_tells_its_value() {
        let again = answer(false, vec![found(vec![created(4)]), found(vec![created(2)])]);
        let entered = Entered::read("k".into(), &again).unwrap();
        assert_eq!((entered.value, entered.is_first), (Some("old".into()), false));
    }

    #[test]
    fn a_key_of_the_same_name_created_later_is_another_place() {
        let place = Place { key: "k".into(), created: 4 };
        let read = |revision| RangeResponse { kvs: vec![created(revision)], ..Default::default() };
        assert!(place.is_kept(&read(4)) && !place.is_kept(&read(5)) && !place.is_kept(&RangeResponse::default()));
    }
}
