//! URLs of discovery services and HTTP proxies: a scheme, a place and a path, unlike those of members.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{
    HeaderValue, Uri,
    uri::{PathAndQuery, Scheme},
};

/// An `http` or `https` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WebUrl {
    pub(super) is_tls: bool,
    /// Host and port without a user, as it was written.
    pub(super) authority: String,
    /// Host without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Without a slash at its end.
    pub(super) path: String,
    /// Without the question mark; empty for none.
    pub(super) query: String,
    /// The header for the user that stands before the host.
    pub(super) authorization: Option<HeaderValue>,
}

impl WebUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text.trim().parse().map_err(|error| format!("parse {text:?}: {error}"))?;
        let is_tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            scheme => {
                let scheme = scheme.map_or("", Scheme::as_str);
                return Err(format!("unsupported protocol scheme {scheme:?}: {text}"));
            }
        };
        let authority = uri.authority().ok_or_else(|| format!("no host in {text}"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(format!("no host in {text}"));
        }
        let written = authority.as_str();
        let (user, place) = written.rsplit_once('@').map_or((None, written), |(user, place)| (Some(user), place));
        Ok(Self {
            is_tls,
            authority: place.to_owned(),
            host,
            port: port(authority, text)?.unwrap_or(if is_tls { 443 } else { 80 }),
            path: uri.path().trim_end_matches('/').to_owned(),
            query: uri.query().unwrap_or_default().to_owned(),
            authorization: user.and_then(authorization),
        })
    }

    /// Where it leads to, without path and user, for messages.
    pub(super) fn base(&self) -> String {
        format!("{}://{}", if self.is_tls { "https" } else { "http" }, self.authority)
    }

    /// The path `below` this one, with the URL's own query and `parameters` behind it.
    pub(super) fn below(&self, below: &str, parameters: &str) -> String {
        let path = if below.is_empty() { self.path.clone() } else { format!("{}/{below}", self.path) };
        let query: Vec<&str> = [self.query.as_str(), parameters].into_iter().filter(|part| !part.is_empty()).collect();
        let path = if path.is_empty() { "/".to_owned() } else { path };
        if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
    }

    /// Where a redirection from here leads to: another URL, or a path at the same place.
    ///
    /// # Errors
    /// A place that cannot be asked, or that is less safe than this one.
    pub(super) fn redirected(&self, location: &str) -> Result<(Self, String), String> {
        let absolute = if location.starts_with('/') && !location.starts_with("//") {
            format!("{}{location}", self.base())
        } else {
            location.to_owned()
        };
        let target = Self::parse(&absolute).map_err(|why| format!("redirected to nowhere: {why}"))?;
        if self.is_tls && !target.is_tls {
            return Err(format!("redirected from TLS to {}", target.base()));
        }
        let uri: Uri = absolute.parse().map_err(|_| format!("redirected to nowhere: {absolute}"))?;
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
        Ok((target, path))
    }
}

/// `Uri` takes any text behind the colon for no port.
fn port(authority: &http::uri::Authority, text: &str) -> Result<Option<u16>, String> {
    let place = authority.as_str().rsplit('@').next().unwrap_or_default();
    let behind = place.rsplit(']').next().unwrap_or_default();
    match behind.rsplit_once(':') {
        None | Some((_, "")) => Ok(None),
        Some((_, digits)) => digits.parse().map(Some).map_err(|_| format!("invalid port {digits:?} in {text}")),
    }
}

fn authorization(user: &str) -> Option<HeaderValue> {
    let words = if user.contains(':') { user.to_owned() } else { format!("{user}:") };
    let mut value = HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(words))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let url = WebUrl::parse("https://u:p@[::1]/v2/keys/discovery/T/?x=1").unwrap();
        assert_eq!((url.is_tls, url.host.as_str(), url.port), (true, "::1", 443));
        assert_eq!((url.base().as_str(), url.path.as_str()), ("https://[::1]", "/v2/keys/discovery/T"));
        assert_eq!(url.authorization.as_ref().unwrap().to_str().unwrap(), "Basic dTpw");
        assert_eq!(url.below("_config/size", "quorum=false"), "/v2/keys/discovery/T/_config/size?x=1&quorum=false");
        assert_eq!(WebUrl::parse("http://h:8087").unwrap().below("", ""), "/");
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        for bad in ["", "h:1", "/path", "ftp://h/t", "http:///t", "http://h:99999/t", "http://h:x/t", "http://a b/t"] {
            assert!(WebUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn redirections_lead_anywhere_but_away_from_tls() {
        let from = WebUrl::parse("https://a/t").unwrap();
        let (target, path) = from.redirected("https://b:1/u?x=1").unwrap();
        assert_eq!((target.authority.as_str(), path.as_str()), ("b:1", "/u?x=1"));
        assert_eq!(from.redirected("/u").unwrap().0.authority, "a");
        assert!(from.redirected("http://b/u").unwrap_err().contains("from TLS"));
        assert!(from.redirected("//b/u").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(https?://)?[a-z:/@#?\\[\\]%0-9. é]{0,24}") {
            if let Ok(url) = WebUrl::parse(&text) {
                drop(url.redirected(&text));
                drop(url.below("x", "y"));
            }
        }
    }
}
