//! Calls as bytes: any method, by anybody, with the answer in a form that can be compared.

use std::{collections::BTreeMap, time::Duration};

use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use prost::{
    Message,
    encoding::{DecodeContext, decode_key, skip_field},
};
use quorate::pb::etcdserverpb as pb;
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::{AsciiMetadataKey, AsciiMetadataValue},
    transport::Channel,
};

/// Longest wait for the first answer to a call.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who calls, and how he says so.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    /// Nobody.
    Nobody,
    /// This user, by his token under `token`.
    User(&'static str),
    /// By his token under that key, behind those words.
    Showing(&'static str, &'static str, &'static str),
    /// By these words under `token`.
    Saying(&'static str),
}

/// One call: its method, and its request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) path: &'static str,
    pub(crate) request: Bytes,
}

/// A call of the method of that service.
pub(crate) fn ask(path: &'static str, request: &impl Message) -> Ask {
    Ask { path, request: request.encode_to_vec().into() }
}

/// One side of a comparison: a connection, and the tokens it has got.
pub(crate) struct Caller {
    channel: Channel,
    tokens: BTreeMap<String, String>,
}

impl Caller {
    pub(crate) fn new(channel: Channel) -> Self {
        Self { channel, tokens: BTreeMap::new() }
    }

    /// Logs `user` in, and remembers his token.
    pub(crate) async fn log_in(&mut self, user: &str, password: &str) -> String {
        let request = pb::AuthenticateRequest { name: user.to_owned(), password: password.to_owned() };
        let metadata = [("token".to_owned(), "what is shown here does not matter".to_owned())];
        match self.send(&ask("/etcdserverpb.Auth/Authenticate", &request), &metadata).await {
            Ok(answer) => {
                let answer = pb::AuthenticateResponse::decode(answer).expect("an answer");
                self.tokens.insert(user.to_owned(), answer.token);
                "OK".to_owned()
            }
            Err(status) => refusal(&status),
        }
    }

    /// The token of a user who has logged in.
    pub(crate) fn token(&self, user: &str) -> &str {
        self.tokens.get(user).unwrap_or_else(|| panic!("{user} has not logged in"))
    }

    /// The answer to a call, without what names its member; the refusal; or that none came.
    pub(crate) async fn answer(&self, who: Who, ask: &Ask) -> String {
        self.answer_with(&self.metadata(who), ask).await
    }

    /// As [`answer`](Self::answer), for a user by name.
    pub(crate) async fn answer_to(&self, user: &str, ask: &Ask) -> String {
        self.answer_with(&[("token".to_owned(), self.token(user).to_owned())], ask).await
    }

    pub(crate) async fn answer_with(&self, metadata: &[(String, String)], ask: &Ask) -> String {
        match self.send(ask, metadata).await {
            Ok(answer) => shown(ask.path, answer),
            Err(status) => refusal(&status),
        }
    }

    fn metadata(&self, who: Who) -> Vec<(String, String)> {
        let pair = |key: &str, value: String| vec![(key.to_owned(), value)];
        match who {
            Who::Nobody => Vec::new(),
            Who::User(user) => pair("token", self.token(user).to_owned()),
            Who::Showing(user, key, before) => pair(key, format!("{before}{}", self.token(user))),
            Who::Saying(words) => pair("token", words.to_owned()),
        }
    }

    /// The first message of the answer.
    async fn send(&self, ask: &Ask, metadata: &[(String, String)]) -> Result<Bytes, Status> {
        let mut request = Request::new(tokio_stream::once(ask.request.clone()));
        for (key, value) in metadata {
            let key = AsciiMetadataKey::from_bytes(key.as_bytes()).expect("a key");
            request.metadata_mut().insert(key, AsciiMetadataValue::try_from(value).expect("a value"));
        }
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        grpc.ready().await.expect("a connection");
        let called = async {
            let mut answers = grpc.streaming(request, PathAndQuery::from_static(ask.path), Raw).await?.into_inner();
            Ok(answers.message().await?.unwrap_or_default())
        };
        let answered = tokio::time::timeout(PATIENCE, called).await;
        answered.unwrap_or_else(|_| Err(Status::cancelled("no answer came")))
    }
}

fn refusal(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// What tells of the member itself, or of the moment.
const VAGUE: [&str; 6] = [
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/Hash",
    "/etcdserverpb.Maintenance/Snapshot",
    "/etcdserverpb.Cluster/MemberList",
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/etcdserverpb.Lease/LeaseLeases",
];

fn shown(path: &str, answer: Bytes) -> String {
    if VAGUE.contains(&path) {
        return "OK".to_owned();
    }
    match path {
        "/etcdserverpb.Lease/LeaseTimeToLive" => {
            let mut keys = pb::LeaseTimeToLiveResponse::decode(answer).expect("an answer").keys;
            keys.sort();
            format!("{keys:?}")
        }
        "/etcdserverpb.KV/RangeStream" => {
            let answer = pb::RangeStreamResponse::decode(answer).expect("an answer").range_response;
            let answer = answer.unwrap_or_default();
            format!("{:?} {} {}", answer.kvs, answer.count, answer.more)
        }
        _ => format!("{:?}", without_header(answer)),
    }
}

/// All fields but the first, which is the header of every answer.
fn without_header(mut answer: Bytes) -> Bytes {
    let mut rest = Vec::new();
    while answer.has_remaining() {
        let before = answer.clone();
        let (tag, wire) = decode_key(&mut answer).expect("a field");
        skip_field(wire, tag, &mut answer, DecodeContext::default()).expect("a field");
        if tag != 1 {
            rest.extend_from_slice(before.get(..before.len() - answer.len()).unwrap_or_default());
        }
    }
    rest.into()
}

/// Messages as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let bytes = from.remaining();
        Ok(Some(from.copy_to_bytes(bytes)))
    }
}
