//! One HTTP request to a member and its answer back: the v2 API, the JSON gateway and whatever else members serve.
//!
//! Members are asked in a fixed order, so that somebody who writes and then reads asks the same member twice, until it
//! fails, falls silent or the members are found again. A request that was not sent, or that changes nothing, goes to the
//! next one; any other is not sent a second time, because it may have taken effect.

use std::{net::IpAddr, pin::pin, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header::HOST, request};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use tokio::time::timeout;

use super::{
    Node, answer,
    body::{self, Body, Sendable},
    headers,
};
use crate::{
    clock::Stopwatch,
    metrics,
    proxy::endpoints::{Asked, Endpoint},
};

/// How long the head of an answer may take before others are sent elsewhere. Members give up on their cluster sooner.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// What members answer at once, or after the few seconds that a cluster without leader costs: waits get their head at once,
/// too. A lock of the JSON gateway may take for ever.
const PROMPT: &str = "/v2/";

/// Answers one request with what a member says to it.
pub(super) async fn forward(node: &Node, request: Request<Incoming>, client: Option<IpAddr>) -> Response<Body> {
    let method = request.method().clone();
    metrics::PROXY_REQUESTS.with([method.as_str()]).inc();
    let watch = Stopwatch::start();
    let response = attempt(node, request, client).await.unwrap_or_else(|failure| failure.answer(&method));
    metrics::PROXY_HANDLED.with([response.status().as_str(), method.as_str()]).inc();
    metrics::PROXY_DURATION.with([method.as_str()]).observe(watch.elapsed());
    response
}

/// Why no member's answer can be handed on.
enum Failure {
    /// The client broke off.
    Body(hyper::Error),
    /// Nobody to ask.
    NoEndpoints,
    /// So many were asked.
    NoResponse(usize),
}

impl Failure {
    fn answer(&self, method: &Method) -> Response<Body> {
        let dropped = |why| metrics::PROXY_DROPPED.with([method.as_str(), why]).inc();
        match self {
            Self::Body(error) => {
                let message = format!("httpproxy: failed to read request body: {error}");
                answer::failure(StatusCode::INTERNAL_SERVER_ERROR, &message)
            }
            Self::NoEndpoints => {
                dropped("zero_endpoints");
                answer::failure(StatusCode::SERVICE_UNAVAILABLE, "httpproxy: zero endpoints currently available")
            }
            Self::NoResponse(asked) => {
                dropped("failed_getting_response");
                let message = format!("httpproxy: unable to get response from {asked} endpoint(s)");
                answer::failure(StatusCode::BAD_GATEWAY, &message)
            }
        }
    }
}

async fn attempt(node: &Node, request: Request<Incoming>, client: Option<IpAddr>) -> Result<Response<Body>, Failure> {
    let (mut head, body) = request.into_parts();
    let endpoints = node.endpoints().available();
    if endpoints.is_empty() {
        return Err(Failure::NoEndpoints);
    }
    let body = Sendable::of(body, &node.room).await.map_err(Failure::Body)?;
    headers::strip(&mut head.headers);
    headers::add_client(&mut head.headers, client);
    name_host(&mut head);
    let mut count = 0;
    for endpoint in &endpoints {
        count += 1;
        let Some(request) = addressed(&head, endpoint, body.body()) else { continue };
        let asked = node.endpoints().ask(endpoint);
        // A client that is slow to send its request is waited for by the member.
        let is_prompt = head.uri.path().starts_with(PROMPT) && body.is_whole();
        let asked = if is_prompt { asked } else { asked.without_limit() };
        match watched(&asked, is_prompt, node.send(request)).await {
            Ok(response) => {
                asked.answered();
                return Ok(relayed(response));
            }
            Err(error) => {
                asked.ended();
                report(node, endpoint, &error);
                if !body.is_complete() || !(is_unsent(&error) || head.method.is_safe()) {
                    break;
                }
            }
        }
    }
    Err(Failure::NoResponse(count))
}

/// What `sent` brings. Where it takes too long that is told while it is waited for.
async fn watched<T>(asked: &Asked<'_>, is_prompt: bool, sent: impl Future<Output = T>) -> T {
    let mut sent = pin!(sent);
    if is_prompt {
        if let Ok(answer) = timeout(HEAD_PATIENCE, sent.as_mut()).await {
            return answer;
        }
        asked.overdue();
    }
    sent.await
}

/// HTTP/2 names the host elsewhere.
fn name_host(head: &mut request::Parts) {
    let authority = head.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(host) = authority.filter(|_| !head.headers.contains_key(HOST)) {
        head.headers.insert(HOST, host);
    }
}

/// The request as `endpoint` is to get it. Path and query stay as they are.
fn addressed(head: &request::Parts, endpoint: &Endpoint, body: Body) -> Option<Request<Body>> {
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = format!("{}{path}", endpoint.address).parse::<Uri>().ok()?;
    request.headers_mut().clone_from(&head.headers);
    Some(request)
}

/// What the client's own end has caused is nothing against the member.
fn report(node: &Node, endpoint: &Arc<Endpoint>, error: &legacy::Error) {
    if !cause_of(error).is_some_and(hyper::Error::is_user) {
        node.endpoints().report_failed(endpoint, &causes(error));
    }
}

fn cause_of(error: &legacy::Error) -> Option<&hyper::Error> {
    std::error::Error::source(error).and_then(|source| source.downcast_ref::<hyper::Error>())
}

/// Whether no byte of the request can have been acted upon.
fn is_unsent(error: &legacy::Error) -> bool {
    error.is_connect() || cause_of(error).is_some_and(hyper::Error::is_canceled)
}

/// The innermost cause says it best.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// The member's answer, piece by piece as it comes.
fn relayed(response: Response<Incoming>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    headers::strip(&mut head.headers);
    let mut response = Response::new(body::passed(body));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_stays_as_it_was_written() {
        let request = Request::put("/v2/keys/a%2Fb?value=%20&wait=true").body(()).unwrap();
        let (head, ()) = request.into_parts();
        let sent = addressed(&head, &Endpoint::new("http://10.0.0.1:2379"), body::whole("")).unwrap();
        assert_eq!(sent.uri(), "http://10.0.0.1:2379/v2/keys/a%2Fb?value=%20&wait=true");
        assert_eq!(sent.method(), Method::PUT);
    }

    #[test]
    fn the_host_is_the_clients() {
        let (mut head, ()) = Request::get("http://etcd.local:2379/version").body(()).unwrap().into_parts();
        name_host(&mut head);
        assert_eq!(head.headers[HOST], "etcd.local:2379");
        head.headers.insert(HOST, HeaderValue::from_static("other"));
        name_host(&mut head);
        assert_eq!(head.headers[HOST], "other");
    }
}
