//! URLs of listeners and members, read by etcd's rules and refused in etcd's words.
//!
//! - A URL has a scheme of four, and a host with a port (`http`, `https`) or a socket path (`unix`, `unixs`); nothing else
//!   fits into a [`Url`].
//! - Lists are sorted as text and free of repetitions: member IDs are computed from them.

use std::{fmt, net::IpAddr, path::PathBuf};

use super::model::Bind;

/// Schemes a listener or member may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are the schemes")]
pub enum Scheme {
    Http,
    Https,
    Unix,
    Unixs,
}

impl Scheme {
    /// Whether connections are encrypted.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Unixs)
    }

    /// Whether the URL names a socket file.
    pub fn is_unix(self) -> bool {
        matches!(self, Self::Unix | Self::Unixs)
    }
}

/// One URL, printed as etcd prints it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    text: String,
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Url {
    /// Reads one URL.
    ///
    /// # Errors
    /// etcd's text for what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        todo!("{text}")
    }

    /// As etcd prints it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host name or address without brackets; for socket files the path.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 for socket files.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host when it is an IP address.
    pub fn ip(&self) -> Option<IpAddr> {
        if self.scheme.is_unix() { None } else { self.host.parse().ok() }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A URL that can be bound: its host is an address, `localhost` or empty, or it names a socket file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenUrl {
    /// The URL as given.
    pub url: Url,
    /// What it binds.
    pub bind: Bind,
}

impl ListenUrl {
    /// Checks that `url` can be bound.
    ///
    /// # Errors
    /// etcd's text when the host is a name other than `localhost`.
    pub fn new(url: Url) -> Result<Self, String> {
        let bind = if url.scheme.is_unix() {
            Bind::Unix(PathBuf::from(&url.host))
        } else if url.host.is_empty() {
            Bind::Any(url.port)
        } else if url.host == "localhost" {
            Bind::Localhost(url.port)
        } else if let Some(ip) = url.ip() {
            Bind::Address(ip, url.port)
        } else {
            return Err(format!("expected IP in URL for binding ({url})"));
        };
        Ok(Self { url, bind })
    }
}
