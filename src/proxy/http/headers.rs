//! Headers of a request and of its answer on their way through, as etcd's proxy treats them.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CONNECTION, CONTENT_TYPE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
};

/// Said by one side of a connection to the other, and by nobody to anybody behind (RFC 2616, §13.5.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    HeaderName::from_static("trailers"),
    TRANSFER_ENCODING,
    UPGRADE,
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Takes out what is about the connection.
pub(super) fn strip(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Adds the client's address behind those of the proxies before this one.
pub(super) fn add_client(headers: &mut HeaderMap, client: Option<IpAddr>) {
    let Some(client) = client else { return };
    let mut all: Vec<String> = headers
        .get_all(&FORWARDED_FOR)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect();
    all.push(client.to_string());
    if let Ok(value) = HeaderValue::from_str(&all.join(", ")) {
        headers.insert(FORWARDED_FOR, value);
    }
}

/// Whether the content type is gRPC's, with or without the name of a codec.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.get(CONTENT_TYPE) else { return false };
    let rest = content_type.as_bytes().strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_is_about_the_connection_stays_behind() {
        let mut all = headers(&[
            ("connection", "keep-alive, x-mine"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "Basic x"),
            ("authorization", "Basic y"),
            ("x-mine", "1"),
        ]);
        strip(&mut all);
        let mut left: Vec<_> = all.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "x-mine"]);
    }

    #[test]
    fn the_client_stands_behind_the_proxies_before() {
        let client = Some(IpAddr::from([10, 0, 0, 1]));
        let mut none = HeaderMap::new();
        add_client(&mut none, client);
        assert_eq!(none["x-forwarded-for"], "10.0.0.1");
        let mut two = headers(&[("x-forwarded-for", "a"), ("x-forwarded-for", "b, c")]);
        add_client(&mut two, client);
        assert_eq!((two["x-forwarded-for"].to_str().unwrap(), two.len()), ("a, b, c, 10.0.0.1", 1));
        add_client(&mut two, None);
        assert_eq!(two["x-forwarded-for"], "a, b, c, 10.0.0.1");
    }

    #[test]
    fn grpc_is_known_by_its_content_type() {
        for (content_type, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(&headers(&[("content-type", content_type)])), expected, "{content_type}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
