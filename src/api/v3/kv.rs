//! `etcdserverpb.KV`: ranges, puts, deletes, transactions, compaction.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use prost::Message as _;

use super::{
    Reply, Session, call, decode, only_request, parts,
    session::{observe, was_applied, word},
    undecodable,
};
use crate::{
    api::{
        status::Status,
        wire::{Inbound, Outbound},
    },
    apply::{Response, quota_cost},
    clock::Stopwatch,
    membership::Version,
    metrics::{self, Histogram},
    mvcc::check,
    pb::etcdserverpb::{
        CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, InternalRaftRequest,
        PutRequest, PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, RequestOp, TxnRequest, TxnResponse,
        range_request::{SortOrder, SortTarget},
        request_op::Request,
    },
    pb::nested::{self, NestedError},
    types::Rejection,
};

/// Most operations and compares of a read-only transaction that is answered without leaving the worker thread.
const POINT_READS_MAX: usize = 16;
/// The cluster version whose members all check the ranges of every transaction.
const RANGES_CHECKED_SINCE: Version = Version::minor(3, 7);
/// Pairs in the first message of a stream.
const STREAM_KVS_FIRST: usize = 10;

/// Reads an interval.
pub(super) async fn range(session: Session, request: Bytes) -> Result<Reply, Status> {
    let request: RangeRequest = decode(request)?;
    session.tell(&request);
    session.admit(call::UNARY, request.serializable)?;
    let arrived = Stopwatch::start();
    let mut begun = None;
    let outcome = read_range(&session, request, arrived, &mut begun).await;
    let took = arrived.elapsed();
    if let Some(begun) = begun {
        let reading = took.saturating_sub(arrived.until(&begun));
        range_times(outcome.is_ok()).observe(reading);
    }
    observe("Range", outcome.is_ok(), took);
    outcome
}

/// Reads an interval for a request that has `arrived`. `begun` is set when the state is read, from the last look at the
/// clock before that.
async fn read_range(
    session: &Session,
    request: RangeRequest,
    arrived: Stopwatch,
    begun: &mut Option<Stopwatch>,
) -> Result<Reply, Status> {
    check::check_range(&request)?;
    if request.serializable || session.reads_at_once() {
        *begun = Some(arrived);
    } else {
        session.linearize().await?;
        *begun = Some(Stopwatch::start());
    }
    let reading = session.reading().await?;
    let view = reading.range(&request)?;
    if !request.range_end.is_empty() {
        metrics::MVCC_RANGE.inc();
        return parts::read(session, view.clone(), request).await;
    }
    let mut answer = view.range(&request)?;
    metrics::MVCC_RANGE.inc();
    session.complete(&mut answer.header);
    Ok(Reply::of(&answer))
}

/// Reads an interval in messages of bounded size, all at one revision.
pub(super) async fn range_stream(
    session: &Session,
    mut inbound: Inbound,
    outbound: &mut Outbound,
) -> Result<(), Status> {
    let request: RangeRequest = only_request(session, &mut inbound).await?;
    session.admit_stream()?;
    check_streamable(&request)?;
    if !request.serializable {
        session.linearize().await?;
    }
    tokio::select! {
        sent = send_range(session, request, outbound) => sent,
        cut = session.cut() => Err(cut),
    }
}

/// What a stream adds to the checks of a range: key order and no filters.
fn check_streamable(request: &RangeRequest) -> Result<(), Status> {
    check::check_range(request)?;
    let ascending = request.sort_order() == SortOrder::Ascend && request.sort_target() == SortTarget::Key;
    if request.sort_order() != SortOrder::None && !ascending {
        return Err(Status::unimplemented("RangeStream does not support custom sort orders"));
    }
    let filters =
        [request.min_mod_revision, request.max_mod_revision, request.min_create_revision, request.max_create_revision];
    if filters.into_iter().any(|bound| bound != 0) {
        return Err(Status::unimplemented("RangeStream does not support revision filters"));
    }
    Ok(())
}

/// Sends the pairs in chunks that grow and shrink towards the size of one request; the last one carries the frame.
async fn send_range(session: &Session, mut request: RangeRequest, outbound: &mut Outbound) -> Result<(), Status> {
    let reading = session.reading().await?;
    let view = reading.range(&request)?.clone();
    drop(reading);
    // Sorting by another target without an order is key order here: a stream has no place to sort.
    request.set_sort_target(SortTarget::Key);
    let mut plan = session.blocking(move || view.plan(&request)).await??;
    let mut kvs_max = STREAM_KVS_FIRST;
    let mut left = plan.kvs();
    loop {
        let reading = Stopwatch::start();
        let (back, chunk) = session
            .blocking(move || {
                let chunk = plan.next_chunk(kvs_max, usize::MAX);
                (plan, chunk)
            })
            .await?;
        plan = back;
        range_times(chunk.is_ok()).observe(reading.elapsed());
        let kvs = chunk?;
        left = left.saturating_sub(kvs.len() as u64);
        let last = left == 0 || kvs.is_empty();
        let mut message = if last { plan.frame().clone() } else { RangeResponse::default() };
        if last {
            session.complete(&mut message.header);
        }
        message.kvs = kvs;
        let bytes = message.encoded_len();
        outbound.send(RangeStreamResponse { range_response: Some(message) }.encode_to_vec().into()).await?;
        if last {
            return Ok(());
        }
        kvs_max = next_chunk(kvs_max, bytes, session.request_bytes_max());
    }
}

/// How many pairs the next chunk may hold after one of `bytes`.
fn next_chunk(kvs_max: usize, bytes: usize, target_bytes: usize) -> usize {
    if bytes < target_bytes / 2 {
        kvs_max.saturating_mul(2)
    } else if bytes > target_bytes.saturating_mul(2) {
        (kvs_max / 2).max(1)
    } else {
        kvs_max
    }
}

/// Puts one pair.
pub(super) async fn put(session: Session, request: PutRequest) -> Result<PutResponse, Status> {
    let checked = check::check_put(&request);
    let proposal = InternalRaftRequest { put: Some(request), ..Default::default() };
    session.check_quota(quota_cost(&proposal)).await?;
    checked?;
    match session.propose("Put", proposal).await? {
        Response::Put(mut answer) => {
            session.complete(&mut answer.header);
            Ok(answer)
        }
        other => Err(unexpected(&other)),
    }
}

/// Deletes an interval.
pub(super) async fn delete_range(session: Session, request: DeleteRangeRequest) -> Result<DeleteRangeResponse, Status> {
    check::check_delete_range(&request)?;
    let proposal = InternalRaftRequest { delete_range: Some(request), ..Default::default() };
    match session.propose("DeleteRange", proposal).await? {
        Response::DeleteRange(mut answer) => {
            session.complete(&mut answer.header);
            Ok(answer)
        }
        other => Err(unexpected(&other)),
    }
}

/// Carries out a transaction; one that only reads needs no entry in the log.
pub(super) async fn txn(session: Session, request: Bytes) -> Result<Reply, Status> {
    let request = match nested::decode_txn(&request) {
        Err(NestedError::Decode(error)) => return Err(undecodable(&error)),
        // etcd counts the levels as operations.
        Err(NestedError::TooDeep) => Err(Rejection::TooManyOps),
        Ok(request) => {
            session.tell(&request);
            Ok(request)
        }
    };
    session.admit(call::UNARY, false)?;
    carry_out_txn(&session, request?).await.map(|answer| Reply::of(&answer))
}

/// Carries out a transaction that was read.
pub(super) async fn carry_out_txn(session: &Session, request: TxnRequest) -> Result<TxnResponse, Status> {
    let checked = check::check_txn(&request, session.txn_ops_max());
    if checked.is_ok() && check::is_read_only(&request) {
        let watch = Stopwatch::start();
        let outcome = read_txn(session, request).await;
        observe("ReadonlyTxn", outcome.is_ok(), watch.elapsed());
        return outcome;
    }
    let unsafe_there = checked.is_ok() && check::names_revisions(&request) && !all_check_ranges(session);
    let to_be_checked = unsafe_there.then(|| request.clone());
    let proposal = InternalRaftRequest { txn: Some(request), ..Default::default() };
    session.check_quota(quota_cost(&proposal)).await?;
    checked?;
    if let Some(request) = to_be_checked {
        check_ranges(session, request).await?;
    }
    match session.propose("Txn", proposal).await? {
        Response::Txn(mut answer) => {
            session.complete(&mut answer.header);
            Ok(answer)
        }
        other => Err(unexpected(&other)),
    }
}

/// Whether every member refuses a transaction for what its ranges read. Members of etcd before 3.7 leave the ranges out of
/// what others have proposed, and carry out what everybody else refuses.
fn all_check_ranges(session: &Session) -> bool {
    session.for_everybody().published().cluster.version().is_some_and(|version| version >= RANGES_CHECKED_SINCE)
}

/// Refuses a transaction for what its ranges read before it is proposed. What is compacted between here and its entry is
/// refused there, as it would be if another member of etcd had proposed it.
async fn check_ranges(session: &Session, request: TxnRequest) -> Result<(), Status> {
    session.linearize().await?;
    // Who is told that a revision is compacted learns nothing of keys.
    let view = session.for_everybody().published().view.clone();
    Ok(session.blocking(move || view.check_ranges(&request)).await??)
}

async fn read_txn(session: &Session, request: TxnRequest) -> Result<TxnResponse, Status> {
    if !check::is_serializable(&request) {
        session.linearize().await?;
    }
    let reading = session.reading().await?;
    let view = reading.txn(&request)?;
    let mut answer = if reads_points(&request) {
        view.read_txn(&request)?
    } else {
        let view = view.clone();
        session.blocking(move || view.read_txn(&request)).await??
    };
    metrics::MVCC_RANGE.add(answer.responses.len() as u64);
    if answer.responses.len() > 1 {
        metrics::MVCC_TXN.inc();
    }
    session.complete(&mut answer.header);
    Ok(answer)
}

/// Reads a range whose answer is small, however many keys it looks at.
pub(super) async fn read(session: &Session, request: RangeRequest) -> Result<RangeResponse, Status> {
    check::check_range(&request)?;
    session.linearize().await?;
    let view = session.reading().await?.range(&request)?.clone();
    let mut answer = session.blocking(move || view.range(&request)).await??;
    metrics::MVCC_RANGE.inc();
    session.complete(&mut answer.header);
    Ok(answer)
}

/// Whether a read-only transaction looks at a few single keys only.
fn reads_points(request: &TxnRequest) -> bool {
    let ops = || request.success.iter().chain(&request.failure);
    let point =
        |op: &RequestOp| matches!(&op.request, Some(Request::RequestRange(range)) if range.range_end.is_empty());
    ops().count() + request.compare.len() <= POINT_READS_MAX
        && request.compare.iter().all(|compare| compare.range_end.is_empty())
        && ops().all(point)
}

/// Gives up history below a revision.
pub(super) async fn compact(session: Session, request: CompactionRequest) -> Result<CompactionResponse, Status> {
    let server = session.for_admins().await?;
    let watch = Stopwatch::start();
    let outcome = server.compact(request).await;
    observe("Compaction", was_applied(&outcome), watch.elapsed());
    let mut answer = outcome?;
    session.complete(&mut answer.header);
    Ok(answer)
}

/// Looked up once: a small range takes microseconds.
fn range_times(success: bool) -> &'static Histogram {
    static GOOD: OnceLock<Arc<Histogram>> = OnceLock::new();
    static BAD: OnceLock<Arc<Histogram>> = OnceLock::new();
    let kept = if success { &GOOD } else { &BAD };
    kept.get_or_init(|| metrics::RANGE_DURATION.with([word(success)]))
}

/// An answer that does not belong to the request: a defect of this program, of which nobody needs to see keys and values.
pub(super) fn unexpected(response: &Response) -> Status {
    Status::unknown(format!("apply answered with {}", variant(response)))
}

/// What kind of answer it is.
fn variant(response: &Response) -> String {
    let shown = format!("{response:?}");
    shown.split(|character: char| !character.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Code;

    #[test]
    fn streams_refuse_orders_and_filters_in_etcds_words() {
        let refused = |request: RangeRequest| check_streamable(&request).unwrap_err();
        let key = Bytes::from_static(b"k");
        let by_value = RangeRequest { key: key.clone(), sort_order: 1, sort_target: 4, ..Default::default() };
        assert_eq!(refused(by_value).message(), "RangeStream does not support custom sort orders");
        let filtered = RangeRequest { key: key.clone(), max_create_revision: 1, ..Default::default() };
        assert_eq!(refused(filtered.clone()).message(), "RangeStream does not support revision filters");
        assert_eq!(refused(filtered).code(), Code::Unimplemented);
        let ascending = RangeRequest { key: key.clone(), sort_order: 1, ..Default::default() };
        assert_eq!(check_streamable(&ascending), Ok(()));
        let unordered = RangeRequest { key, sort_target: 3, ..Default::default() };
        assert_eq!(check_streamable(&unordered), Ok(()));
    }

    #[test]
    fn chunks_aim_at_the_size_of_a_request() {
        assert_eq!(next_chunk(10, 400, 1_000), 20);
        assert_eq!(next_chunk(10, 500, 1_000), 10);
        assert_eq!(next_chunk(10, 2_001, 1_000), 5);
        assert_eq!(next_chunk(1, 5_000, 1_000), 1);
    }
}
