//! From a delivery to the bytes of `WatchResponse` messages.

use bytes::{Buf, BufMut, Bytes};
use prost::{
    Message,
    encoding::{WireType, decode_varint, encode_key, encode_varint, encoded_len_varint},
};

use super::{Body, Delivery};
use crate::pb::etcdserverpb::{ResponseHeader, WatchResponse};

/// The parts of a response header that are the same for all responses of a member at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The cluster.
    pub cluster_id: u64,
    /// The answering member.
    pub member_id: u64,
    /// Its term as of the last applied entry.
    pub raft_term: u64,
}

/// One `WatchResponse` about to be encoded: a few numbers and the shared bytes of the events.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    header: ResponseHeader,
    watch_id: i64,
    created: bool,
    canceled: bool,
    compact_revision: i64,
    cancel_reason: std::borrow::Cow<'static, str>,
    fragment: bool,
    events: Bytes,
}

/// The frames of one delivery.
#[derive(Debug)]
pub struct Frames {
    frame: Option<Frame>,
    /// Where a response is split; `None` if it is sent whole.
    split_at: Option<usize>,
}

impl Delivery {
    /// The frames to send: one, or several if the client accepts fragments and two or more events reach `split_at`
    /// encoded bytes together (etcd: `max-request-bytes` + 512 KiB). A single event is never split.
    pub fn frames(self, header: Header, split_at: usize) -> Frames {
        let Header { cluster_id, member_id, raft_term } = header;
        let header = ResponseHeader { cluster_id, member_id, revision: self.revision, raft_term };
        self.body.frames(header, self.watch_id, split_at)
    }
}

impl Body {
    /// As [`Delivery::frames`], for whoever keeps streams of its own.
    pub fn frames(self, header: ResponseHeader, watch_id: i64, split_at: usize) -> Frames {
        let mut frame = Frame {
            header,
            watch_id,
            created: false,
            canceled: false,
            compact_revision: 0,
            cancel_reason: "".into(),
            fragment: false,
            events: Bytes::new(),
        };
        let mut may_split = false;
        match self {
            Body::Created => frame.created = true,
            Body::Refused(reason) => {
                (frame.created, frame.canceled) = (true, true);
                frame.cancel_reason = reason;
            }
            Body::Canceled => frame.canceled = true,
            Body::Ended(reason) => (frame.canceled, frame.cancel_reason) = (true, reason),
            Body::Compacted { compact_revision } => {
                frame.canceled = true;
                frame.compact_revision = compact_revision;
            }
            Body::Progress => {}
            Body::Events { events, fragment } => (frame.events, may_split) = (events, fragment),
        }
        let split_at = Some(split_at).filter(|limit| may_split && frame.encoded_len() >= *limit);
        Frames { frame: Some(frame), split_at }
    }
}

impl Iterator for Frames {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        let mut frame = self.frame.take()?;
        if let Some(limit) = self.split_at {
            let rest = frame.split(limit);
            self.frame = rest;
        }
        Some(frame)
    }
}

impl Frame {
    /// The answer to a request to create a watcher: its number, or why there is none.
    pub fn creation(&self) -> Option<Result<i64, &str>> {
        let answer = || if self.canceled { Err(self.cancel_reason.as_ref()) } else { Ok(self.watch_id) };
        self.created.then(answer)
    }

    /// The watcher that is gone although its client did not wish so, and why; the reason of a compaction is empty.
    pub fn loss(&self) -> Option<(i64, &str)> {
        let is_wish = self.cancel_reason.is_empty() && self.compact_revision == 0;
        (self.canceled && !self.created && !is_wish).then_some((self.watch_id, self.cancel_reason.as_ref()))
    }

    /// Bytes that [`Frame::encode`] writes.
    pub fn encoded_len(&self) -> usize {
        let flags = [self.created, self.canceled, self.fragment].into_iter().filter(|flag| *flag).count() * 2;
        let reason = self.cancel_reason.len();
        let reason = if reason == 0 { 0 } else { 1 + encoded_len_varint(reason as u64) + reason };
        let header = self.header.encoded_len();
        1 + encoded_len_varint(header as u64)
            + header
            + number_len(self.watch_id)
            + number_len(self.compact_revision)
            + flags
            + reason
            + self.events.len()
    }

    /// Writes the message, byte for byte as a `WatchResponse` of the same contents would be.
    pub fn encode(&self, out: &mut impl BufMut) {
        encode_key(1, WireType::LengthDelimited, out);
        encode_varint(self.header.encoded_len() as u64, out);
        self.header.encode_raw(out);
        encode_number(2, self.watch_id, out);
        encode_number(3, self.created.into(), out);
        encode_number(4, self.canceled.into(), out);
        encode_number(5, self.compact_revision, out);
        if !self.cancel_reason.is_empty() {
            encode_key(6, WireType::LengthDelimited, out);
            encode_varint(self.cancel_reason.len() as u64, out);
            out.put_slice(self.cancel_reason.as_bytes());
        }
        encode_number(7, self.fragment.into(), out);
        out.put_slice(&self.events);
    }

    /// The message as a value, for the gateway and for callers inside this process.
    ///
    /// # Panics
    /// Never: the events were encoded in this process.
    pub fn to_response(&self) -> WatchResponse {
        let mut response = WatchResponse {
            header: Some(self.header),
            watch_id: self.watch_id,
            created: self.created,
            canceled: self.canceled,
            compact_revision: self.compact_revision,
            cancel_reason: self.cancel_reason.clone().into_owned(),
            fragment: self.fragment,
            events: Vec::new(),
        };
        response.merge(self.events.clone()).expect("the events were encoded in this process");
        response
    }

    /// Keeps the first events, fewer than `limit` encoded bytes together or one event alone, and returns the rest.
    /// Marks itself as a fragment if there is a rest.
    fn split(&mut self, limit: usize) -> Option<Self> {
        self.fragment = true;
        let around = self.encoded_len() - self.events.len();
        let mut kept = 0;
        while let Some(event) = self.events.get(kept..).and_then(first_event_len) {
            if kept > 0 && around + kept + event >= limit {
                let mut rest = self.clone();
                rest.events = self.events.split_off(kept);
                return Some(rest);
            }
            kept += event;
        }
        self.fragment = false;
        None
    }
}

/// Bytes of the first event, tag and length included.
fn first_event_len(events: &[u8]) -> Option<usize> {
    let mut rest = events;
    decode_varint(&mut rest).ok()?;
    let body = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
    let head = events.len() - rest.remaining();
    (body <= rest.remaining()).then_some(head + body)
}

#[expect(clippy::cast_sign_loss, reason = "protobuf writes an int64 as the varint of its two's complement")]
fn number_len(value: i64) -> usize {
    if value == 0 { 0 } else { 1 + encoded_len_varint(value as u64) }
}

#[expect(clippy::cast_sign_loss, reason = "protobuf writes an int64 as the varint of its two's complement")]
fn encode_number(field: u32, value: i64, out: &mut impl BufMut) {
    if value != 0 {
        encode_key(field, WireType::Varint, out);
        encode_varint(value as u64, out);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{
        super::{
            StreamId,
            encode::{Batch, Cut, Run},
            slab::Slab,
        },
        *,
    };
    use crate::{
        mvcc::Changes,
        pb::mvccpb::{Event, KeyValue},
    };

    const HEADER: Header = Header { cluster_id: u64::MAX, member_id: 0x8e9e_05c5_2164_694d, raft_term: 2 };

    fn delivery(watch_id: i64, revision: i64, body: Body) -> Delivery {
        Delivery { stream: StreamId(Slab::default().insert(())), watch_id, revision, body }
    }

    fn events(count: u8, value: usize) -> Vec<Event> {
        let kv = |n: u8| KeyValue { key: vec![b'k', n].into(), value: vec![0; value].into(), ..KeyValue::default() };
        (0..count).map(|n| Event { kv: Some(kv(n)), ..Event::default() }).collect()
    }

    fn with_events(events: Vec<Event>, fragment: bool) -> Delivery {
        let all = Run::first(events.len());
        let batch = Batch::new(Arc::new(Changes { revision: 9, events }));
        delivery(3, 9, Body::Events { events: batch.select(&[all], Cut::default()).bytes, fragment })
    }

    fn encoded(frame: &Frame) -> Vec<u8> {
        let mut out = Vec::new();
        frame.encode(&mut out);
        assert_eq!(out.len(), frame.encoded_len());
        out
    }

    #[test]
    fn frames_are_encoded_watch_responses() {
        let bodies = [
            Body::Created,
            Body::Refused("mvcc: watcher range is empty".into()),
            Body::Canceled,
            Body::Ended("etcdserver: invalid auth token".into()),
            Body::Compacted { compact_revision: 500 },
            Body::Progress,
        ];
        let mut deliveries: Vec<_> = bodies.into_iter().map(|body| delivery(-1, 77, body)).collect();
        deliveries.push(with_events(events(3, 10), false));
        for delivery in deliveries {
            let frames: Vec<Frame> = delivery.frames(HEADER, 1 << 20).collect();
            let [frame] = &frames[..] else { panic!("one frame expected") };
            assert_eq!(encoded(frame), frame.to_response().encode_to_vec());
        }
    }

    #[test]
    fn refusal_says_created_and_canceled() {
        let frame = delivery(-1, 5, Body::Refused("x".into())).frames(HEADER, 100).next().unwrap().to_response();
        assert_eq!((frame.created, frame.canceled, frame.watch_id, &frame.cancel_reason[..]), (true, true, -1, "x"));
    }

    #[test]
    fn large_response_is_split_between_events_if_the_client_accepts() {
        let all = events(10, 100);
        let frames: Vec<Frame> = with_events(all.clone(), true).frames(HEADER, 400).collect();
        assert!(frames.len() > 2);
        assert!(frames.iter().all(|frame| frame.encoded_len() < 400));
        let flags: Vec<bool> = frames.iter().map(|frame| frame.to_response().fragment).collect();
        assert_eq!(flags.iter().filter(|flag| !**flag).count(), 1, "all but the last are fragments");
        assert_eq!(flags.last(), Some(&false));
        let joined: Vec<Event> = frames.iter().flat_map(|frame| frame.to_response().events).collect();
        assert_eq!(joined, all);
        for frame in &frames {
            assert_eq!(encoded(frame), frame.to_response().encode_to_vec());
        }
    }

    #[test]
    fn frames_say_what_became_of_a_watcher() {
        let frame = |body| delivery(3, 9, body).frames(HEADER, 400).next().unwrap();
        let told = [
            Body::Created,
            Body::Refused("why".into()),
            Body::Canceled,
            Body::Ended("why".into()),
            Body::Compacted { compact_revision: 5 },
            Body::Progress,
        ]
        .map(frame);
        assert_eq!(told.each_ref().map(Frame::creation), [Some(Ok(3)), Some(Err("why")), None, None, None, None]);
        assert_eq!(told.each_ref().map(Frame::loss), [None, None, None, Some((3, "why")), Some((3, "")), None]);
    }

    #[test]
    fn response_is_sent_whole_unless_fragments_are_accepted_and_needed() {
        assert_eq!(with_events(events(10, 100), false).frames(HEADER, 400).count(), 1);
        assert_eq!(with_events(events(10, 100), true).frames(HEADER, 4_000).count(), 1);
        assert_eq!(with_events(events(1, 1_000), true).frames(HEADER, 400).count(), 1, "one event is never split");
    }

    #[test]
    fn large_events_go_one_by_one() {
        let frames: Vec<Frame> = with_events(events(3, 1_000), true).frames(HEADER, 400).collect();
        assert_eq!(frames.iter().map(|frame| frame.to_response().events.len()).collect::<Vec<_>>(), [1, 1, 1]);
    }
}
