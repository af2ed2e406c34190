//! Calls that took long (`warning-unary-request-duration`): the log says so in etcd's words.
//!
//! What is shown of a request is its text without values ([`request_text`](super::request_text)). A call in time costs two
//! looks at the clock.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use prost::{
    Message,
    encoding::{decode_key, decode_varint},
};

use super::{
    Call, Reply,
    request_text::{put_delete, put_put, put_range, put_txn},
};
use crate::{
    api::{
        Api,
        audit::{Caller, Via},
    },
    clock::{self, Clock as _, Stopwatch},
    pb::nested::{decode_txn, next_field},
};

/// A call whose time is taken.
pub(super) struct Slow {
    limit: Duration,
    begun: Stopwatch,
    method: &'static str,
    request: Bytes,
    caller: Option<SocketAddr>,
    via: Via,
    ended: bool,
}

/// How many things are asked or answered, how many bytes that takes, and what it is about; of what etcd does not count, -1.
#[derive(Default)]
struct Stats {
    asked: (i64, i64),
    answered: (i64, i64),
    content: String,
}

impl Slow {
    /// A call begins.
    pub(super) fn begin(api: &Api, call: &Call, method: &'static str, request: &Bytes) -> Self {
        let Caller { from, via, .. } = *call.caller();
        let limit = api.options().warn_unary;
        let (begun, request) = (Stopwatch::start(), request.clone());
        Self { limit, begun, method, request, caller: from, via, ended: false }
    }

    /// It has ended, with an answer if it did not fail.
    pub(super) fn end(mut self, answer: Option<&Reply>) {
        self.finish(answer);
    }

    fn finish(&mut self, answer: Option<&Reply>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let took = self.begun.elapsed();
        if took > self.limit {
            self.tell(took, answer);
        }
    }

    fn tell(&self, took: Duration, answer: Option<&Reply>) {
        let Stats { asked, answered, content } = self.stats(answer);
        let begun = SystemTime::UNIX_EPOCH + clock::system().wall().saturating_sub(took);
        let remote = match (self.caller, self.via) {
            (Some(from), _) => SocketAddr::new(from.ip().to_canonical(), from.port()).to_string(),
            // What Go's programs show of a socket file.
            (None, Via::Grpc) => "@".to_owned(),
            (None, _) => "No remote client info.".to_owned(),
        };
        tracing::warn!(
            {
                "start time" = %humantime::format_rfc3339_millis(begun),
                "time spent" = ?took,
                remote,
                "response type" = self.method,
                "request count" = asked.0,
                "request size" = asked.1,
                "response count" = answered.0,
                "response size" = answered.1,
                "request content" = content
            },
            "request stats"
        );
    }

    /// What etcd counts of the four methods of keys.
    fn stats(&self, answer: Option<&Reply>) -> Stats {
        let ([head, tail], bytes) = answer.map_or(([&[][..]; 2], 0), Reply::frame);
        let answered = |field| number(field, head).or_else(|| number(field, tail)).unwrap_or_default().cast_signed();
        let stats = |asked: i64, answered: i64, content: Option<String>| {
            let content = content.unwrap_or_default();
            Stats { asked: (asked, size(self.request.len())), answered: (answered, size(bytes)), content }
        };
        match self.method {
            "/etcdserverpb.KV/Range" => stats(0, answered(4), decoded(&self.request, put_range)),
            "/etcdserverpb.KV/Put" => stats(1, 0, decoded(&self.request, put_put)),
            "/etcdserverpb.KV/DeleteRange" => stats(0, answered(2), decoded(&self.request, put_delete)),
            "/etcdserverpb.KV/Txn" => {
                // Only the answer says which branch it was.
                let Some(request) = answer.and_then(|_| decode_txn(&self.request).ok()) else {
                    return Stats::default();
                };
                let branch = if answered(2) == 0 { &request.failure } else { &request.success };
                let bytes = branch.iter().map(Message::encoded_len).sum();
                Stats { asked: (size(branch.len()), size(bytes)), ..stats(0, 0, Some(shown(&request, put_txn))) }
            }
            _ => Stats { asked: (-1, -1), answered: (-1, -1), content: String::new() },
        }
    }
}

/// Whoever does not wait for the end has waited long enough, most often.
impl Drop for Slow {
    fn drop(&mut self) {
        self.finish(None);
    }
}

fn size(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A number in an encoded message.
fn number(field: u32, message: &[u8]) -> Option<u64> {
    let mut rest = message;
    loop {
        let mut found = rest;
        let next = next_field(&mut rest)?;
        if next.number == field && next.body.is_none() {
            decode_key(&mut found).ok()?;
            return decode_varint(&mut found).ok();
        }
    }
}

fn decoded<M: Message + Default>(request: &Bytes, put: fn(&mut String, &M)) -> Option<String> {
    M::decode(request.clone()).ok().map(|request| shown(&request, put))
}

fn shown<M>(request: &M, put: fn(&mut String, &M)) -> String {
    let mut text = String::new();
    put(&mut text, request);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::etcdserverpb::{
        PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse,
        request_op::Request,
    };

    fn stats(method: &'static str, request: &impl Message, answer: Option<&Reply>) -> Stats {
        let request = request.encode_to_vec().into();
        let (limit, begun, caller, via) = (Duration::MAX, Stopwatch::start(), None, Via::Grpc);
        Slow { limit, begun, method, request, caller, via, ended: false }.stats(answer)
    }

    #[test]
    fn what_is_asked_and_answered_is_counted_as_by_etcd_and_shows_no_value() {
        let header = Some(ResponseHeader { revision: 7, ..Default::default() });
        let put = PutRequest { key: "k".into(), value: "geheim".into(), ..Default::default() };
        let answer = PutResponse { header, prev_kv: None };
        let told = stats("/etcdserverpb.KV/Put", &put, Some(&Reply::of(&answer)));
        assert_eq!((told.asked, told.answered), ((1, 11), (0, size(answer.encoded_len()))));
        assert_eq!(told.content, "key:\"k\" value_size:6 ");
        let range = RangeRequest { key: "a".into(), range_end: "b".into(), ..Default::default() };
        let answer = RangeResponse { header, count: 300, ..Default::default() };
        let told = stats("/etcdserverpb.KV/Range", &range, Some(&Reply::of(&answer)));
        assert_eq!((told.asked, told.answered.0), ((0, 6), 300));
        assert_eq!(told.content, "key:\"a\" range_end:\"b\"");
        let put = RequestOp { request: Some(Request::RequestPut(put)) };
        let txn = TxnRequest { success: vec![put.clone(), put.clone()], failure: vec![put], ..Default::default() };
        let answer = |succeeded| Some(Reply::of(&TxnResponse { header, succeeded, ..Default::default() }));
        let asked = |answer: Option<Reply>| stats("/etcdserverpb.KV/Txn", &txn, answer.as_ref()).asked;
        assert_eq!([answer(true), answer(false), None].map(asked), [(2, 26), (1, 13), (0, 0)]);
        assert!(!stats("/etcdserverpb.KV/Txn", &txn, None).content.contains("geheim"));
    }

    #[test]
    fn what_is_not_of_keys_is_not_shown() {
        let told = stats("/etcdserverpb.Auth/Authenticate", &PutRequest::default(), None);
        assert_eq!((told.asked, told.answered, told.content.as_str()), ((-1, -1), (-1, -1), ""));
    }
}
