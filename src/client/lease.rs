//! Keeping a lease alive.
//!
//! One renewal is sent at a time; the next follows after a third of the TTL, so that two may fail before the lease
//! does. Invariant: a [`KeepAlive`] ends for good once the lease is certainly or possibly gone.

use std::time::Duration;

use tokio::time::{self, Instant};
use tracing::warn;

use super::{Client, ClientError, stream::Duplex};
use crate::{
    pb::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse},
    types::LeaseId,
};

/// Renews one lease for as long as it is asked for the next answer.
#[derive(Debug)]
pub struct KeepAlive {
    client: Client,
    lease: LeaseId,
    stream: Option<Duplex<LeaseKeepAliveRequest, LeaseKeepAliveResponse>>,
    /// When to send the next renewal.
    due: Instant,
    /// When the lease may have expired for lack of answers.
    lost: Instant,
}

impl Client {
    /// Renews `lease` once and returns the answer of the member.
    ///
    /// # Errors
    /// As [`Client::call`]; a lease that is gone is refused with `etcdserver: requested lease not found`.
    pub async fn keep_alive_once(&self, lease: LeaseId) -> Result<LeaseKeepAliveResponse, ClientError> {
        loop {
            match self.renew(lease).await {
                Ok(answer) if answer.ttl <= 0 => {
                    return Err(ClientError::from_parts(
                        tonic::Code::NotFound,
                        "etcdserver: requested lease not found",
                    ));
                }
                Err(error) if is_passing(&error) => time::sleep(RECONNECT_WAIT).await,
                answer => return answer,
            }
        }
    }

    /// Renews `lease` until it is gone. The first renewal may take `first_answer` before the lease counts as lost.
    pub fn keep_alive(&self, lease: LeaseId, first_answer: Duration) -> KeepAlive {
        let now = Instant::now();
        KeepAlive { client: self.clone(), lease, stream: None, due: now, lost: now + first_answer }
    }

    async fn renew(&self, lease: LeaseId) -> Result<LeaseKeepAliveResponse, ClientError> {
        let mut stream = self.duplex(METHOD, false, &renewal(lease)).await?;
        receive(&mut stream).await
    }
}

impl KeepAlive {
    /// The next answer, `None` once the lease is gone: revoked, expired, or unanswered for longer than its TTL.
    pub async fn next(&mut self) -> Option<LeaseKeepAliveResponse> {
        loop {
            time::sleep_until(self.due).await;
            match time::timeout_at(self.lost, self.renew()).await {
                Err(_) => return None,
                Ok(Ok(answer)) => return self.accept(answer),
                Ok(Err(error)) => self.reconnect_after(&error),
            }
        }
    }

    async fn renew(&mut self) -> Result<LeaseKeepAliveResponse, ClientError> {
        let renewal = renewal(self.lease);
        let stream = match &mut self.stream {
            Some(stream) => {
                stream.requests.send(renewal).await.map_err(|_| stream_ended())?;
                stream
            }
            closed => closed.insert(self.client.duplex(METHOD, true, &renewal).await?),
        };
        receive(stream).await
    }

    fn accept(&mut self, answer: LeaseKeepAliveResponse) -> Option<LeaseKeepAliveResponse> {
        let ttl = Duration::from_secs(u64::try_from(answer.ttl).ok().filter(|ttl| *ttl > 0)?);
        let now = Instant::now();
        self.due = now + ttl / RENEWALS_PER_TTL;
        self.lost = now + ttl;
        Some(answer)
    }

    fn reconnect_after(&mut self, error: &ClientError) {
        warn!(error = error.to_string(), "error occurred during lease keep alive loop");
        self.stream = None;
        self.due = Instant::now() + RECONNECT_WAIT;
    }
}

fn renewal(lease: LeaseId) -> LeaseKeepAliveRequest {
    LeaseKeepAliveRequest { id: lease.0 }
}

async fn receive(
    stream: &mut Duplex<LeaseKeepAliveRequest, LeaseKeepAliveResponse>,
) -> Result<LeaseKeepAliveResponse, ClientError> {
    stream.answers.next().await?.ok_or_else(stream_ended)
}

fn stream_ended() -> ClientError {
    ClientError::from_parts(tonic::Code::Unavailable, "the member ended the stream")
}

/// Whether the same call can succeed a moment later.
fn is_passing(error: &ClientError) -> bool {
    matches!(error.code(), tonic::Code::Unavailable | tonic::Code::Internal)
}

const METHOD: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
/// Pause before a broken stream is opened again, as in etcd's client.
const RECONNECT_WAIT: Duration = Duration::from_millis(500);
/// Renewals in the time a lease lives without one.
const RENEWALS_PER_TTL: u32 = 3;
