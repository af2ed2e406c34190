//! Raw gRPC clients of the v3 API, as generated, without retries or any other kindness.

use quorate::pb::etcdserverpb as pb;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// Every service of one endpoint over one connection.
#[derive(Clone)]
pub struct Client {
    pub channel: Channel,
    pub kv: pb::kv_client::KvClient<Channel>,
    pub lease: pb::lease_client::LeaseClient<Channel>,
    pub watch: pb::watch_client::WatchClient<Channel>,
    pub maintenance: pb::maintenance_client::MaintenanceClient<Channel>,
    pub cluster: pb::cluster_client::ClusterClient<Channel>,
}

impl Client {
    /// Dials `endpoint`, a base URL.
    ///
    /// # Errors
    /// If it is no URL or nothing answers there.
    pub async fn connect(endpoint: &str) -> Result<Self, tonic::transport::Error> {
        let channel = Endpoint::new(endpoint.to_owned())?
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_secs(10))
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .connect()
            .await?;
        Ok(Self::over(channel))
    }

    /// Dials `endpoint`, a base URL, when the first request comes, and again whenever the connection was lost.
    ///
    /// # Panics
    /// If it is no URL.
    pub fn lazy(endpoint: &str) -> Self {
        let endpoint = Endpoint::new(endpoint.to_owned()).expect("a URL");
        Self::over(endpoint.tcp_nodelay(true).connect_timeout(Duration::from_secs(1)).connect_lazy())
    }

    /// The services over an existing connection; answers may be of any size.
    pub fn over(channel: Channel) -> Self {
        Self {
            kv: pb::kv_client::KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            lease: pb::lease_client::LeaseClient::new(channel.clone()),
            watch: pb::watch_client::WatchClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            maintenance: pb::maintenance_client::MaintenanceClient::new(channel.clone()),
            cluster: pb::cluster_client::ClusterClient::new(channel.clone()),
            channel,
        }
    }
}

/// A put of `key` with nothing else set.
pub fn put(key: impl Into<bytes::Bytes>, value: impl Into<bytes::Bytes>) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

/// A linearizable get of one key.
pub fn get(key: impl Into<bytes::Bytes>) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), ..Default::default() }
}
