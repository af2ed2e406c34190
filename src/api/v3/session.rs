//! One call of a client, and the only way from it to the member.
//!
//! The methods of the services hold no member. What they want of it they ask a [`Session`] for, and each of its ways says
//! who may go it: nobody in particular, any user, users with the role of root, whoever may access certain keys. What is
//! proposed carries the caller's name, and is judged where it is applied. So a method that forgets to ask who calls does not
//! compile, instead of serving everybody.

use std::{borrow::Cow, sync::Arc, time::Duration};

use bytes::Bytes;

use super::Call;
use crate::{
    api::{
        Api,
        audit::{Audited, Entry, Step},
        hot::Told,
        status::Status,
    },
    apply::Response,
    auth::{Access, Identity},
    clock::Stopwatch,
    metrics,
    mvcc::{ReadError, View},
    pb::etcdserverpb::{
        Compare, InternalRaftRequest, RangeRequest, RequestOp, ResponseHeader, TxnRequest, WatchRequest,
        request_op::Request as Op, watch_request::RequestUnion,
    },
    server::{Handle, ServerError, State, WatchStream},
    spans::CallSpan,
    storage::{Engine, FjallEngine},
    types::{Code, LeaseId, Rejection},
    watch::Frame,
};

/// What is read.
pub(super) type Snapshot = <FjallEngine as Engine>::Snapshot;

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    api: Arc<Api>,
    call: Call,
    witness: Witness,
}

/// Who is told of a call while it goes on: the audit log and a trace, if there are any.
#[derive(Clone, Debug)]
pub(super) struct Witness {
    entry: Option<Arc<Entry>>,
    span: Option<Arc<CallSpan>>,
}

impl Witness {
    /// The call has ended. `answer` is the encoded answer, or as much of it as holds the header.
    pub(super) fn end<T>(&self, outcome: &Result<T, Status>, answer: &[u8]) {
        if let Some(entry) = &self.entry {
            entry.end(outcome, answer);
        }
        if let Some(span) = &self.span {
            span.end(outcome.as_ref().err().map(|status| (status.code(), status.message())));
        }
    }
}

impl Session {
    /// A call of `method` begins.
    pub(super) fn new(api: Arc<Api>, call: Call, method: &'static str) -> Self {
        let begun = || api.audit.get().map(|audit| Entry::begin(audit, call.caller().clone(), method));
        let entry = call.entry().cloned().or_else(begun);
        let span = api.spans.get().and_then(|spans| spans.call(method, call.metadata(), call.caller().at));
        let span = span.map(Arc::new);
        Self { api, call, witness: Witness { entry, span } }
    }

    /// Who is told of the call.
    pub(super) fn witness(&self) -> &Witness {
        &self.witness
    }

    /// What the audit log is told of the call, if there is one.
    pub(super) fn entry(&self) -> Option<&Arc<Entry>> {
        self.witness.entry.as_ref()
    }

    /// Names who was refused, where that came before anybody asked who he is.
    pub(super) fn name_refused<T>(&self, outcome: &Result<T, Status>) {
        let Some(entry) = self.entry().filter(|entry| outcome.is_err() && entry.is_nobodys()) else { return };
        let server = &self.api.server;
        if !server.published().auth.enabled() {
            return;
        }
        let known = self.call.token().and_then(|token| server.recognise_known(&token)).map(|who| Cow::from(who.user));
        if let Some(user) = known.or_else(|| self.shown().map(Cow::from)) {
            entry.recognised(&user);
        }
    }

    /// The user of the certificate that the client has shown, where users have certificates.
    fn shown(&self) -> Option<&str> {
        self.call.common_name().filter(|_| self.api.options().client_cert_auth)
    }

    /// Tells of the request.
    pub(super) fn tell(&self, request: &impl Audited) {
        self.api.hot.count(request.aim(), self.call.caller().from);
        if let Some(entry) = &self.witness.entry {
            entry.tell(request);
        }
        if let (Some(span), Some(traced)) = (&self.witness.span, request.traced()) {
            span.asks(traced);
        }
    }

    /// Tells of one of several requests of the call.
    pub(super) fn step(&self, request: &impl Audited) -> Option<Step> {
        self.api.hot.count(request.aim(), self.call.caller().from);
        if let (Some(span), Some(traced)) = (&self.witness.span, request.traced()) {
            span.asks_among_others(traced);
        }
        self.witness.entry.as_ref().map(|entry| entry.step(request))
    }

    /// What the client said besides its request.
    pub(super) fn call(&self) -> &Call {
        &self.call
    }

    /// [`Api::admit`].
    ///
    /// # Errors
    /// The first refusal.
    pub(super) fn admit(&self, kind: &'static str, learners_serve: bool) -> Result<(), Status> {
        self.api.admit(&self.call, kind, learners_serve)
    }

    /// [`Session::admit`] for a streaming call no learner serves.
    ///
    /// # Errors
    /// The first refusal.
    pub(super) fn admit_stream(&self) -> Result<(), Status> {
        self.admit(super::call::STREAM, false)
    }

    /// [`Api::cut`].
    pub(super) async fn cut(&self) -> Status {
        self.api.cut(&self.call).await
    }

    /// Resolves when the member shuts down.
    pub(super) async fn stopping(&self) {
        self.api.stopping().await;
    }

    /// [`Api::header`].
    pub(super) fn header(&self, revision: i64) -> ResponseHeader {
        self.api.header(revision)
    }

    /// [`Api::header_now`].
    pub(super) fn header_now(&self) -> ResponseHeader {
        self.api.header_now()
    }

    /// What most requests are about.
    pub(super) fn hot(&self) -> Told {
        self.api.hot.told()
    }

    /// [`Api::complete`].
    pub(super) fn complete(&self, header: &mut Option<ResponseHeader>) {
        self.api.complete(header);
    }

    /// `max-txn-ops`.
    pub(super) fn txn_ops_max(&self) -> usize {
        self.api.options().txn_ops_max
    }

    /// `max-request-bytes`.
    pub(super) fn request_bytes_max(&self) -> usize {
        self.api.options().request_bytes_max
    }

    /// [`Api::blocking`].
    ///
    /// # Errors
    /// A panic of `work`.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        self.api.blocking(work).await
    }

    /// The hash of a new password.
    ///
    /// # Errors
    /// [`Rejection::TooManyRequests`] where too many are being made, [`Rejection::Stopped`].
    pub(super) async fn hash_password(&self, password: String) -> Result<String, Rejection> {
        self.api.passwords.hash(password).await
    }

    /// Whether `password` is the one of `hash`; of none it takes as long.
    ///
    /// # Errors
    /// [`Rejection::TooManyRequests`] where too many are being checked.
    pub(super) async fn password_fits(
        &self,
        user: &str,
        password: String,
        hash: Option<String>,
    ) -> Result<bool, Status> {
        let from = self.call.caller().from.map(|from| from.ip());
        Ok(self.api.passwords.fits(from, user, password, hash).await?)
    }

    /// Whether what is read is linearizable without a wait.
    pub(super) fn reads_at_once(&self) -> bool {
        self.api.server.reads_at_once()
    }

    /// Waits until what is read is linearizable.
    ///
    /// # Errors
    /// As [`Handle::read_index`].
    pub(super) async fn linearize(&self) -> Result<(), Status> {
        Ok(self.api.server.read_index().await?)
    }

    /// Refuses a request of this estimated cost that does not fit the quota.
    ///
    /// # Errors
    /// As [`Handle::check_quota`].
    pub(super) async fn check_quota(&self, cost: u64) -> Result<(), Status> {
        Ok(self.api.server.check_quota(cost).await?)
    }

    /// The member, for what it tells everybody or asks nobody's leave for.
    pub(super) fn for_everybody(&self) -> &Handle {
        &self.api.server
    }

    /// The member, for what any user may do.
    ///
    /// # Errors
    /// [`Rejection::InvalidAuthToken`], [`Rejection::UserNameEmpty`].
    pub(super) async fn for_users(&self) -> Result<&Handle, Status> {
        let (state, who) = self.arrive().await?;
        check_named(&state, &who)?;
        Ok(&self.api.server)
    }

    /// The member, for what only users with the role of root may do.
    ///
    /// # Errors
    /// [`Rejection::InvalidAuthToken`]; as [`crate::auth::Auth::check_admin`].
    pub(super) async fn for_admins(&self) -> Result<&Handle, Status> {
        let (state, who) = self.arrive().await?;
        state.auth.check_admin(&who)?;
        Ok(&self.api.server)
    }

    /// The member, for who may `access` all keys that end with these leases, or is root.
    ///
    /// # Errors
    /// [`Rejection::InvalidAuthToken`], [`Rejection::UserNameEmpty`], [`Rejection::PermissionDenied`].
    pub(super) async fn for_keys_of(&self, leases: Vec<LeaseId>, access: Access) -> Result<&Handle, Status> {
        let (state, who) = self.arrive().await?;
        check_named(&state, &who)?;
        if state.auth.check_admin(&who).is_err() {
            self.blocking(move || check_leases(&state, &who, &leases, access)).await??;
        }
        Ok(&self.api.server)
    }

    /// The state as it is now, for what the caller may see of it.
    ///
    /// # Errors
    /// [`Rejection::InvalidAuthToken`].
    pub(super) async fn reading(&self) -> Result<Reading, Status> {
        let (state, who) = self.arrive().await?;
        Ok(Reading { state, who })
    }

    /// A stream of watchers, for what the caller may see.
    pub(super) fn watching(&self) -> Watchers<'_> {
        Watchers { session: Cow::Borrowed(self), stream: self.api.server.watch_open() }
    }

    /// [`Session::watching`] that outlives the borrow.
    pub(super) fn watching_on(&self) -> Watchers<'static> {
        Watchers { session: Cow::Owned(self.clone()), stream: self.api.server.watch_open() }
    }

    /// Proposes in the caller's name and waits for the answer of apply, measured under `name`.
    ///
    /// # Errors
    /// [`Rejection::InvalidAuthToken`]; as [`Handle::propose_as`].
    pub(super) async fn propose(&self, name: &'static str, request: InternalRaftRequest) -> Result<Response, Status> {
        // Ahead of the token, as etcd has it.
        self.api.server.check_gap()?;
        let (_, who) = self.arrive().await?;
        self.propose_of(name, request, &who).await
    }

    /// [`Session::propose`] that looks at no token: of who is about to get one.
    ///
    /// # Errors
    /// As [`Handle::propose`].
    pub(super) async fn propose_for_nobody(
        &self,
        name: &'static str,
        request: InternalRaftRequest,
    ) -> Result<Response, Status> {
        self.propose_of(name, request, &Identity::default()).await
    }

    async fn propose_of(
        &self,
        name: &'static str,
        request: InternalRaftRequest,
        who: &Identity,
    ) -> Result<Response, Status> {
        let watch = Stopwatch::start();
        let outcome = self.api.server.propose_as(request, who).await;
        observe(name, was_applied(&outcome), watch.elapsed());
        Ok(outcome?)
    }

    /// Who calls, and the state in which he was recognised. Nobody is asked while requests are not checked.
    async fn arrive(&self) -> Result<(Arc<State>, Identity), Status> {
        let state = self.api.server.published();
        if !state.auth.enabled() {
            return Ok((state, Identity::default()));
        }
        let who = match self.call.token() {
            Some(token) => Some(self.api.server.recognise(&token).await?),
            None => None,
        };
        let state = self.api.server.published();
        let shown = || Some(Identity { user: self.shown()?.to_owned(), revision: state.auth.revision() });
        let who = who.or_else(shown).unwrap_or_default();
        if let Some(entry) = self.entry() {
            entry.recognised(&who.user);
        }
        Ok((state, who))
    }
}

fn check_named(state: &State, who: &Identity) -> Result<(), Rejection> {
    if state.auth.enabled() && who.revision == 0 { Err(Rejection::UserNameEmpty) } else { Ok(()) }
}

fn check_leases(state: &State, who: &Identity, leases: &[LeaseId], access: Access) -> Result<(), ReadError> {
    for lease in leases {
        for key in state.view.lease_keys(*lease)? {
            state.auth.check_keys(who, access, &key, &Bytes::new())?;
        }
    }
    Ok(())
}

/// One state, and who wants to see some of it. Keys and permissions are of one moment, so that whatever changes between a
/// check and the read it was for makes no difference.
#[derive(Debug)]
pub(super) struct Reading {
    state: Arc<State>,
    who: Identity,
}

impl Reading {
    /// The key space, for who may read these keys.
    ///
    /// # Errors
    /// As [`crate::auth::Auth::check_keys`].
    pub(super) fn range(&self, request: &RangeRequest) -> Result<&View<Snapshot>, Rejection> {
        self.check(&request.key, &request.range_end)?;
        self.check_age()?;
        Ok(&self.state.view)
    }

    /// The key space, for who may read all that a transaction compares or might read.
    ///
    /// # Errors
    /// As [`crate::auth::Auth::check_keys`]; [`Rejection::PermissionDenied`] for a transaction that does more.
    pub(super) fn txn(&self, request: &TxnRequest) -> Result<&View<Snapshot>, Rejection> {
        for Compare { key, range_end, .. } in &request.compare {
            self.check(key, range_end)?;
        }
        for RequestOp { request } in request.success.iter().chain(&request.failure) {
            match request {
                Some(Op::RequestRange(range)) => self.check(&range.key, &range.range_end)?,
                _ => return Err(Rejection::PermissionDenied),
            }
        }
        self.check_age()?;
        Ok(&self.state.view)
    }

    /// Refuses who was recognised at a revision that is still to come, as only a JSON web token can tell of.
    fn check_age(&self) -> Result<(), Rejection> {
        let is_early = self.state.auth.enabled() && self.who.revision > self.state.auth.revision();
        if is_early { Err(Rejection::AuthOldRevision) } else { Ok(()) }
    }

    /// Refuses who may not read these keys.
    ///
    /// # Errors
    /// As [`crate::auth::Auth::check_keys`].
    pub(super) fn check(&self, key: &Bytes, range_end: &Bytes) -> Result<(), Rejection> {
        self.state.auth.check_keys(&self.who, Access::Read, key, range_end)
    }
}

/// A stream of watchers whose caller is asked for each of them who he is.
#[derive(Debug)]
pub(super) struct Watchers<'a> {
    session: Cow<'a, Session>,
    stream: WatchStream,
}

/// How clients of etcd show a code, in the reasons for which a watcher is refused.
fn with_code(rejection: Rejection) -> String {
    format!("rpc error: code = {:?} desc = {rejection}", rejection.code())
}

impl Watchers<'_> {
    /// Hands on one request; one for keys that the caller may not read is refused in its place, and the refusal returned.
    ///
    /// # Errors
    /// [`Rejection::Stopped`].
    pub(super) async fn send(&self, request: WatchRequest) -> Result<Option<Rejection>, Status> {
        let refusal = self.refusal(&request).await?;
        match refusal {
            Some(why) => self.stream.refuse(with_code(why)).await?,
            None => self.stream.send(request).await?,
        }
        Ok(refusal)
    }

    /// Everything that waits for the client, in order; `None` once the member stops. Safe to cancel.
    pub(super) async fn recv(&self) -> Option<Vec<Frame>> {
        self.stream.recv().await
    }

    async fn refusal(&self, request: &WatchRequest) -> Result<Option<Rejection>, Status> {
        // What begins before all revisions is refused for that, whoever asks.
        let Some(RequestUnion::CreateRequest(create)) = &request.request_union else { return Ok(None) };
        if create.start_revision < 0 {
            return Ok(None);
        }
        let first = Bytes::from_static(&[0]);
        let key = if create.key.is_empty() { &first } else { &create.key };
        let checked = self.session.reading().await.map(|reading| reading.check(key, &create.range_end));
        match checked {
            Ok(Ok(())) => Ok(None),
            Ok(Err(why @ (Rejection::AuthOldRevision | Rejection::UserNameEmpty))) => Ok(Some(why)),
            Ok(Err(_)) => Ok(Some(Rejection::PermissionDenied)),
            Err(status) if status == Rejection::InvalidAuthToken.into() => Ok(Some(Rejection::InvalidAuthToken)),
            Err(status) => Err(status),
        }
    }
}

/// Whether a proposal was carried out. One that its entry refuses was, too: so etcd counts success.
pub(super) fn was_applied<T>(outcome: &Result<T, ServerError>) -> bool {
    match outcome {
        Ok(_) => true,
        Err(ServerError::Storage(_) | ServerError::NoRoom(_) | ServerError::Rejected(Rejection::RequestTooLarge)) => {
            false
        }
        Err(ServerError::Rejected(rejection)) => {
            !matches!(rejection.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Canceled | Code::Unknown)
        }
    }
}

/// Notes how long a request took.
pub(super) fn observe(name: &'static str, success: bool, took: Duration) {
    metrics::REQUEST_DURATION.with([word(success), name]).observe(took);
}

/// How metrics say whether something worked.
pub(super) fn word(success: bool) -> &'static str {
    if success { "true" } else { "false" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watchers_are_refused_with_the_code() {
        let reason = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
        assert_eq!(with_code(Rejection::PermissionDenied), reason);
        let reason = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
        assert_eq!(with_code(Rejection::InvalidAuthToken), reason);
    }
}
