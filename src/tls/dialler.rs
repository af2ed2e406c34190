//! The dialling side of a handshake.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use rustls::{ClientConfig, client::Resumption, pki_types::ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::{
    AllowedNames, Identity, Rules, TlsError, Trust,
    kept::{Look, freshen},
    trust::{Anybody, OfServers},
};

/// An encrypted connection, from the side that made it.
pub type ClientStream<I> = tokio_rustls::client::TlsStream<I>;

/// What is going to be spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 without saying so: members of etcd offer HTTP/2 alone and speak this all the same.
    Unnamed,
    /// HTTP/2, which gRPC has to name.
    Http2,
}

/// How to dial.
#[derive(Clone, Debug, Default)]
pub struct DiallerOptions {
    /// What is shown to servers that ask for a certificate.
    pub identity: Option<Identity>,
    /// Whose certificates servers have to show; `None` takes every server for the right one.
    pub trust: Option<Trust>,
    /// Which names the certificates of servers must have, besides the one they are dialled by.
    pub names: AllowedNames,
    /// Versions and suites.
    pub rules: Rules,
}

/// Makes dialled connections encrypted ones. Clones share what was read. The default trusts the system's authorities,
/// which it reads when they are needed first, and shows nothing.
///
/// Files are looked at before every handshake, so that new ones count from the next one on.
#[derive(Clone, Debug, Default)]
pub struct Dialler {
    ready: Arc<OnceLock<Ready>>,
    /// What certificates have to carry instead of the name of the host.
    name: Option<Arc<str>>,
}

/// What was read.
#[derive(Clone)]
struct Ready {
    config: Arc<ClientConfig>,
    looked_at: Vec<Arc<dyn Look>>,
}

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ready").finish_non_exhaustive()
    }
}

impl Dialler {
    /// Reads what `options` name.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(options: DiallerOptions) -> Result<Self, TlsError> {
        Ok(Self { ready: Arc::new(OnceLock::from(ready(options)?)), name: None })
    }

    /// Takes servers for the right ones whose certificates carry `name`, wherever they are.
    #[must_use]
    pub fn named(&self, name: &str) -> Self {
        Self { ready: Arc::clone(&self.ready), name: Some(name.into()) }
    }

    /// What certificates have to carry, if not the name of the host.
    #[cfg(test)]
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Shakes hands with the server that `host` leads to, an address or a name without port. The caller sets the time for
    /// it.
    ///
    /// # Errors
    /// [`super::words`] tells them.
    pub async fn connect<I>(&self, host: &str, protocol: Protocol, io: I) -> io::Result<ClientStream<I>>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let host = self.name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(bare(host).to_owned())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{host:?} is no name of a host")))?;
        let Ready { config, looked_at } = self.ready()?;
        freshen(looked_at).await;
        let connector = TlsConnector::from(config);
        match protocol {
            Protocol::Unnamed => connector.connect(name, io).await,
            Protocol::Http2 => connector.with_alpn(vec![b"h2".to_vec()]).connect(name, io).await,
        }
    }

    fn ready(&self) -> io::Result<Ready> {
        if let Some(ready) = self.ready.get() {
            return Ok(ready.clone());
        }
        let options = DiallerOptions { trust: Some(Trust::System), ..DiallerOptions::default() };
        let read = ready(options).map_err(io::Error::other)?;
        Ok(self.ready.get_or_init(|| read).clone())
    }
}

fn ready(options: DiallerOptions) -> Result<Ready, TlsError> {
    let DiallerOptions { identity, trust, names, rules } = options;
    let mut looked_at: Vec<Arc<dyn Look>> = identity.iter().map(Identity::looked_at).collect();
    let builder = ClientConfig::builder_with_provider(rules.provider()?)
        .with_protocol_versions(&rules.versions())
        .map_err(|error| TlsError::Rules(error.to_string()))?
        .dangerous();
    let builder = match trust.map(Trust::read).transpose()? {
        Some(trust) => {
            looked_at.push(Arc::clone(&trust) as _);
            builder.with_custom_certificate_verifier(Arc::new(OfServers { trust, names }))
        }
        None => builder.with_custom_certificate_verifier(Arc::new(Anybody(names))),
    };
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(identity)),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(Ready { config: Arc::new(config), looked_at })
}

/// The host of an authority: without brackets.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host)
}
