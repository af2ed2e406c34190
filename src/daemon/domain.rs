//! Members that stand-ins for a cluster find by the SRV records of a domain.

use std::{io, path::PathBuf, sync::Arc};

use anyhow::{Context as _, Error, Result};

use crate::{
    discovery::{
        dns::{Resolver, Srv},
        srv::Domain,
    },
    proxy::{dial::Dialler, gateway::DIAL_PATIENCE},
    tls::{self, DiallerOptions, Protocol, Trust},
};

/// What the options of a stand-in say of a domain.
#[derive(Clone, Debug)]
pub(super) struct Search {
    /// `--discovery-srv`.
    pub(super) domain: String,
    /// `--discovery-srv-name`.
    pub(super) suffix: String,
    /// `--insecure-discovery`: members are taken as they are.
    pub(super) insecure: bool,
    /// Whose certificates count; the system's authorities if it is nobody's.
    pub(super) ca: Option<PathBuf>,
}

impl Search {
    /// The URLs and records of the members. Unless told otherwise only those that show a certificate of the domain are
    /// taken, as etcd does; nobody is left then, but no error.
    ///
    /// # Errors
    /// No records; an authority that cannot be read.
    pub(super) async fn members(&self) -> Result<Vec<(String, Srv)>> {
        let domain = Domain { domain: self.domain.clone(), suffix: self.suffix.clone() };
        let found = domain.endpoints(&Resolver::of_system()).await.map_err(Error::msg)?;
        tracing::info!(srv_server = self.domain, endpoints = ?found.urls, "discovered endpoints");
        let trust = Some(self.ca.clone().map_or(Trust::System, Trust::File));
        let tls = tls::Dialler::new(DiallerOptions { trust, ..DiallerOptions::default() });
        let tls = tls.context("the authority of members found by DNS")?.named(&self.domain);
        let mut taken = Vec::new();
        for (url, record) in found.urls.into_iter().zip(found.records) {
            if self.insecure || is_trusted(&url, &tls).await {
                taken.push((url, record));
            }
        }
        Ok(taken)
    }
}

async fn is_trusted(url: &str, tls: &tls::Dialler) -> bool {
    let dialler = Dialler { patience: DIAL_PATIENCE, own: Arc::new([]) };
    let shaken = match url.parse::<http::Uri>() {
        Ok(uri) if uri.scheme_str() == Some("https") => dialler.dial_url(&uri, tls, Protocol::Unnamed).await.map(drop),
        _ => Err(io::Error::other("it is not encrypted: take it with --insecure-discovery")),
    };
    if let Err(error) = &shaken {
        tracing::warn!(url, %error, "failed to validate a discovered endpoint; it is not used");
    }
    shaken.is_ok()
}
