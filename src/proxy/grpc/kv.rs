//! `etcdserverpb.KV`: what may be stale is answered from the cache, everything else by the cluster.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, uri::PathAndQuery};
use prost::Message;

use super::{
    cache::{Cache, Moment, Question, Subject, Told, overlap},
    identity::{Mark, header_of},
    namespace::Namespace,
    upstream::{Outgoing, Token, Upstream},
};
use crate::{
    api::{decode, status::Status},
    pb::etcdserverpb::{
        CompactionRequest, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RequestOp,
        TxnRequest, TxnResponse, request_op::Request, response_op::Response,
    },
    types::{KeyRange, Rejection},
};

pub(super) const RANGE: PathAndQuery = PathAndQuery::from_static("/etcdserverpb.KV/Range");
const PUT: PathAndQuery = PathAndQuery::from_static("/etcdserverpb.KV/Put");
const DELETE_RANGE: PathAndQuery = PathAndQuery::from_static("/etcdserverpb.KV/DeleteRange");
const TXN: PathAndQuery = PathAndQuery::from_static("/etcdserverpb.KV/Txn");
const COMPACT: PathAndQuery = PathAndQuery::from_static("/etcdserverpb.KV/Compact");
/// Deepest nesting of transactions whose keys are looked at; of what lies deeper nothing is kept anyway.
const DEPTH_MAX: usize = 64;

/// Keys and values, through the cache.
#[derive(Debug)]
pub(super) struct Kv {
    upstream: Arc<Upstream>,
    cache: Arc<Cache>,
    namespace: Namespace,
}

impl Kv {
    /// In front of the cluster behind `upstream`.
    pub(super) fn new(upstream: Arc<Upstream>, cache: Arc<Cache>, namespace: Namespace) -> Self {
        Self { upstream, cache, namespace }
    }

    /// Reads a range.
    ///
    /// # Errors
    /// What the cluster says.
    pub(super) async fn range(&self, headers: &HeaderMap, call: &Outgoing, encoded: Bytes) -> Result<Bytes, Status> {
        let mut request: RangeRequest = decode(encoded.clone())?;
        let encoded = self.translated(&mut request, encoded, Namespace::prefix_range)?;
        let question = question(headers, &request);
        if request.serializable
            && let Some(answer) = self.cache.get(&question, request.revision)?
        {
            return Ok(answer);
        }
        let (since, mark) = (self.cache.now(), self.upstream.identity().mark());
        let answer = self.upstream.unary(&RANGE, call, encoded, true).await?;
        let revision = self.revision_of(&answer, (!request.serializable).then_some(mark));
        let answer = self.back(answer, Namespace::strip_range)?;
        self.cache.keep(question, &subject(&request), &Told { answer: answer.clone(), revision }, since);
        Ok(answer)
    }

    /// Rights have changed: nothing that was answered before is an answer now.
    pub(super) fn forget_answers(&self) {
        self.cache.forget_all();
    }

    /// Puts a pair.
    ///
    /// # Errors
    /// What the cluster says.
    pub(super) async fn put(&self, call: &Outgoing, encoded: Bytes) -> Result<Bytes, Status> {
        let mut request: PutRequest = decode(encoded.clone())?;
        let encoded = self.translated(&mut request, encoded, Namespace::prefix_put)?;
        let changed = [KeyRange::single(request.key)];
        let answer = self.change(&PUT, call, encoded, &changed).await?;
        self.back(answer, |namespace, answer: &mut PutResponse| namespace.strip_put(answer))
    }

    /// Deletes a range.
    ///
    /// # Errors
    /// What the cluster says.
    pub(super) async fn delete_range(&self, call: &Outgoing, encoded: Bytes) -> Result<Bytes, Status> {
        let mut request: DeleteRangeRequest = decode(encoded.clone())?;
        let encoded = self.translated(&mut request, encoded, Namespace::prefix_delete)?;
        let changed = [KeyRange::new(request.key, &request.range_end)];
        let answer = self.change(&DELETE_RANGE, call, encoded, &changed).await?;
        self.back(answer, |namespace, answer: &mut DeleteRangeResponse| namespace.strip_delete(answer))
    }

    /// Carries out a transaction. What it reads is kept.
    ///
    /// # Errors
    /// What the cluster says.
    pub(super) async fn txn(&self, headers: &HeaderMap, call: &Outgoing, encoded: Bytes) -> Result<Bytes, Status> {
        let mut request: TxnRequest = decode(encoded.clone())?;
        let encoded = self.translated(&mut request, encoded, Namespace::prefix_txn)?;
        let mut changed = Vec::new();
        collect_changes(&request, DEPTH_MAX, &mut changed);
        let since = self.cache.now();
        let answer = self.change(&TXN, call, encoded, &changed).await?;
        let answer = self.back(answer, Namespace::strip_txn)?;
        self.keep_reads(headers, &request, &changed, &answer, since)?;
        Ok(answer)
    }

    /// Compacts the past.
    ///
    /// # Errors
    /// What the cluster says.
    pub(super) async fn compact(&self, call: &Outgoing, encoded: Bytes) -> Result<Bytes, Status> {
        let request: CompactionRequest = decode(encoded.clone())?;
        let answer = self.upstream.unary(&COMPACT, call, encoded, false).await?;
        self.cache.compact(request.revision);
        Ok(answer)
    }

    /// Sends a request that changes keys. What is kept about them is given up before, because nobody may be told of the old
    /// after the change, and again behind it, because somebody may have been told of it meanwhile.
    async fn change(
        &self,
        path: &PathAndQuery,
        call: &Outgoing,
        request: Bytes,
        changed: &[KeyRange],
    ) -> Result<Bytes, Status> {
        self.invalidate(changed, 0);
        let mark = self.upstream.identity().mark();
        let answer = self.upstream.unary(path, call, request, false).await;
        // A transaction that changes nothing, whichever way it goes, may be answered by a member that lags.
        let mark = Some(mark).filter(|_| !changed.is_empty());
        let revision = answer.as_ref().map_or(0, |answer| self.revision_of(answer, mark));
        self.invalidate(changed, revision);
        answer
    }

    fn invalidate(&self, changed: &[KeyRange], revision: i64) {
        for range in changed {
            self.cache.invalidate(range, revision);
        }
    }

    /// The revision of the store when an answer was given. One that may not be stale, to a question put at `since`, shows
    /// whether the cluster is what it was.
    fn revision_of(&self, answer: &Bytes, since: Option<Mark>) -> i64 {
        let Some(header) = header_of(answer) else { return 0 };
        if let Some(since) = since {
            self.upstream.identity().see_present(&header, since);
        }
        header.revision
    }

    /// Keeps what a transaction has read, unless the transaction itself changed it.
    fn keep_reads(
        &self,
        headers: &HeaderMap,
        request: &TxnRequest,
        changed: &[KeyRange],
        answer: &Bytes,
        since: Moment,
    ) -> Result<(), Status> {
        // A compare tells that what was kept about its keys may be outdated.
        let compared: Vec<KeyRange> =
            request.compare.iter().map(|compare| KeyRange::new(compare.key.clone(), &compare.range_end)).collect();
        if request.compare.is_empty() && !request.success.iter().chain(&request.failure).any(is_read) {
            return Ok(());
        }
        let answer: TxnResponse = decode(answer.clone())?;
        let revision = answer.header.map_or(0, |header| header.revision);
        let operations = if answer.succeeded { &request.success } else { &request.failure };
        let mut reads = Vec::new();
        for (operation, outcome) in operations.iter().zip(answer.responses) {
            let (Some(Request::RequestRange(read)), Some(Response::ResponseRange(found))) =
                (&operation.request, outcome.response)
            else {
                continue;
            };
            let subject = subject(read);
            let is_stable = !changed.iter().any(|range| overlap(range, &subject.range));
            if is_stable && self.cache.is_unchanged(&subject.range, since) {
                reads.push((question(headers, read), subject, found));
            }
        }
        self.invalidate(&compared, 0);
        let since = self.cache.now().unless_forgotten_since(since);
        for (question, subject, found) in reads {
            self.cache.keep(question, &subject, &Told { answer: found.encode_to_vec().into(), revision }, since);
        }
        Ok(())
    }

    /// The request as it is sent on; as it came, unless there is a namespace.
    fn translated<M: Message>(
        &self,
        request: &mut M,
        encoded: Bytes,
        translate: impl Fn(&Namespace, &mut M) -> Result<(), Rejection>,
    ) -> Result<Bytes, Status> {
        if self.namespace.is_empty() {
            return Ok(encoded);
        }
        translate(&self.namespace, request)?;
        Ok(request.encode_to_vec().into())
    }

    /// The answer as the client gets it.
    fn back<M: Message + Default>(&self, answer: Bytes, strip: impl Fn(&Namespace, &mut M)) -> Result<Bytes, Status> {
        if self.namespace.is_empty() {
            return Ok(answer);
        }
        let mut answer: M = decode(answer)?;
        strip(&self.namespace, &mut answer);
        Ok(answer.encode_to_vec().into())
    }
}

/// What the answer to a read is kept under: whether or not the read itself may be stale.
fn question(headers: &HeaderMap, request: &RangeRequest) -> Question {
    let stale = RangeRequest { serializable: true, ..request.clone() };
    Question { token: Token::of(headers), request: stale.encode_to_vec().into() }
}

fn subject(request: &RangeRequest) -> Subject {
    Subject { range: KeyRange::new(request.key.clone(), &request.range_end), revision: request.revision }
}

fn is_read(operation: &RequestOp) -> bool {
    matches!(operation.request, Some(Request::RequestRange(_)))
}

/// Every key that a transaction may change, whichever way it goes.
fn collect_changes(request: &TxnRequest, depth: usize, changed: &mut Vec<KeyRange>) {
    let Some(below) = depth.checked_sub(1) else { return };
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            Some(Request::RequestPut(put)) => changed.push(KeyRange::single(put.key.clone())),
            Some(Request::RequestDeleteRange(delete)) => {
                changed.push(KeyRange::new(delete.key.clone(), &delete.range_end));
            }
            Some(Request::RequestTxn(txn)) => collect_changes(txn, below, changed),
            Some(Request::RequestRange(_)) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changes_of_a_transaction_are_those_of_all_its_branches() {
        let put = |key: &'static str| RequestOp {
            request: Some(Request::RequestPut(PutRequest {
                key: Bytes::from_static(key.as_bytes()),
                ..Default::default()
            })),
        };
        let inner = TxnRequest { failure: vec![put("c")], ..Default::default() };
        let request = TxnRequest {
            success: vec![put("a"), RequestOp { request: Some(Request::RequestTxn(inner)) }],
            failure: vec![put("b")],
            ..Default::default()
        };
        let mut changed = Vec::new();
        collect_changes(&request, DEPTH_MAX, &mut changed);
        let keys: Vec<&[u8]> = changed.iter().map(|range| &range.start[..]).collect();
        assert_eq!(keys, [&b"a"[..], b"c", b"b"]);
    }

    #[test]
    fn a_linearizable_read_is_kept_as_what_it_would_be_if_it_could_be_stale() {
        let headers = HeaderMap::new();
        let read = |serializable| RangeRequest { key: Bytes::from_static(b"k"), serializable, ..Default::default() };
        assert_eq!(question(&headers, &read(true)), question(&headers, &read(false)));
    }
}
