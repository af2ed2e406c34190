//! What the proxy says over plain HTTP: health and metrics, the cluster's and its own.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::{net::TcpStream, sync::Semaphore};
use tonic_prost::ProstCodec;

use super::{
    kv::RANGE,
    upstream::{Outgoing, Upstream},
};
use crate::{
    api::status::Status,
    client::{self, Security},
    metrics,
    pb::etcdserverpb::{RangeRequest, WatchCreateRequest, WatchRequest, WatchResponse, watch_request::RequestUnion},
    tls::{Dialler, Protocol},
    types::Code,
};

/// How long a look at the cluster's health may take, as in etcd's proxy.
const HEALTH_PATIENCE: Duration = Duration::from_secs(1);
/// The same for a watch through the proxy's own address.
const WATCH_PATIENCE: Duration = Duration::from_secs(3);
/// How long a member may take for its metrics.
const METRICS_PATIENCE: Duration = Duration::from_secs(10);
/// Texts of members that are fetched at a time; further requests wait for as long as a member may take.
const METRICS_FETCHES_MAX: usize = 4;
/// Longest text of a member's metrics.
const METRICS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The key that is read to see whether the cluster answers.
const HEALTH_KEY: &[u8] = b"a";
const WATCH: http::uri::PathAndQuery = http::uri::PathAndQuery::from_static("/etcdserverpb.Watch/Watch");

/// Health and metrics of a proxy.
#[derive(Debug)]
pub(super) struct Plain {
    upstream: Arc<Upstream>,
    /// The way to the proxy itself, by the address it advertises.
    own: Option<Arc<Upstream>>,
    fetches: Semaphore,
}

type Answer = Response<Full<Bytes>>;

impl Plain {
    /// For the cluster behind `upstream`, and the proxy that `own` leads to.
    pub(super) fn new(upstream: Arc<Upstream>, own: Option<Arc<Upstream>>) -> Self {
        Self { upstream, own, fetches: Semaphore::new(METRICS_FETCHES_MAX) }
    }

    /// Answers a request; the body of the request is of no interest.
    ///
    /// # Errors
    /// Never.
    pub(super) async fn answer<B>(&self, request: Request<B>) -> Result<Answer, Infallible> {
        let answer = match request.uri().path() {
            "/health" => self.only_get(request.method(), self.health()).await,
            "/proxy/health" => self.only_get(request.method(), self.own_health()).await,
            "/metrics" => self.member_metrics().await,
            "/proxy/metrics" => text(StatusCode::OK, metrics::CONTENT_TYPE, metrics::exposition_of_proxy()),
            _ => text(StatusCode::NOT_FOUND, PLAIN_TEXT, "404 page not found\n"),
        };
        Ok(answer)
    }

    async fn only_get(&self, method: &Method, health: impl Future<Output = Result<(), String>>) -> Answer {
        if *method != Method::GET {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, PLAIN_TEXT, "Method Not Allowed\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            return refusal;
        }
        match health.await {
            Ok(()) => text(StatusCode::OK, JSON, r#"{"health":"true","reason":""}"#),
            Err(reason) => {
                let body = serde_json::json!({ "health": "false", "reason": reason });
                text(StatusCode::SERVICE_UNAVAILABLE, JSON, body.to_string())
            }
        }
    }

    /// Whether the cluster answers. That it refuses to tell is an answer.
    async fn health(&self) -> Result<(), String> {
        read_one(&self.upstream).await
    }

    /// Whether this proxy does what its clients want of it, asked as they ask.
    async fn own_health(&self) -> Result<(), String> {
        let Some(own) = &self.own else { return Err("no connection to proxy".to_owned()) };
        read_one(own).await?;
        match tokio::time::timeout(WATCH_PATIENCE, watch_one(own)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err("WATCH TIMEOUT".to_owned()),
        }
    }

    /// The metrics of one member.
    async fn member_metrics(&self) -> Answer {
        let Some(endpoint) = self.upstream.endpoints().pick() else { return unavailable() };
        let fetched = async {
            let _place = self.fetches.acquire().await?;
            fetch(&endpoint.address, self.upstream.dialler(), "/metrics").await
        };
        let fetched = tokio::time::timeout(METRICS_PATIENCE, fetched).await;
        match fetched {
            Ok(Ok(body)) => text(StatusCode::OK, "text/plain; version=0.0.4", body),
            Ok(Err(error)) => {
                tracing::debug!(%error, endpoint = endpoint.address, "a member does not tell its metrics");
                unavailable()
            }
            Err(_) => unavailable(),
        }
    }
}

async fn read_one(upstream: &Upstream) -> Result<(), String> {
    let request = RangeRequest { key: Bytes::from_static(HEALTH_KEY), ..RangeRequest::default() };
    let call = Outgoing::within(HEALTH_PATIENCE);
    match upstream.unary(&RANGE, &call, request.encode_to_vec().into(), true).await {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::PermissionDenied => Ok(()),
        Err(status) => Err(format!("GET ERROR:{}", status.message())),
    }
}

async fn watch_one(upstream: &Upstream) -> Result<(), Status> {
    let create = WatchCreateRequest { key: Bytes::from_static(HEALTH_KEY), ..WatchCreateRequest::default() };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let call = Outgoing::within(WATCH_PATIENCE);
    let codec = ProstCodec::<WatchRequest, WatchResponse>::default;
    // The stream of requests stays open: its end would be the end of the watch.
    let requests = || tokio_stream::StreamExt::chain(tokio_stream::once(create.clone()), tokio_stream::pending());
    let mut answers = upstream.open(&WATCH, &call, codec, requests).await?;
    match answers.message().await {
        Ok(Some(_)) => Ok(()),
        _ => Err(Status::canceled()),
    }
}

/// What `endpoint` answers to a GET.
async fn fetch(endpoint: &str, dialler: Option<&Dialler>, path: &str) -> Result<Bytes, Failed> {
    let endpoint = client::Endpoint::parse(endpoint);
    let (authority, stream) = (endpoint.authority(), TcpStream::connect(endpoint.authority()).await?);
    let dialler = match endpoint.security {
        Security::Clear => None,
        Security::AsConfigured => dialler.cloned(),
        Security::Required => Some(dialler.cloned().unwrap_or_default()),
    };
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    match dialler {
        None => get(TokioIo::new(stream), authority, path).await,
        Some(dialler) => {
            get(TokioIo::new(dialler.connect(host, Protocol::Unnamed, stream).await?), authority, path).await
        }
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// What is answered to a GET on a fresh connection.
async fn get<I>(io: I, authority: &str, path: &str) -> Result<Bytes, Failed>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    let request = Request::get(path).header(HOST, authority).body(Empty::<Bytes>::new())?;
    let fetching = async {
        let response = sender.send_request(request).await?;
        let mut body = response.into_body();
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                whole.extend_from_slice(&data);
            }
            if whole.len() > METRICS_BYTES_MAX {
                return Err(format!("more than {METRICS_BYTES_MAX} bytes").into());
            }
        }
        Ok(whole.freeze())
    };
    let mut fetching = std::pin::pin!(fetching);
    tokio::select! {
        fetched = fetching.as_mut() => fetched,
        // The connection may end before its last bytes were looked at.
        ended = connection => match ended {
            Ok(()) => fetching.await,
            Err(error) => Err(error.into()),
        },
    }
}

const PLAIN_TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

fn unavailable() -> Answer {
    text(StatusCode::INTERNAL_SERVER_ERROR, PLAIN_TEXT, "Internal server error\n")
}

fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
