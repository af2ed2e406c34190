//! Calls that are answered by many messages.

use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Streaming, metadata::MetadataValue};
use tonic_prost::ProstCodec;

use super::{Client, ClientError};
use crate::pb::etcdserverpb as pb;

/// The answers of a call, in the order the member sent them.
#[derive(Debug)]
pub struct Messages<M> {
    streaming: Streaming<M>,
}

impl<M> Messages<M> {
    /// The next answer, `None` after the last.
    ///
    /// # Errors
    /// Whatever ended the stream early.
    pub async fn next(&mut self) -> Result<Option<M>, ClientError> {
        self.streaming.message().await.map_err(|status| ClientError::from_status(&status))
    }
}

/// Both directions of a stream.
#[derive(Debug)]
pub(super) struct Duplex<Q, M> {
    pub(super) requests: mpsc::Sender<Q>,
    pub(super) answers: Messages<M>,
}

impl Client {
    /// Reads a range in chunks: only the last one carries the header, `more` and `count`.
    ///
    /// # Errors
    /// As [`Client::call`]; a failure in the middle comes from [`Messages::next`].
    pub async fn range_stream(
        &self,
        request: pb::RangeRequest,
    ) -> Result<Messages<pb::RangeStreamResponse>, ClientError> {
        self.open("/etcdserverpb.KV/RangeStream", false, || tokio_stream::once(request.clone())).await
    }

    /// Reads a snapshot of one member's whole state.
    ///
    /// # Errors
    /// As [`Client::call`]; a failure in the middle comes from [`Messages::next`].
    pub async fn snapshot(&self) -> Result<Messages<pb::SnapshotResponse>, ClientError> {
        self.open("/etcdserverpb.Maintenance/Snapshot", false, || tokio_stream::once(pb::SnapshotRequest {})).await
    }

    /// Opens a stream in both directions that only a member with a leader may serve, if `require_leader`.
    ///
    /// `first` is sent at once: a member may say nothing, not even that the stream is open, before it was asked.
    pub(super) async fn duplex<Q, M>(
        &self,
        method: &'static str,
        require_leader: bool,
        first: &Q,
    ) -> Result<Duplex<Q, M>, ClientError>
    where
        Q: prost::Message + Clone + 'static,
        M: prost::Message + Default + 'static,
    {
        self.authenticate(None).await?;
        let mut sender = None;
        let answers = self
            .open(method, require_leader, || {
                let (requests, receiver) = mpsc::channel(REQUESTS_QUEUED_MAX);
                sender = Some(requests);
                tokio_stream::once(first.clone()).chain(ReceiverStream::new(receiver))
            })
            .await?;
        let requests = sender.ok_or(ClientError::NoEndpoints)?;
        Ok(Duplex { requests, answers })
    }

    async fn open<S, M>(
        &self,
        method: &'static str,
        require_leader: bool,
        mut requests: impl FnMut() -> S,
    ) -> Result<Messages<M>, ClientError>
    where
        S: tokio_stream::Stream + Send + 'static,
        S::Item: prost::Message + 'static,
        M: prost::Message + Default + 'static,
    {
        loop {
            let picked = self.pick(None).await?;
            let mut request = Request::new(requests());
            self.sign(request.metadata_mut());
            if require_leader {
                request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
            }
            let mut grpc = self.grpc(picked.channel.clone());
            let opened = match grpc.ready().await {
                Ok(()) => grpc.streaming(request, PathAndQuery::from_static(method), ProstCodec::default()).await,
                Err(error) => Err(tonic::Status::from_error(error.into())),
            };
            match opened {
                Ok(response) => return Ok(Messages { streaming: response.into_inner() }),
                Err(status) => self.judge(&picked, &status)?,
            }
        }
    }
}

/// Requests a stream holds until the member reads them; more wait in their callers.
const REQUESTS_QUEUED_MAX: usize = 16;
