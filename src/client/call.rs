//! Calls with one request and one answer, and the table of all of them.

use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::time::{self, Instant};
use tonic::{Request, Status, client::Grpc, metadata::MetadataMap, transport::Channel};
use tonic_prost::ProstCodec;
use tracing::warn;

use super::{Client, ClientError, balance::Picked};
use crate::pb::{
    etcdserverpb as pb,
    quorate::{HotRequest, HotResponse},
};

/// A request that has one answer. The type of the request says which method it belongs to.
pub trait Rpc: prost::Message + Clone + 'static {
    /// What the method answers.
    type Response: prost::Message + Default + 'static;
    /// The method's path on the wire.
    const METHOD: &'static str;
    /// Whether carrying it out twice is the same as carrying it out once.
    const REPEATABLE: bool;
}

macro_rules! repeats {
    (repeatable) => {
        true
    };
    (once) => {
        false
    };
}

macro_rules! rpcs {
    ($($service:literal { $($method:literal $repeatable:ident $request:ident -> $response:ident;)* })*) => {$($(
        impl Rpc for pb::$request {
            type Response = pb::$response;
            const METHOD: &'static str = concat!("/etcdserverpb.", $service, "/", $method);
            const REPEATABLE: bool = repeats!($repeatable);
        }
    )*)*

        /// Whether carrying out a call of the method at `path` twice is the same as carrying it out once. Of a method that is
        /// not in the table nobody knows.
        pub fn is_repeatable(path: &str) -> bool {
            match path {
                $($(concat!("/etcdserverpb.", $service, "/", $method) => repeats!($repeatable),)*)*
                _ => false,
            }
        }
    };
}

rpcs! {
    "KV" {
        "Range" repeatable RangeRequest -> RangeResponse;
        "Put" once PutRequest -> PutResponse;
        "DeleteRange" once DeleteRangeRequest -> DeleteRangeResponse;
        "Txn" once TxnRequest -> TxnResponse;
        "Compact" once CompactionRequest -> CompactionResponse;
    }
    "Lease" {
        "LeaseGrant" repeatable LeaseGrantRequest -> LeaseGrantResponse;
        "LeaseRevoke" repeatable LeaseRevokeRequest -> LeaseRevokeResponse;
        "LeaseTimeToLive" repeatable LeaseTimeToLiveRequest -> LeaseTimeToLiveResponse;
        "LeaseLeases" repeatable LeaseLeasesRequest -> LeaseLeasesResponse;
    }
    "Cluster" {
        "MemberAdd" once MemberAddRequest -> MemberAddResponse;
        "MemberRemove" once MemberRemoveRequest -> MemberRemoveResponse;
        "MemberUpdate" once MemberUpdateRequest -> MemberUpdateResponse;
        "MemberList" repeatable MemberListRequest -> MemberListResponse;
        "MemberPromote" once MemberPromoteRequest -> MemberPromoteResponse;
    }
    "Maintenance" {
        "Alarm" repeatable AlarmRequest -> AlarmResponse;
        "Status" repeatable StatusRequest -> StatusResponse;
        "Defragment" once DefragmentRequest -> DefragmentResponse;
        "Hash" repeatable HashRequest -> HashResponse;
        "HashKV" repeatable HashKvRequest -> HashKvResponse;
        "MoveLeader" repeatable MoveLeaderRequest -> MoveLeaderResponse;
        "Downgrade" once DowngradeRequest -> DowngradeResponse;
    }
    "Auth" {
        "AuthEnable" once AuthEnableRequest -> AuthEnableResponse;
        "AuthDisable" once AuthDisableRequest -> AuthDisableResponse;
        "AuthStatus" once AuthStatusRequest -> AuthStatusResponse;
        "Authenticate" once AuthenticateRequest -> AuthenticateResponse;
        "UserAdd" once AuthUserAddRequest -> AuthUserAddResponse;
        "UserGet" repeatable AuthUserGetRequest -> AuthUserGetResponse;
        "UserList" repeatable AuthUserListRequest -> AuthUserListResponse;
        "UserDelete" once AuthUserDeleteRequest -> AuthUserDeleteResponse;
        "UserChangePassword" once AuthUserChangePasswordRequest -> AuthUserChangePasswordResponse;
        "UserGrantRole" once AuthUserGrantRoleRequest -> AuthUserGrantRoleResponse;
        "UserRevokeRole" once AuthUserRevokeRoleRequest -> AuthUserRevokeRoleResponse;
        "RoleAdd" once AuthRoleAddRequest -> AuthRoleAddResponse;
        "RoleGet" repeatable AuthRoleGetRequest -> AuthRoleGetResponse;
        "RoleList" repeatable AuthRoleListRequest -> AuthRoleListResponse;
        "RoleDelete" once AuthRoleDeleteRequest -> AuthRoleDeleteResponse;
        "RoleGrantPermission" once AuthRoleGrantPermissionRequest -> AuthRoleGrantPermissionResponse;
        "RoleRevokePermission" once AuthRoleRevokePermissionRequest -> AuthRoleRevokePermissionResponse;
    }
}

impl Rpc for HotRequest {
    type Response = HotResponse;
    const METHOD: &'static str = "/quorate.Insight/Hot";
    const REPEATABLE: bool = true;
}

/// What to do after an attempt failed.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Send it again, possibly elsewhere.
    Again,
    /// Get a new token, then send it again.
    Renew,
    /// The error is the answer.
    GiveUp,
}

impl Client {
    /// Performs one call; `within` limits waiting, sending and repeating together, `None` waits for ever.
    ///
    /// A request that is not [`Rpc::REPEATABLE`] is sent again only when the connection was lost before it left, or
    /// when the member refused the token.
    ///
    /// # Errors
    /// [`ClientError::DeadlineExceeded`] when the time is over: then nobody knows whether the request was carried out.
    /// [`ClientError::Refused`] and [`ClientError::Status`] are what the cluster answered last.
    pub async fn call<R: Rpc>(&self, request: R, within: Option<Duration>) -> Result<R::Response, ClientError> {
        self.call_many(request, within, true).await
    }

    /// A call that never renews the token: the one that gets it.
    pub(super) async fn call_unrenewed<R: Rpc>(
        &self,
        request: R,
        within: Option<Duration>,
    ) -> Result<R::Response, ClientError> {
        self.call_many(request, within, false).await
    }

    async fn call_many<R: Rpc>(
        &self,
        request: R,
        within: Option<Duration>,
        renew: bool,
    ) -> Result<R::Response, ClientError> {
        let deadline = within.map(|within| Instant::now() + within);
        let mut attempt = 0;
        loop {
            let error = match self.attempt(&request, deadline).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            self.warn_of::<R>(attempt, &error);
            attempt += 1;
            match self.next_step::<R>(&error) {
                _ if attempt >= ATTEMPTS_MAX => return Err(error),
                Next::GiveUp => return Err(error),
                Next::Renew if renew => self.authenticate(remaining(deadline)).await?,
                Next::Renew | Next::Again => {}
            }
            self.back_off(attempt, deadline).await;
        }
    }

    fn next_step<R: Rpc>(&self, error: &ClientError) -> Next {
        let elsewhere = self.endpoint_count() > 1 && error.is_refusal("etcdserver: rpc not supported for learner");
        if self.inner.auth.can_renew_after(error) {
            Next::Renew
        } else if elsewhere || (R::REPEATABLE && error.is_transient()) {
            Next::Again
        } else {
            Next::GiveUp
        }
    }

    /// One round over a quorum goes without pause, then there is one.
    async fn back_off(&self, attempt: usize, deadline: Option<Instant>) {
        if attempt.is_multiple_of(self.endpoint_count() / 2 + 1) {
            let wait = BACKOFF.mul_f64(1.0 + BACKOFF_JITTER * jitter());
            within(deadline, time::sleep(wait)).await.unwrap_or(());
        }
    }

    /// Sends `request` once. A connection that turns out to be gone before anything was sent does not count.
    async fn attempt<R: Rpc>(&self, request: &R, deadline: Option<Instant>) -> Result<R::Response, ClientError> {
        self.check_size(request)?;
        loop {
            let picked = self.pick(deadline).await?;
            let sent = within(deadline, self.send(request.clone(), picked.channel.clone(), deadline)).await;
            match sent {
                None => return Err(ClientError::DeadlineExceeded { waiting_for: None }),
                Some(Ok(response)) => return Ok(response),
                Some(Err(status)) if is_out_of_time(&status, deadline) => {
                    return Err(ClientError::DeadlineExceeded { waiting_for: None });
                }
                Some(Err(status)) => self.judge(&picked, &status)?,
            }
        }
    }

    /// Waits for an endpoint that is up.
    pub(super) async fn pick(&self, deadline: Option<Instant>) -> Result<Picked, ClientError> {
        within(deadline, self.inner.balancer.pick())
            .await
            .ok_or_else(|| ClientError::DeadlineExceeded { waiting_for: self.inner.balancer.last_failure() })
    }

    /// `Ok` if the request never left this process: the channel had no connection any more.
    pub(super) fn judge(&self, picked: &Picked, status: &Status) -> Result<(), ClientError> {
        if !never_sent(status) {
            return Err(ClientError::from_status(status));
        }
        self.inner.balancer.report_lost(picked, format!("connection error: desc = \"{}\"", status.message()));
        Ok(())
    }

    async fn send<R: Rpc>(
        &self,
        request: R,
        channel: Channel,
        deadline: Option<Instant>,
    ) -> Result<R::Response, Status> {
        let mut grpc = self.grpc(channel);
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let mut request = Request::new(request);
        if let Some(left) = remaining(deadline) {
            request.set_timeout(left);
        }
        self.sign(request.metadata_mut());
        let response = grpc.unary(request, PathAndQuery::from_static(R::METHOD), ProstCodec::default()).await?;
        Ok(response.into_inner())
    }

    /// A gRPC dispatcher over `channel` with this client's limits.
    pub(super) fn grpc(&self, channel: Channel) -> Grpc<Channel> {
        Grpc::new(channel).max_decoding_message_size(self.inner.response_bytes_max)
    }

    /// The headers of every call.
    pub(super) fn sign(&self, metadata: &mut MetadataMap) {
        metadata.insert("client-api-version", tonic::metadata::MetadataValue::from_static(CLIENT_API_VERSION));
        self.inner.auth.sign(metadata);
    }

    fn check_size<R: Rpc>(&self, request: &R) -> Result<(), ClientError> {
        let (bytes, limit) = (request.encoded_len(), self.inner.request_bytes_max);
        if bytes <= limit {
            return Ok(());
        }
        let message = format!("trying to send message larger than max ({bytes} vs. {limit})");
        Err(ClientError::Status { code: tonic::Code::ResourceExhausted, message })
    }

    fn warn_of<R: Rpc>(&self, attempt: usize, error: &ClientError) {
        let target = format!("etcd-endpoints://{:p}/{}", &raw const *self.inner, self.inner.balancer.first_authority());
        let error = error.as_status_text();
        warn!(target, method = R::METHOD, attempt, error, "retrying of unary invoker failed");
    }
}

/// Runs `future` until `deadline`; `None` when the time is over.
pub(super) async fn within<F: Future>(deadline: Option<Instant>, future: F) -> Option<F::Output> {
    match deadline {
        Some(deadline) => time::timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}

fn remaining(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
}

/// Whether the status says no more than that the time is over. The gRPC library watches the clock, too, and tells the
/// member how long it may take: either of them may be the first to notice.
fn is_out_of_time(status: &Status, deadline: Option<Instant>) -> bool {
    let is_over = remaining(deadline).is_some_and(|left| left.is_zero());
    let by_library = causes(status).any(<dyn std::error::Error>::is::<tonic::TimeoutExpired>);
    by_library || (is_over && matches!(status.code(), tonic::Code::DeadlineExceeded | tonic::Code::Cancelled))
}

/// Whether the status was made here because there was no connection to send on, or none any more when it was its turn.
pub fn never_sent(status: &Status) -> bool {
    causes(status)
        .any(|cause| cause.is::<tonic::ConnectError>() || cause.downcast_ref().is_some_and(hyper::Error::is_canceled))
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(status), |cause| cause.source())
}

/// The first cause of a status that was made on this side; what the other side said otherwise.
pub fn root_cause(status: &Status) -> String {
    causes(status).last().map_or_else(|| status.message().to_owned(), ToString::to_string)
}

/// From -1 to 1, so that clients that failed together do not come back together.
fn jitter() -> f64 {
    getrandom::u32().map_or(0.0, |drawn| f64::from(drawn) / f64::from(u32::MAX) * 2.0 - 1.0)
}

/// The API version this client speaks, as the header every call carries.
const CLIENT_API_VERSION: &str = "3.7";
/// Most times one call is sent.
const ATTEMPTS_MAX: usize = 100;
/// Pause after every quorum of endpoints failed, as in etcd's client.
const BACKOFF: Duration = Duration::from_millis(25);
/// How much of [`BACKOFF`] is left to chance.
const BACKOFF_JITTER: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Options;

    async fn unreachable_client() -> Client {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Client::connect(Options { endpoints: vec![closed.to_string()], ..Options::default() }).await.unwrap()
    }

    fn failed(code: tonic::Code, text: &str) -> ClientError {
        ClientError::from_parts(code, text)
    }

    #[test]
    fn the_type_of_a_request_names_its_method() {
        assert_eq!(<pb::HashKvRequest as Rpc>::METHOD, "/etcdserverpb.Maintenance/HashKV");
        assert_eq!(<pb::AuthUserAddRequest as Rpc>::METHOD, "/etcdserverpb.Auth/UserAdd");
    }

    #[tokio::test]
    async fn only_repeatable_calls_are_sent_again_when_a_member_is_unavailable() {
        let client = unreachable_client().await;
        let unavailable = failed(tonic::Code::Unavailable, "etcdserver: request timed out");
        assert_eq!(client.next_step::<pb::RangeRequest>(&unavailable), Next::Again);
        assert_eq!(client.next_step::<pb::PutRequest>(&unavailable), Next::GiveUp);
        let refused = failed(tonic::Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
        assert_eq!(client.next_step::<pb::RangeRequest>(&refused), Next::GiveUp);
    }

    #[tokio::test]
    async fn a_call_nobody_answers_ends_at_its_deadline_and_says_why() {
        let client = unreachable_client().await;
        let limit = Some(Duration::from_millis(200));
        let error = client.call(pb::RangeRequest::default(), limit).await.unwrap_err();
        assert_eq!(error.to_string(), "context deadline exceeded");
        assert!(error.as_status_text().contains("connection refused"), "{error:?}");
    }

    #[tokio::test]
    async fn requests_above_the_limit_are_not_sent() {
        let client = unreachable_client().await;
        let request =
            pb::PutRequest { value: vec![0; super::super::REQUEST_BYTES_MAX_DEFAULT].into(), ..Default::default() };
        let error = client.call(request, None).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "rpc error: code = ResourceExhausted desc = trying to send message larger than max (2097157 vs. 2097152)"
        );
    }
}
