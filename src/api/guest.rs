//! Somebody else's answers on the listeners of clients, for paths that this API does not know.

use std::{fmt, net::IpAddr};

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::Full;

use super::{
    Api, Remote,
    audit::{Via, audited},
};

/// The body of a request as a guest reads it.
pub type GuestBody = Body;

/// A request for a guest.
#[derive(Debug)]
pub struct Visit {
    /// The request.
    pub request: ::http::Request<GuestBody>,
    /// The other end of its connection, if it has an address.
    pub from: Option<IpAddr>,
    /// Whether the connection is encrypted.
    pub secure: bool,
}

/// Who answers what the API has no answer to. It is asked last, behind the rules for hosts and origins.
pub trait Guest: fmt::Debug + Send + Sync {
    /// Whether this path is the guest's.
    fn wants(&self, path: &str) -> bool;

    /// Answers a request for such a path.
    fn answer(&self, visit: Visit) -> BoxFuture<'static, ::http::Response<Full<Bytes>>>;
}

/// The guest's answer, if there is a guest who wants the request.
pub(super) async fn answer(api: &Api, secure: bool, request: Request) -> Option<Response> {
    let guest = api.guest.get().filter(|guest| guest.wants(request.uri().path()))?;
    let from = request.extensions().get::<Remote>().map(|Remote(from)| from.ip());
    let answer =
        move |request: Request| async move { guest.answer(Visit { request, from, secure }).await.into_response() };
    Some(audited(api, Via::Discovery, request, answer).await)
}
