//! What tokens need of a v3 store, of the member in this process and of a cluster that is spoken with alike.

use std::{fmt, time::Duration};

use crate::{
    apply::{self, Response},
    client::{Client, ClientError},
    pb::{
        etcdserverpb::{
            InternalRaftRequest, LeaseGrantRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, RangeRequest,
            RangeResponse, TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest, watch_request::RequestUnion,
        },
        mvccpb::Event,
    },
    server::{Handle, ServerError},
    types::{LeaseId, Rejection},
};

use super::registry::{RegistryError, STORE_PATIENCE};

/// A v3 store, as narrow as tokens need it. Reads are linearizable.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Reads an interval.
    fn range(&self, request: RangeRequest) -> impl Future<Output = Result<RangeResponse, RegistryError>> + Send;

    /// Carries out a transaction.
    fn txn(&self, request: TxnRequest) -> impl Future<Output = Result<TxnResponse, RegistryError>> + Send;

    /// A lease of at least so many seconds.
    fn grant(&self, seconds: i64) -> impl Future<Output = Result<LeaseId, RegistryError>> + Send;

    /// Restarts the countdown of a lease.
    fn renew(&self, lease: LeaseId) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// How long a lease still lives; `None` if it does not exist.
    fn remaining(&self, lease: LeaseId) -> impl Future<Output = Result<Option<Duration>, RegistryError>> + Send;

    /// Ends a lease and deletes its keys; one that does not exist is no error.
    fn revoke(&self, lease: LeaseId) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// Waits for the first change of the interval at `revision` or behind it; `None` if the store can tell no more.
    fn next_event(
        &self,
        key: Vec<u8>,
        range_end: Vec<u8>,
        revision: i64,
    ) -> impl Future<Output = Result<Option<Event>, RegistryError>> + Send;
}

/// The end of the interval of all keys that begin with `prefix`, whose last byte is not 255.
pub(super) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

fn whole_seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

impl From<ServerError> for RegistryError {
    fn from(error: ServerError) -> Self {
        Self(error.to_string())
    }
}

impl From<Rejection> for RegistryError {
    fn from(rejection: Rejection) -> Self {
        Self(rejection.to_string())
    }
}

impl From<ClientError> for RegistryError {
    fn from(error: ClientError) -> Self {
        Self(error.to_string())
    }
}

/// What is answered in place of what was asked for: a defect of this program.
fn unexpected(answer: &Response) -> RegistryError {
    RegistryError(format!("an answer of another kind: {answer:?}"))
}

/// The member in this process: no network, no encoding. It asks for itself, whoever has asked the service.
impl Store for Handle {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, RegistryError> {
        self.read_index().await?;
        let view = self.published().view.clone();
        let read = tokio::task::spawn_blocking(move || view.range(&request).map_err(ServerError::from)).await;
        Ok(read.map_err(|panic| RegistryError(panic.to_string()))??)
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, RegistryError> {
        let request = InternalRaftRequest { txn: Some(request), ..InternalRaftRequest::default() };
        self.check_quota(Handle::quota_cost(&request)).await?;
        match self.propose_as(request, &self.own_identity()).await? {
            Response::Txn(answer) => Ok(answer),
            other => Err(unexpected(&other)),
        }
    }

    async fn grant(&self, seconds: i64) -> Result<LeaseId, RegistryError> {
        self.check_quota(apply::LEASE_COST_BYTES).await?;
        let lease = self.next_lease_id();
        let grant = LeaseGrantRequest { ttl: seconds, id: lease.0 };
        let request = InternalRaftRequest { lease_grant: Some(grant), ..InternalRaftRequest::default() };
        self.propose_as(request, &self.own_identity()).await?;
        Ok(lease)
    }

    async fn renew(&self, lease: LeaseId) -> Result<(), RegistryError> {
        Ok(self.lease_renew(lease).await.map(drop)?)
    }

    async fn remaining(&self, lease: LeaseId) -> Result<Option<Duration>, RegistryError> {
        let life = self.lease_time_to_live(lease, false).await?;
        Ok(life.map(|life| whole_seconds(life.remaining)))
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), RegistryError> {
        let revoke = LeaseRevokeRequest { id: lease.0 };
        let request = InternalRaftRequest { lease_revoke: Some(revoke), ..InternalRaftRequest::default() };
        match self.propose_as(request, &self.own_identity()).await {
            Err(ServerError::Rejected(Rejection::LeaseNotFound)) => Ok(()),
            done => Ok(done.map(drop)?),
        }
    }

    async fn next_event(
        &self,
        key: Vec<u8>,
        range_end: Vec<u8>,
        revision: i64,
    ) -> Result<Option<Event>, RegistryError> {
        let stream = self.watch_open();
        let create = create(key, range_end, revision);
        stream.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await?;
        loop {
            let frames = stream.recv().await.ok_or(Rejection::Stopped)?;
            for response in frames.iter().map(crate::watch::Frame::to_response) {
                if response.canceled || !response.events.is_empty() {
                    return Ok(response.events.into_iter().next());
                }
            }
        }
    }
}

fn create(key: Vec<u8>, range_end: Vec<u8>, revision: i64) -> WatchCreateRequest {
    WatchCreateRequest {
        key: key.into(),
        range_end: range_end.into(),
        start_revision: revision,
        ..WatchCreateRequest::default()
    }
}

/// A cluster of etcd's or of ours.
impl Store for Client {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, RegistryError> {
        Ok(self.call(request, Some(STORE_PATIENCE)).await?)
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, RegistryError> {
        Ok(self.call(request, Some(STORE_PATIENCE)).await?)
    }

    async fn grant(&self, seconds: i64) -> Result<LeaseId, RegistryError> {
        let request = LeaseGrantRequest { ttl: seconds, id: 0 };
        Ok(LeaseId(self.call(request, Some(STORE_PATIENCE)).await?.id))
    }

    async fn renew(&self, lease: LeaseId) -> Result<(), RegistryError> {
        Ok(self.keep_alive_once(lease).await.map(drop)?)
    }

    async fn remaining(&self, lease: LeaseId) -> Result<Option<Duration>, RegistryError> {
        let request = LeaseTimeToLiveRequest { id: lease.0, keys: false };
        let life = self.call(request, Some(STORE_PATIENCE)).await?;
        Ok((life.ttl >= 0).then(|| whole_seconds(life.ttl)))
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), RegistryError> {
        match self.call(LeaseRevokeRequest { id: lease.0 }, Some(STORE_PATIENCE)).await {
            Err(error) if error.is_refusal("etcdserver: requested lease not found") => Ok(()),
            done => Ok(done.map(drop)?),
        }
    }

    async fn next_event(
        &self,
        key: Vec<u8>,
        range_end: Vec<u8>,
        revision: i64,
    ) -> Result<Option<Event>, RegistryError> {
        let mut watcher = self.watcher();
        watcher.watch(create(key, range_end, revision));
        loop {
            let delivery = watcher.next().await;
            if let Some(error) = delivery.error {
                return Err(error.into());
            }
            if delivery.over || !delivery.response.events.is_empty() {
                return Ok(delivery.response.events.into_iter().next());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_ends_behind_the_last_key_with_its_prefix() {
        assert_eq!(prefix_end(b"a/"), b"a0");
    }
}
