//! Where a member listens, read and printed by the rules of Go's `net/url`, which etcd's client reads them with.

use std::fmt;

use super::V2Error;
use crate::config::{UrlParts, go::quote};

/// A scheme, a host and a path. Any of them may be missing: what makes no sense fails when it is dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// In small letters.
    pub(super) scheme: String,
    /// With the port, if there is one.
    pub(super) host: String,
    /// Begins with a slash, or is empty.
    pub(super) path: String,
    /// What follows a question mark.
    query: String,
    /// Whether nothing stood before the path, as in `localhost:2379`.
    is_opaque: bool,
}

impl Endpoint {
    /// Reads an endpoint with its scheme.
    ///
    /// # Errors
    /// [`V2Error::BadUrl`] with Go's words.
    pub fn parse(text: &str) -> Result<Self, V2Error> {
        let parts = UrlParts::split(text).map_err(|why| V2Error::BadUrl(format!("parse {}: {why}", quote(text))))?;
        let query = text.split_once('?').map_or("", |(_, query)| query);
        Ok(Self {
            is_opaque: !parts.scheme.is_empty() && parts.host.is_empty() && !parts.path.starts_with('/'),
            scheme: parts.scheme,
            host: parts.host.to_owned(),
            path: parts.path.to_owned(),
            query: query.to_owned(),
        })
    }

    /// Reads an endpoint as people type it: without a scheme it is reached by HTTP.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_typed(text: &str) -> Result<Self, V2Error> {
        let endpoint = Self::parse(text)?;
        if endpoint.scheme.is_empty() { Self::parse(&format!("http://{text}")) } else { Ok(endpoint) }
    }

    /// The query this endpoint brings along, for a redirection.
    pub(super) fn query(&self) -> &str {
        &self.query
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.scheme.is_empty() { "" } else { ":" };
        let slashes = if self.is_opaque || self.scheme.is_empty() { "" } else { "//" };
        let question = if self.query.is_empty() { "" } else { "?" };
        write!(f, "{}{colon}{slashes}{}{}{question}{}", self.scheme, self.host, self.path, self.query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_printed_as_they_were_typed() {
        for text in ["http://a:1", "https://[::1]:2/x", "unix://f:1", "localhost:1", "http://a/b?c=d"] {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Endpoint::parse_typed("foo").unwrap().to_string(), "http://foo");
    }

    #[test]
    fn a_bare_address_is_refused_in_the_words_of_go() {
        let refused = Endpoint::parse_typed("127.0.0.1:1").unwrap_err().to_string();
        assert_eq!(refused, "parse \"127.0.0.1:1\": first path segment in URL cannot contain colon");
    }
}
