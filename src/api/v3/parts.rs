//! Ranges of any size in bounded memory.
//!
//! The engine says first how long the answer will be, to the byte; the answer then leaves piece by piece as the client
//! takes it. Every piece is by itself an encoded `RangeResponse`, so that whoever appends them reads the whole.

use std::{collections::VecDeque, fmt};

use bytes::Bytes;
use prost::Message as _;

use super::{
    Reply,
    session::{Session, Snapshot},
};
use crate::{
    api::{status::Status, wire::Outbound},
    mvcc::{RangePlan, ReadError, View},
    pb::etcdserverpb::{
        RangeRequest, RangeResponse,
        range_request::{SortOrder, SortTarget},
    },
    types::Code,
};

/// Size of a piece, overshot by at most one pair; answers up to this size are built in one go. A page of 500 pairs of
/// half a kilobyte, the list most clients ask for, costs one change of threads.
const PART_BYTES: usize = 256 * 1024;
/// Longest message gRPC clients can be sent.
const MESSAGE_BYTES_MAX: u64 = i32::MAX as u64;

/// A long answer on its way.
pub(crate) struct Parts {
    session: Session,
    message_bytes: u32,
    plan: Option<RangePlan<Snapshot>>,
    /// Pieces at hand: the header at first, the rest of the frame at last.
    ready: VecDeque<Bytes>,
    tail: Bytes,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("message_bytes", &self.message_bytes).finish_non_exhaustive()
    }
}

impl Parts {
    /// The begin of the message, the header included.
    pub(super) fn head(&self) -> &[u8] {
        self.ready.front().map(Bytes::as_ref).unwrap_or_default()
    }

    /// All of the message but for the pairs, and how long it is.
    pub(super) fn frame(&self) -> ([&[u8]; 2], usize) {
        ([self.head(), &self.tail], usize::try_from(self.message_bytes).unwrap_or(usize::MAX))
    }

    /// Sends everything.
    ///
    /// # Errors
    /// `Canceled` if the client goes away; what reading failed with.
    pub(crate) async fn send(mut self, outbound: &mut Outbound) -> Result<(), Status> {
        outbound.begin_parts(self.message_bytes).await?;
        while let Some(part) = self.next().await? {
            outbound.send_part(part).await?;
        }
        Ok(())
    }

    /// The next piece, an encoded `RangeResponse` with some of the fields; nothing at the end.
    ///
    /// # Errors
    /// What reading failed with.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        if let Some(part) = self.ready.pop_front() {
            return Ok(Some(part));
        }
        let Some(mut plan) = self.plan.take() else { return Ok(None) };
        let (plan, part) = self
            .session
            .blocking(move || {
                let part = next_part(&mut plan);
                (plan, part)
            })
            .await?;
        let part = part?;
        if part.is_empty() {
            return Ok(Some(std::mem::take(&mut self.tail)).filter(|tail| !tail.is_empty()));
        }
        self.plan = Some(plan);
        Ok(Some(part))
    }
}

/// Reads an interval: in one piece if it is small or must be sorted, in parts otherwise.
pub(super) async fn read(session: &Session, view: View<Snapshot>, request: RangeRequest) -> Result<Reply, Status> {
    let header = session.header(view.revision());
    let in_key_order = is_in_key_order(&request);
    let read = move || -> Result<Read, ReadError> {
        if in_key_order { prepare(&view, &request) } else { view.range(&request).map(Read::Whole) }
    };
    match session.blocking(read).await?? {
        Read::Whole(mut answer) => {
            answer.header = Some(header);
            check_length(answer.encoded_len() as u64)?;
            Ok(Reply::of(&answer))
        }
        Read::Planned(plan, first) => {
            let (head, tail) = split(plan.frame(), |head| head.header = Some(header));
            let message_bytes = check_length(head.len() as u64 + plan.kvs_bytes() + tail.len() as u64)?;
            let ready = [head, first].into();
            let parts = Parts { session: session.clone(), message_bytes, plan: Some(*plan), ready, tail };
            Ok(Reply::Parts(Box::new(parts)))
        }
    }
}

enum Read {
    Whole(RangeResponse),
    /// With the first piece.
    Planned(Box<RangePlan<Snapshot>>, Bytes),
}

fn prepare(view: &View<Snapshot>, request: &RangeRequest) -> Result<Read, ReadError> {
    let mut plan = view.plan(request)?;
    if plan.kvs_bytes() > PART_BYTES as u64 {
        let first = next_part(&mut plan)?;
        return Ok(Read::Planned(Box::new(plan), first));
    }
    let kvs = plan.next_chunk(usize::MAX, usize::MAX)?;
    Ok(Read::Whole(RangeResponse { kvs, ..plan.frame().clone() }))
}

/// Whether the answer's order is the order of the keys, and no filter needs to see all pairs first.
fn is_in_key_order(request: &RangeRequest) -> bool {
    let ordered = match request.sort_order() {
        SortOrder::None | SortOrder::Ascend => request.sort_target() == SortTarget::Key,
        SortOrder::Descend => false,
    };
    let filters =
        [request.min_mod_revision, request.max_mod_revision, request.min_create_revision, request.max_create_revision];
    ordered && filters.into_iter().all(|bound| bound == 0)
}

/// The frame in two encoded halves: the header before the pairs, `more` and `count` behind them.
fn split(frame: &RangeResponse, complete: impl FnOnce(&mut RangeResponse)) -> (Bytes, Bytes) {
    let mut head = RangeResponse::default();
    complete(&mut head);
    let tail = RangeResponse { more: frame.more, count: frame.count, ..Default::default() };
    (head.encode_to_vec().into(), tail.encode_to_vec().into())
}

fn next_part(plan: &mut RangePlan<Snapshot>) -> Result<Bytes, ReadError> {
    let kvs = plan.next_chunk(usize::MAX, PART_BYTES)?;
    let part = RangeResponse { kvs, ..Default::default() };
    Ok(part.encode_to_vec().into())
}

fn check_length(message_bytes: u64) -> Result<u32, Status> {
    let too_long = || {
        let text = format!("grpc: trying to send message larger than max ({message_bytes} vs. {MESSAGE_BYTES_MAX})");
        Status::new(Code::ResourceExhausted, text)
    };
    u32::try_from(message_bytes).ok().filter(|_| message_bytes <= MESSAGE_BYTES_MAX).ok_or_else(too_long)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::{etcdserverpb::ResponseHeader, mvccpb::KeyValue};

    #[test]
    fn parts_appended_are_the_whole_message() {
        let header = ResponseHeader { revision: 7, ..Default::default() };
        let frame = RangeResponse { more: true, count: 9, ..Default::default() };
        let (head, tail) = split(&frame, |head| head.header = Some(header));
        let kv = KeyValue { key: Bytes::from_static(b"k"), ..Default::default() };
        let middle = RangeResponse { kvs: vec![kv.clone()], ..Default::default() }.encode_to_vec();
        let whole = RangeResponse { header: Some(header), kvs: vec![kv], more: true, count: 9 };
        assert_eq!([&head[..], &middle, &tail].concat(), whole.encode_to_vec());
    }

    #[test]
    fn messages_beyond_two_gigabytes_are_refused_in_grpcs_words() {
        assert_eq!(check_length(MESSAGE_BYTES_MAX), Ok(i32::MAX as u32));
        let status = check_length(MESSAGE_BYTES_MAX + 1).unwrap_err();
        assert_eq!(status.message(), "grpc: trying to send message larger than max (2147483648 vs. 2147483647)");
    }

    #[test]
    fn only_key_order_is_streamed() {
        let request = |order, target| RangeRequest { sort_order: order, sort_target: target, ..Default::default() };
        assert!(is_in_key_order(&request(0, 0)));
        assert!(is_in_key_order(&request(1, 0)));
        assert!(!is_in_key_order(&request(0, 2)));
        assert!(!is_in_key_order(&request(2, 0)));
        assert!(!is_in_key_order(&RangeRequest { min_mod_revision: 1, ..request(0, 0) }));
    }
}
