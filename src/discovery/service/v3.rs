//! Tokens in a v3 store: a member in this process, or a cluster that is spoken with.
//!
//! Keys, below a prefix that names the format and its version:
//! `tokens/TOKEN` is the size, `members/TOKEN/NAME` what a member registered, `since/TOKEN/NAME` when, in seconds since
//! the Unix epoch; `probe` is there while somebody asks whether all this works. All keys of a token hang on one lease, which every registration renews: what nobody registers with any
//! more goes by itself, whichever instance of the service made it, and no clock is compared with another.
//!
//! A wait never asks for the past: what happened since the index is read from the state, so it outlives every compaction.

use std::{collections::HashMap, time::Duration};

use http::StatusCode;
use tokio::time::timeout;

use super::{
    registry::{Ask, Pending, Registered, Registry, RegistryError, Roster, STORE_PATIENCE, WAIT_MAX, What},
    store::{Store, prefix_end},
    token::{MemberName, Node, Token},
    tree::{Event, Refusal, Reply, Shown, Why, key},
};
use crate::{
    clock::{self, Clock as _},
    pb::{
        etcdserverpb::{
            Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, ResponseOp, TxnRequest,
            compare::{CompareResult, CompareTarget, TargetUnion},
            request_op::Request,
            response_op::Response,
        },
        mvccpb::{self, KeyValue, event::EventType},
    },
    types::LeaseId,
};

/// The keyspace of the service, with the version of its format.
const PREFIX: &str = "quorate.discovery/1/";
/// Seconds a lease may be granted for at most (etcd's limit).
const LEASE_SECONDS_MAX: u64 = 9_000_000_000;
/// Most members that are read of one token, more than the service lets register.
const MEMBERS_READ_MAX: i64 = 1_000;

/// Tokens in `store`.
#[derive(Debug)]
pub struct V3<S> {
    store: S,
    /// How long a token lives behind its last registration; `None` for ever.
    lifetime: Option<Duration>,
}

/// A token as it was read.
struct Found {
    /// The store's revision then.
    revision: i64,
    token: KeyValue,
    members: Vec<KeyValue>,
}

impl<S: Store> V3<S> {
    /// A registry in `store`, whose tokens live for `lifetime` behind their last registration, or for ever.
    pub fn new(store: S, lifetime: Option<Duration>) -> Self {
        Self { store, lifetime }
    }

    /// The lease of a new token; zero for one that stays.
    async fn lease(&self) -> Result<LeaseId, RegistryError> {
        let Some(lifetime) = self.lifetime else { return Ok(LeaseId(0)) };
        let seconds = lifetime.as_secs().clamp(1, LEASE_SECONDS_MAX);
        self.store.grant(i64::try_from(seconds).unwrap_or(i64::MAX)).await
    }

    async fn make(&self, token: &Token, size: u32) -> Result<(), RegistryError> {
        let lease = self.lease().await?;
        let put = put(token_key(token), size.to_string(), lease);
        let made = self.change(put).await;
        if made.is_err() && lease.0 != 0 {
            // The lease would end by itself, after a long time.
            drop(self.store.revoke(lease).await);
        }
        made
    }

    async fn change(&self, what: RequestOp) -> Result<(), RegistryError> {
        self.store.txn(TxnRequest { success: vec![what], ..TxnRequest::default() }).await.map(drop)
    }

    /// The token and its members, at one revision.
    async fn find(&self, token: &Token) -> Result<Option<Found>, RegistryError> {
        let members = self.list("members", token, 0).await?;
        let revision = revision(&members);
        let request = RangeRequest { key: token_key(token).into(), revision, ..RangeRequest::default() };
        let token = self.store.range(request).await?.kvs.into_iter().next();
        Ok(token.map(|token| Found { revision, token, members: members.kvs }))
    }

    /// All keys of one kind below a token.
    async fn list(&self, kind: &str, token: &Token, revision: i64) -> Result<RangeResponse, RegistryError> {
        let key = below(kind, token);
        let range_end = prefix_end(&key).into();
        let limit = MEMBERS_READ_MAX;
        let request = RangeRequest { key: key.into(), range_end, revision, limit, ..RangeRequest::default() };
        self.store.range(request).await
    }

    async fn read_roster(&self, token: &Token) -> Result<Option<Roster>, RegistryError> {
        let Some(mut found) = self.find(token).await? else { return Ok(None) };
        let since = self.list("since", token, found.revision).await?;
        let since: HashMap<String, u64> = since.kvs.iter().map(|kv| (last_part(kv), number(kv))).collect();
        found.members.sort_by_key(|kv| kv.create_revision);
        let members = found.members.iter().map(|kv| registered(kv, &since)).collect();
        let lease = LeaseId(found.token.lease);
        let expires_in = if lease.0 == 0 { None } else { self.store.remaining(lease).await? };
        Ok(Some(Roster { size: text(&found.token.value).parse().ok(), members, expires_in }))
    }

    async fn answer(&self, ask: Ask) -> Result<Reply, RegistryError> {
        let Some(found) = self.find(&ask.token).await? else { return self.no_token(&ask).await };
        match ask.what.clone() {
            What::Get { sorted } => Ok(get(&ask, found, sorted)),
            What::Wait { index } => self.wait(&ask, &found, index).await,
            What::Put { name, value, exists } => self.register(&ask, &found, &name, value, exists).await,
            What::Delete { name } => self.unregister(&ask, &name).await,
        }
    }

    /// A token that is not there: the store's index is that of the moment.
    async fn no_token(&self, ask: &Ask) -> Result<Reply, RegistryError> {
        let probe = RangeRequest { key: token_key(&ask.token).into(), count_only: true, ..RangeRequest::default() };
        let index = index(revision(&self.store.range(probe).await?));
        Ok(missing(&ask.token, &Node::Directory, index))
    }

    /// What has changed since, or else the next change.
    async fn wait(&self, ask: &Ask, found: &Found, from: Option<u64>) -> Result<Reply, RegistryError> {
        let concerned = |kv: &&KeyValue| match &ask.node {
            Node::Member(name) => last_part(kv) == name.as_str(),
            _ => true,
        };
        let from = from.filter(|from| *from > 0);
        let since = |kv: &&KeyValue| from.is_some_and(|from| index(kv.mod_revision) >= from);
        let past = found.members.iter().filter(concerned).filter(since).min_by_key(|kv| kv.mod_revision);
        let known = index(found.revision);
        if let Some(kv) = past {
            return Ok(changed(&ask.token, kv, known));
        }
        let after = found.revision.max(from.map_or(0, |from| i64::try_from(from - 1).unwrap_or(i64::MAX - 1)));
        let (key, end) = match &ask.node {
            Node::Member(name) => (member_key("members", &ask.token, name), Vec::new()),
            _ => (below("members", &ask.token), prefix_end(&below("members", &ask.token))),
        };
        match timeout(WAIT_MAX, self.store.next_event(key, end, after.saturating_add(1))).await {
            Ok(event) => {
                Ok(event?.map_or_else(|| Reply::nothing_yet(Some(known)), |event| happened(ask, &event, known)))
            }
            Err(_) => Ok(Reply::nothing_yet(Some(known))),
        }
    }

    async fn register(
        &self,
        ask: &Ask,
        found: &Found,
        name: &MemberName,
        value: String,
        exists: Option<bool>,
    ) -> Result<Reply, RegistryError> {
        let (lease, key) = (LeaseId(found.token.lease), member_key("members", &ask.token, name));
        let now = clock::system().wall().as_secs().to_string();
        let is_there = |key: Vec<u8>, there| is_there(key, there);
        let mut compare = vec![is_there(token_key(&ask.token), true)];
        compare.extend(exists.map(|there| is_there(key.clone(), there)));
        let success = vec![
            with_previous(put(key.clone(), value.clone(), lease)),
            put(member_key("since", &ask.token, name), now, lease),
        ];
        let failure = vec![range(token_key(&ask.token)), range(key)];
        let done = self.store.txn(TxnRequest { compare, success, failure }).await?;
        let now = index(done.header.map_or(0, |header| header.revision));
        if !done.succeeded {
            let token_is_there = done.responses.first().is_some_and(has_rows);
            return Ok(match exists {
                _ if !token_is_there => missing(&ask.token, &Node::Directory, now),
                Some(false) => refused(Why::KeyExists, ask, now),
                _ => missing(&ask.token, &ask.node, now),
            });
        }
        self.prolong(lease).await;
        let before = done.responses.into_iter().next().and_then(previous);
        Ok(registered_reply(ask, value, exists, before.as_ref(), now))
    }

    /// A registration shows that the token is not abandoned. If it cannot be told, the token goes a little earlier.
    async fn prolong(&self, lease: LeaseId) {
        if lease.0 == 0 {
            return;
        }
        if let Err(error) = self.store.renew(lease).await {
            tracing::debug!(%error, "the lifetime of a token was not renewed");
        }
    }

    async fn unregister(&self, ask: &Ask, name: &MemberName) -> Result<Reply, RegistryError> {
        let key = member_key("members", &ask.token, name);
        let success =
            vec![with_previous(delete(key, Vec::new())), delete(member_key("since", &ask.token, name), Vec::new())];
        let done = self.store.txn(TxnRequest { success, ..TxnRequest::default() }).await?;
        let now = index(done.header.map_or(0, |header| header.revision));
        let Some(before) = done.responses.into_iter().next().and_then(previous) else {
            return Ok(missing(&ask.token, &ask.node, now));
        };
        let shown = shown(&ask.token, &before);
        let node = Shown { value: None, modified: now, ..shown.clone() };
        Ok(Reply::event(StatusCode::OK, now, &Event { action: "delete", node, before: Some(shown) }))
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, RegistryError>>) -> Result<T, RegistryError> {
        let late = |_| Err(RegistryError(format!("no answer within {} s", STORE_PATIENCE.as_secs())));
        timeout(STORE_PATIENCE, work).await.unwrap_or_else(late)
    }
}

impl<S: Store> Registry for V3<S> {
    fn found<'a>(&'a self, token: &'a Token, size: u32) -> Pending<'a, ()> {
        Box::pin(self.in_time(self.make(token, size)))
    }

    fn mark(&self) -> Pending<'_, ()> {
        Box::pin(self.in_time(self.change(put(mark_key(), "1".to_owned(), LeaseId(0)))))
    }

    fn unmark(&self) -> Pending<'_, ()> {
        Box::pin(self.in_time(self.change(delete(mark_key(), Vec::new()))))
    }

    fn roster<'a>(&'a self, token: &'a Token) -> Pending<'a, Option<Roster>> {
        Box::pin(self.in_time(self.read_roster(token)))
    }

    fn count(&self) -> Pending<'_, usize> {
        let key = format!("{PREFIX}tokens/").into_bytes();
        let range_end = prefix_end(&key).into();
        let request = RangeRequest { key: key.into(), range_end, count_only: true, ..RangeRequest::default() };
        Box::pin(self.in_time(async move {
            let counted = self.store.range(request).await?.count;
            Ok(usize::try_from(counted).unwrap_or(0))
        }))
    }

    fn ask(&self, ask: Ask) -> Pending<'_, Reply> {
        if matches!(ask.what, What::Wait { .. }) {
            // Bounded inside, behind a read that is quick or fails.
            return Box::pin(async move {
                timeout(STORE_PATIENCE + WAIT_MAX, self.answer(ask)).await.unwrap_or(Ok(Reply::nothing_yet(None)))
            });
        }
        Box::pin(self.in_time(self.answer(ask)))
    }
}

fn get(ask: &Ask, mut found: Found, sorted: bool) -> Reply {
    let now = index(found.revision);
    let token = &ask.token;
    let directory = |nodes| Shown {
        key: key(token, &ask.node),
        dir: true,
        nodes,
        created: index(found.token.create_revision),
        modified: index(found.token.mod_revision),
        ..Shown::default()
    };
    let size = || Shown {
        key: key(token, &Node::Size),
        value: Some(text(&found.token.value)),
        created: index(found.token.create_revision),
        modified: index(found.token.mod_revision),
        ..Shown::default()
    };
    let node = match &ask.node {
        Node::Size => Some(size()),
        Node::Config => Some(directory(vec![size()])),
        Node::Member(name) => found.members.iter().find(|kv| last_part(kv) == name.as_str()).map(|kv| shown(token, kv)),
        Node::Directory => {
            if !sorted {
                found.members.sort_by_key(|kv| kv.create_revision);
            }
            let nodes = found.members.iter().map(|kv| shown(token, kv)).collect();
            Some(directory(nodes))
        }
    };
    node.map_or_else(|| missing(token, &ask.node, now), |node| Reply::event(StatusCode::OK, now, &Event::get(node)))
}

fn registered_reply(ask: &Ask, value: String, exists: Option<bool>, before: Option<&KeyValue>, now: u64) -> Reply {
    let action = match exists {
        Some(false) => "create",
        Some(true) => "update",
        None => "set",
    };
    let created = before.map_or(now, |kv| index(kv.create_revision));
    let key = key(&ask.token, &ask.node);
    let node = Shown { key, value: Some(value), modified: now, created, ..Shown::default() };
    let status = if before.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    let before = before.map(|kv| shown(&ask.token, kv));
    Reply::event(status, now, &Event { action, node, before })
}

/// The change that made a member what it is.
fn changed(token: &Token, kv: &KeyValue, now: u64) -> Reply {
    let action = if kv.version == 1 { "create" } else { "set" };
    Reply::event(StatusCode::OK, now, &Event { action, node: shown(token, kv), before: None })
}

fn happened(ask: &Ask, event: &mvccpb::Event, now: u64) -> Reply {
    let Some(kv) = &event.kv else { return Reply::nothing_yet(Some(now)) };
    if event.r#type() == EventType::Put {
        return changed(&ask.token, kv, now);
    }
    let node = Shown { value: None, ..shown(&ask.token, kv) };
    Reply::event(StatusCode::OK, now, &Event { action: "delete", node, before: None })
}

fn missing(token: &Token, node: &Node, index: u64) -> Reply {
    Reply::refusal(&Refusal { why: Why::KeyNotFound, cause: key(token, node), index })
}

fn refused(why: Why, ask: &Ask, index: u64) -> Reply {
    Reply::refusal(&Refusal { why, cause: key(&ask.token, &ask.node), index })
}

fn shown(token: &Token, kv: &KeyValue) -> Shown {
    Shown {
        key: format!("{}/{}", key(token, &Node::Directory), last_part(kv)),
        value: Some(text(&kv.value)),
        modified: index(kv.mod_revision),
        created: index(kv.create_revision),
        ..Shown::default()
    }
}

fn registered(kv: &KeyValue, since: &HashMap<String, u64>) -> Registered {
    let name = last_part(kv);
    let since = since.get(&name).map(|seconds| Duration::from_secs(*seconds));
    Registered { value: text(&kv.value), since, name }
}

fn mark_key() -> Vec<u8> {
    format!("{PREFIX}probe").into_bytes()
}

fn token_key(token: &Token) -> Vec<u8> {
    format!("{PREFIX}tokens/{token}").into_bytes()
}

/// What all keys of one kind of a token begin with.
fn below(kind: &str, token: &Token) -> Vec<u8> {
    format!("{PREFIX}{kind}/{token}/").into_bytes()
}

fn member_key(kind: &str, token: &Token, name: &MemberName) -> Vec<u8> {
    format!("{PREFIX}{kind}/{token}/{name}").into_bytes()
}

fn last_part(kv: &KeyValue) -> String {
    text(&kv.key).rsplit('/').next().unwrap_or_default().to_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn number(kv: &KeyValue) -> u64 {
    text(&kv.value).parse().unwrap_or(0)
}

/// A revision as v2 counts.
fn index(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

fn revision(answer: &RangeResponse) -> i64 {
    answer.header.as_ref().map_or(0, |header| header.revision)
}

fn is_there(key: Vec<u8>, there: bool) -> Compare {
    let result = if there { CompareResult::Greater } else { CompareResult::Equal };
    Compare {
        result: result.into(),
        target: CompareTarget::Create.into(),
        key: key.into(),
        target_union: Some(TargetUnion::CreateRevision(0)),
        ..Compare::default()
    }
}

fn put(key: Vec<u8>, value: String, lease: LeaseId) -> RequestOp {
    let put = PutRequest { key: key.into(), value: value.into(), lease: lease.0, ..PutRequest::default() };
    RequestOp { request: Some(Request::RequestPut(put)) }
}

fn delete(key: Vec<u8>, range_end: Vec<u8>) -> RequestOp {
    let delete = DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv: false };
    RequestOp { request: Some(Request::RequestDeleteRange(delete)) }
}

fn range(key: Vec<u8>) -> RequestOp {
    let range = RangeRequest { key: key.into(), ..RangeRequest::default() };
    RequestOp { request: Some(Request::RequestRange(range)) }
}

/// The same operation, answering with what was there before.
fn with_previous(mut op: RequestOp) -> RequestOp {
    match &mut op.request {
        Some(Request::RequestPut(put)) => put.prev_kv = true,
        Some(Request::RequestDeleteRange(delete)) => delete.prev_kv = true,
        _ => {}
    }
    op
}

fn previous(answer: ResponseOp) -> Option<KeyValue> {
    match answer.response {
        Some(Response::ResponsePut(put)) => put.prev_kv,
        Some(Response::ResponseDeleteRange(deleted)) => deleted.prev_kvs.into_iter().next(),
        _ => None,
    }
}

fn has_rows(answer: &ResponseOp) -> bool {
    matches!(&answer.response, Some(Response::ResponseRange(range)) if !range.kvs.is_empty())
}
