//! A prefix in front of all keys of the proxy's clients, which they never see.

use bytes::Bytes;

use crate::{
    pb::etcdserverpb::{
        DeleteRangeRequest, DeleteRangeResponse, LeaseTimeToLiveResponse, PutRequest, PutResponse, RangeRequest,
        RangeResponse, RangeStreamResponse, RequestOp, TxnRequest, TxnResponse, WatchCreateRequest, WatchResponse,
        request_op::Request, response_op::Response,
    },
    types::Rejection,
};

/// Deepest nesting of transactions that is looked into; members take less.
const DEPTH_MAX: usize = 64;

/// The prefix; an empty one changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Namespace(Bytes);

impl Namespace {
    /// Keys begin with `prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        Self(Bytes::copy_from_slice(prefix.as_bytes()))
    }

    /// Whether nothing is changed.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn key(&self, key: &Bytes) -> Bytes {
        [&self.0[..], &key[..]].concat().into()
    }

    /// Puts the prefix in front of an interval.
    fn interval(&self, key: &mut Bytes, range_end: &mut Bytes) {
        *key = self.key(key);
        *range_end = match range_end.as_ref() {
            [] => Bytes::new(),
            [0] => successor(&self.0),
            _ => self.key(range_end),
        };
    }

    fn checked(&self, key: &mut Bytes, range_end: &mut Bytes) -> Result<(), Rejection> {
        if key.is_empty() {
            return Err(Rejection::EmptyKey);
        }
        self.interval(key, range_end);
        Ok(())
    }

    /// Changes a request.
    ///
    /// # Errors
    /// [`Rejection::EmptyKey`].
    pub(super) fn prefix_range(&self, request: &mut RangeRequest) -> Result<(), Rejection> {
        self.checked(&mut request.key, &mut request.range_end)
    }

    /// As [`Namespace::prefix_range`].
    ///
    /// # Errors
    /// [`Rejection::EmptyKey`].
    pub(super) fn prefix_put(&self, request: &mut PutRequest) -> Result<(), Rejection> {
        self.checked(&mut request.key, &mut Bytes::new())
    }

    /// As [`Namespace::prefix_range`].
    ///
    /// # Errors
    /// [`Rejection::EmptyKey`].
    pub(super) fn prefix_delete(&self, request: &mut DeleteRangeRequest) -> Result<(), Rejection> {
        self.checked(&mut request.key, &mut request.range_end)
    }

    /// As [`Namespace::prefix_range`], with what is inside.
    ///
    /// # Errors
    /// [`Rejection::EmptyKey`]; [`Rejection::TooManyOps`] where transactions are nested deeper than any member takes.
    pub(super) fn prefix_txn(&self, request: &mut TxnRequest) -> Result<(), Rejection> {
        self.prefix_level(request, DEPTH_MAX)
    }

    fn prefix_level(&self, request: &mut TxnRequest, depth: usize) -> Result<(), Rejection> {
        let below = depth.checked_sub(1).ok_or(Rejection::TooManyOps)?;
        for compare in &mut request.compare {
            self.checked(&mut compare.key, &mut compare.range_end)?;
        }
        let operations = request.success.iter_mut().chain(&mut request.failure);
        operations.filter_map(|RequestOp { request }| request.as_mut()).try_for_each(|operation| match operation {
            Request::RequestRange(range) => self.prefix_range(range),
            Request::RequestPut(put) => self.prefix_put(put),
            Request::RequestDeleteRange(delete) => self.prefix_delete(delete),
            Request::RequestTxn(txn) => self.prefix_level(txn, below),
        })
    }

    /// Changes a request to watch; an empty key stands for the lowest one.
    pub(super) fn prefix_watch(&self, mut request: WatchCreateRequest) -> WatchCreateRequest {
        if self.is_empty() {
            return request;
        }
        if request.key.is_empty() {
            request.key = Bytes::from_static(b"\0");
        }
        let is_empty =
            !request.range_end.is_empty() && request.range_end != b"\0"[..] && request.range_end <= request.key;
        if !is_empty {
            self.interval(&mut request.key, &mut request.range_end);
        }
        request
    }

    fn strip_key(&self, key: &mut Bytes) {
        if key.starts_with(&self.0) {
            *key = key.slice(self.0.len()..);
        }
    }

    /// Changes an answer back.
    pub(super) fn strip_range(&self, answer: &mut RangeResponse) {
        answer.kvs.iter_mut().for_each(|kv| self.strip_key(&mut kv.key));
    }

    /// As [`Namespace::strip_range`].
    pub(super) fn strip_piece(&self, answer: &mut RangeStreamResponse) {
        if let Some(range) = &mut answer.range_response {
            self.strip_range(range);
        }
    }

    /// As [`Namespace::strip_range`].
    pub(super) fn strip_put(&self, answer: &mut PutResponse) {
        answer.prev_kv.iter_mut().for_each(|kv| self.strip_key(&mut kv.key));
    }

    /// As [`Namespace::strip_range`].
    pub(super) fn strip_delete(&self, answer: &mut DeleteRangeResponse) {
        answer.prev_kvs.iter_mut().for_each(|kv| self.strip_key(&mut kv.key));
    }

    /// As [`Namespace::strip_range`], with what is inside: as deep as a request of the same depth was.
    pub(super) fn strip_txn(&self, answer: &mut TxnResponse) {
        for operation in answer.responses.iter_mut().filter_map(|operation| operation.response.as_mut()) {
            match operation {
                Response::ResponseRange(range) => self.strip_range(range),
                Response::ResponsePut(put) => self.strip_put(put),
                Response::ResponseDeleteRange(delete) => self.strip_delete(delete),
                Response::ResponseTxn(txn) => self.strip_txn(txn),
            }
        }
    }

    /// Keeps the keys of a lease that the clients may see.
    pub(super) fn strip_lease(&self, answer: &mut LeaseTimeToLiveResponse) {
        answer.keys.retain(|key| key.starts_with(&self.0));
        answer.keys.iter_mut().for_each(|key| self.strip_key(key));
    }

    /// As [`Namespace::strip_range`].
    pub(super) fn strip_watch(&self, answer: &mut WatchResponse) {
        for event in &mut answer.events {
            event.kv.iter_mut().chain(&mut event.prev_kv).for_each(|kv| self.strip_key(&mut kv.key));
        }
    }
}

/// The first key behind all that begin with `prefix`; "no end" where there is none.
fn successor(prefix: &Bytes) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last != u8::MAX {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::{
        etcdserverpb::{Compare, ResponseOp},
        mvccpb::KeyValue,
    };

    fn bytes(text: &'static [u8]) -> Bytes {
        Bytes::from_static(text)
    }

    fn interval(prefix: &'static [u8], key: &'static [u8], end: &'static [u8]) -> (Bytes, Bytes) {
        let (mut key, mut end) = (bytes(key), bytes(end));
        Namespace(bytes(prefix)).interval(&mut key, &mut end);
        (key, end)
    }

    #[test]
    fn the_end_of_all_keys_is_the_end_of_the_prefix() {
        assert_eq!(interval(b"p/", b"a", b""), (bytes(b"p/a"), bytes(b"")));
        assert_eq!(interval(b"p/", b"a", b"b"), (bytes(b"p/a"), bytes(b"p/b")));
        assert_eq!(interval(b"p/", b"\0", b"\0"), (bytes(b"p/\0"), bytes(b"p0")));
        assert_eq!(interval(b"p\xff", b"a", b"\0"), (bytes(b"p\xffa"), bytes(b"q")));
        assert_eq!(interval(b"\xff\xff", b"a", b"\0"), (bytes(b"\xff\xffa"), bytes(b"\0")));
    }

    #[test]
    fn transactions_are_changed_all_through_and_back() {
        let namespace = Namespace::new("p/");
        let put =
            || RequestOp { request: Some(Request::RequestPut(PutRequest { key: bytes(b"k"), ..Default::default() })) };
        let inner = TxnRequest { success: vec![put()], ..Default::default() };
        let mut request = TxnRequest {
            compare: vec![Compare { key: bytes(b"c"), range_end: bytes(b"\0"), ..Default::default() }],
            failure: vec![RequestOp { request: Some(Request::RequestTxn(inner)) }],
            ..Default::default()
        };
        namespace.prefix_txn(&mut request).unwrap();
        assert_eq!((&request.compare[0].key[..], &request.compare[0].range_end[..]), (&b"p/c"[..], &b"p0"[..]));
        let Some(Request::RequestTxn(inner)) = &request.failure[0].request else { panic!("a transaction") };
        let Some(Request::RequestPut(put)) = &inner.success[0].request else { panic!("a put") };
        assert_eq!(put.key, "p/k");
        let kv = KeyValue { key: bytes(b"p/k"), ..Default::default() };
        let range = RangeResponse { kvs: vec![kv], ..Default::default() };
        let inner = TxnResponse {
            responses: vec![ResponseOp { response: Some(Response::ResponseRange(range)) }],
            ..Default::default()
        };
        let mut answer = TxnResponse {
            responses: vec![ResponseOp { response: Some(Response::ResponseTxn(inner)) }],
            ..Default::default()
        };
        namespace.strip_txn(&mut answer);
        assert!(format!("{answer:?}").contains("key: b\"k\""));
    }

    #[test]
    fn keys_that_are_missing_are_refused_and_nesting_is_bounded() {
        let namespace = Namespace::new("p/");
        assert_eq!(namespace.prefix_range(&mut RangeRequest::default()), Err(Rejection::EmptyKey));
        let mut request = TxnRequest::default();
        for _ in 0..DEPTH_MAX {
            request = TxnRequest {
                success: vec![RequestOp { request: Some(Request::RequestTxn(request)) }],
                ..Default::default()
            };
        }
        assert_eq!(namespace.prefix_txn(&mut request), Err(Rejection::TooManyOps));
    }

    #[test]
    fn a_lease_shows_the_keys_of_the_namespace_alone() {
        let mut answer = LeaseTimeToLiveResponse { keys: vec![bytes(b"p/a"), bytes(b"q/b")], ..Default::default() };
        Namespace::new("p/").strip_lease(&mut answer);
        assert_eq!(answer.keys, ["a"]);
    }

    #[test]
    fn a_watch_of_everything_is_one_of_the_namespace() {
        let request = WatchCreateRequest { range_end: bytes(b"\0"), ..Default::default() };
        let request = Namespace::new("p/").prefix_watch(request);
        assert_eq!((&request.key[..], &request.range_end[..]), (&b"p/\0"[..], &b"p0"[..]));
    }
}
