//! The rules in front of everything HTTP: escapes in paths, the old gateway prefix, the host check against DNS rebinding,
//! and CORS.

use axum::{
    extract::Request,
    http::{
        HeaderMap, HeaderValue, Method, StatusCode, Version,
        header::{
            ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, HOST, ORIGIN,
        },
    },
    middleware::Next,
    response::Response,
};

use super::plain;
use crate::api::{AllowList, Api, CommonName, v2};

const METHODS: HeaderValue = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
const HEADERS: HeaderValue = HeaderValue::from_static("accept, content-type, authorization");

/// Lets a request through, or answers it.
pub(super) async fn check(api: &Api, secure: bool, mut request: Request, next: Next) -> Response {
    let Some(mut path) = plain::plainly_written(request.uri().path()) else { return plain::bad_request() };
    if let Some(complaint) = bad_host(request.version(), request.headers()) {
        return plain::text(StatusCode::BAD_REQUEST, &format!("400 Bad Request: {complaint}"));
    }
    let options = api.options();
    if !secure && !options.host_whitelist.allows(host(&request)) {
        return plain::text(StatusCode::MISDIRECTED_REQUEST, &refusal(host(&request)));
    }
    let named = options.client_cert_auth && options.gateway && secure && is_named(&request);
    let cors = cors(&options.cors, request.headers());
    drop(options);
    if let Some(rest) = path.strip_prefix("/v3beta/") {
        // The old prefix of the gateway. etcd looks for it, and writes the new one, where no escape is left.
        path = format!("/v3/{rest}");
        plain::set_path(request.uri_mut(), &path);
    }
    if named && path.starts_with("/v3/") && api.server().published().auth.enabled() {
        return plain::text(StatusCode::BAD_REQUEST, NAMED);
    }
    let elsewhere = || Some(plain::redirect(request.method(), &plain::cleaned(request.uri())?));
    let mut response = match v2::moved(&request).or_else(elsewhere) {
        _ if request.method() == Method::OPTIONS => Response::default(),
        Some(moved) => moved,
        None => {
            plain::set_path(request.uri_mut(), &path);
            next.run(request).await
        }
    };
    response.headers_mut().extend(cors);
    response
}

/// What clients hear whose certificate names a user, where the gateway takes nobody's word for its clients.
const NAMED: &str = "CommonName of client sending a request against gateway will be ignored and not used as expected";

/// Whether the client has shown a certificate with a common name.
fn is_named(request: &Request) -> bool {
    request.extensions().get::<CommonName>().is_some_and(|CommonName(name)| !name.is_empty())
}

/// What is wrong with the host header (RFC 9112, §3.2): whom a proxy takes such a request for meant for is anybody's
/// guess.
fn bad_host(version: Version, headers: &HeaderMap) -> Option<&'static str> {
    match headers.get_all(HOST).iter().count() {
        0 if version == Version::HTTP_11 => Some("missing required Host header"),
        0 | 1 => None,
        _ => Some("too many Host headers"),
    }
}

/// The host the client believes to talk to, without the port.
fn host(request: &Request) -> &str {
    let named = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    without_port(named.or(request.uri().authority().map(http::uri::Authority::as_str)).unwrap_or_default())
}

fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or(host, |(address, _)| address);
    }
    host.split_once(':').map_or(host, |(name, _)| name)
}

fn refusal(host: &str) -> String {
    format!(
        "The host {host:?} is not one this server answers for. If the request is meant for it, add the host to \
         --host-whitelist. The check protects against DNS rebinding (CVE-2018-5702)."
    )
}

/// The headers that let a browser's page from an allowed origin read the answer.
fn cors(allowed: &AllowList, headers: &HeaderMap) -> HeaderMap {
    let origin = match allowed {
        AllowList::Any => Some(HeaderValue::from_static("*")),
        AllowList::Only(_) => {
            headers.get(ORIGIN).filter(|origin| origin.to_str().is_ok_and(|origin| allowed.allows(origin))).cloned()
        }
    };
    let Some(origin) = origin else { return HeaderMap::new() };
    HeaderMap::from_iter([
        (ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (ACCESS_CONTROL_ALLOW_ORIGIN, origin),
        (ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_name_one_host() {
        let named = |hosts: &[&'static str]| -> HeaderMap {
            hosts.iter().map(|host| (HOST, HeaderValue::from_static(host))).collect()
        };
        assert_eq!(bad_host(Version::HTTP_11, &named(&["a"])), None);
        assert_eq!(bad_host(Version::HTTP_10, &named(&[])), None);
        assert_eq!(bad_host(Version::HTTP_11, &named(&[])), Some("missing required Host header"));
        let mut two = named(&["a"]);
        two.append(HOST, HeaderValue::from_static("b"));
        assert_eq!(bad_host(Version::HTTP_11, &two), Some("too many Host headers"));
    }

    #[test]
    fn ports_are_stripped_from_hosts() {
        for (host, name) in [("a.b:80", "a.b"), ("a.b", "a.b"), ("[::1]:2379", "::1"), ("[::1]", "::1"), ("", "")] {
            assert_eq!(without_port(host), name);
        }
    }

    #[test]
    fn a_listed_origin_is_echoed_and_another_gets_nothing() {
        let listed = AllowList::Only(["http://a".to_owned()].into());
        let from = |origin: &'static str| HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(origin))]);
        assert_eq!(cors(&listed, &from("http://a"))[ACCESS_CONTROL_ALLOW_ORIGIN], "http://a");
        assert!(cors(&listed, &from("http://b")).is_empty());
        assert!(cors(&listed, &HeaderMap::new()).is_empty());
        assert_eq!(cors(&AllowList::Any, &HeaderMap::new())[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    }
}
