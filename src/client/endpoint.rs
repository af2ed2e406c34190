//! How endpoints are written, read as etcd's client reads them.

use super::ClientError;

/// Where one member listens for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The text it was given as, for messages.
    pub text: String,
    /// What a connection is made to.
    pub address: Address,
    /// Whether the connection has to be encrypted.
    pub security: Security,
}

/// What a connection is made to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port` over TCP.
    Tcp(String),
    /// The path of a Unix socket.
    Unix(String),
}

/// What the scheme of an endpoint says about encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// `http`: never, even when certificates are configured.
    Clear,
    /// No scheme, or `unix`: if certificates are configured.
    AsConfigured,
    /// `https` and `unixs`: always.
    Required,
}

impl Endpoint {
    /// Reads a list of endpoints.
    ///
    /// # Errors
    /// [`ClientError::NoEndpoints`] for an empty list.
    pub fn parse_all(texts: &[String]) -> Result<Vec<Self>, ClientError> {
        if texts.is_empty() {
            return Err(ClientError::NoEndpoints);
        }
        Ok(texts.iter().map(|text| Self::parse(text)).collect())
    }

    /// Reads one endpoint. Any text is one: what makes no sense fails when it is connected to, as in etcd.
    pub fn parse(text: &str) -> Self {
        let (scheme, rest) = text.split_once("://").map_or_else(|| unix_opaque(text), |(scheme, rest)| (scheme, rest));
        let security = match scheme {
            "https" | "unixs" => Security::Required,
            "http" => Security::Clear,
            _ => Security::AsConfigured,
        };
        let address = match scheme {
            "unix" | "unixs" => Address::Unix(rest.to_owned()),
            "http" | "https" => Address::Tcp(rest.split(['/', '?', '#']).next().unwrap_or_default().to_owned()),
            _ => Address::Tcp(text.to_owned()),
        };
        Self { text: text.to_owned(), address, security }
    }

    /// The address without the scheme, as it appears in messages.
    pub fn authority(&self) -> &str {
        match &self.address {
            Address::Tcp(authority) | Address::Unix(authority) => authority,
        }
    }
}

/// `unix:path` without slashes is an endpoint too.
fn unix_opaque(text: &str) -> (&str, &str) {
    match text.split_once(':') {
        Some((scheme @ ("unix" | "unixs"), path)) => (scheme, path),
        _ => ("", text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Address, Security) {
        let endpoint = Endpoint::parse(text);
        (endpoint.address, endpoint.security)
    }

    fn tcp(authority: &str, security: Security) -> (Address, Security) {
        (Address::Tcp(authority.to_owned()), security)
    }

    fn unix(path: &str, security: Security) -> (Address, Security) {
        (Address::Unix(path.to_owned()), security)
    }

    #[test]
    fn schemes_decide_transport_and_security() {
        assert_eq!(parsed("10.0.0.1:2379"), tcp("10.0.0.1:2379", Security::AsConfigured));
        assert_eq!(parsed("http://a:1/ignored"), tcp("a:1", Security::Clear));
        assert_eq!(parsed("https://a:1"), tcp("a:1", Security::Required));
        assert_eq!(parsed("unix:///run/q.sock"), unix("/run/q.sock", Security::AsConfigured));
        assert_eq!(parsed("unix://localhost:1234"), unix("localhost:1234", Security::AsConfigured));
        assert_eq!(parsed("unix:q.sock"), unix("q.sock", Security::AsConfigured));
        assert_eq!(parsed("unixs:///run/q.sock"), unix("/run/q.sock", Security::Required));
    }

    #[test]
    fn there_must_be_an_endpoint() {
        assert_eq!(Endpoint::parse_all(&[]), Err(ClientError::NoEndpoints));
    }
}
