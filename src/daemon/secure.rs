//! From the options about TLS to what listens and dials with it.

use anyhow::{Context as _, Result};

use crate::{
    config::{Config, KeyPair, ListenUrl, Presented, TlsSide, TlsVersion},
    tls::{
        Acceptor, AcceptorOptions, AllowedNames, Clients, Dialler, DiallerOptions, Identity, PairFiles, PeerNames,
        Rules, SelfSigned, Trust, Version, is_suite_available, self_signed,
    },
};

/// Encryption of everything this member listens on and dials.
#[derive(Debug)]
pub(super) struct Secure {
    /// For listeners of clients and of scrapers; `None` if no URL of theirs wants it.
    pub(super) client: Option<Acceptor>,
    /// For listeners of peers.
    pub(super) peer: Option<Acceptor>,
    /// For connections to peers.
    pub(super) dialler: Dialler,
}

impl Secure {
    /// Reads certificates, keys and authorities, and makes the certificates that the member is to make for itself. The data
    /// directory must be there and belong to this process.
    ///
    /// # Errors
    /// Files that cannot be used, with the option's side.
    pub(super) fn of(config: &Config) -> Result<Self> {
        let (listen, tls) = (&config.listen, &config.tls);
        tls.cipher_suites.iter().filter(|name| !is_suite_available(name)).for_each(|name| {
            tracing::warn!(suite = name, "a cipher suite is not available here and never agreed on");
        });
        let clients: Vec<&ListenUrl> =
            [&listen.client, &listen.client_http, &listen.metrics].into_iter().flatten().collect();
        let client = Side { config, tls: &tls.client, name: "client", from: PeerNames::Any };
        let from = if tls.peer.skip_client_san { PeerNames::Any } else { PeerNames::OfSender };
        let peer = Side { config, tls: &tls.peer, name: "peer", from };
        let (peers, peer_pair) = peer.acceptor(&listen.peer.iter().collect::<Vec<_>>())?;
        let (clients, _) = client.acceptor(&clients)?;
        Ok(Self { client: clients, peer: peers, dialler: peer.dialler(peer_pair)? })
    }
}

/// One kind of listener.
struct Side<'c> {
    config: &'c Config,
    tls: &'c TlsSide,
    name: &'static str,
    from: PeerNames,
}

impl Side<'_> {
    /// What encrypts the listeners at `urls`, if one of them wants it, and the pair this side shows, if there is one.
    fn acceptor(&self, urls: &[&ListenUrl]) -> Result<(Option<Acceptor>, Option<PairFiles>)> {
        let Some(pair) = self.pair(urls)? else { return Ok((None, None)) };
        if !urls.iter().any(|url| url.url.scheme().is_tls()) {
            return Ok((None, Some(pair)));
        }
        let clients = self.tls.demands_certificates().then(|| Clients {
            trust: trust(self.tls),
            names: names(self.tls),
            from: self.from,
            revoked: self.tls.crl.clone(),
        });
        let rules = rules(self.config);
        let acceptor = Identity::read(pair.clone())
            .and_then(|identity| Acceptor::new(AcceptorOptions { identity, clients, rules }));
        let acceptor = acceptor.with_context(|| format!("setting up TLS of {} listeners", self.name))?;
        tracing::info!(
            cert = %pair.cert.display(),
            key = %pair.key.display(),
            trusted_ca = self.tls.trusted_ca.as_ref().map(|path| path.display().to_string()),
            client_cert_auth = self.tls.client_cert_auth,
            crl = self.tls.crl.as_ref().map(|path| path.display().to_string()),
            allowed_cn = ?self.tls.allowed_cns,
            allowed_hostname = ?self.tls.allowed_hostnames,
            cipher_suites = ?self.config.tls.cipher_suites,
            "starting with {} TLS", self.name
        );
        Ok((Some(acceptor), Some(pair)))
    }

    fn pair(&self, urls: &[&ListenUrl]) -> Result<Option<PairFiles>> {
        match &self.tls.server {
            None => Ok(None),
            Some(Presented::Files(pair)) => Ok(Some(files(pair))),
            Some(Presented::Generated) => self.generate(urls).map(Some),
        }
    }

    fn generate(&self, urls: &[&ListenUrl]) -> Result<PairFiles> {
        let directory = self.config.member.data_dir.join("fixtures").join(self.name);
        let mut hosts: Vec<String> = urls.iter().map(|url| host(url)).collect();
        hosts.sort();
        hosts.dedup();
        let years = self.config.tls.self_signed_years;
        let made = self_signed(SelfSigned { directory: &directory, hosts: &hosts, years });
        let made = made.with_context(|| format!("--{}auto-tls", if self.name == "peer" { "peer-" } else { "" }))?;
        tracing::info!(directory = %directory.display(), "automatically generate certificates");
        Ok(made)
    }

    /// What dials others of this side. Certificates that members make for themselves are known to nobody, so with them
    /// nobody is verified (etcd's rule).
    fn dialler(&self, listening: Option<PairFiles>) -> Result<Dialler> {
        if *self.tls == TlsSide::default() && self.config.tls.has_default_rules() {
            return Ok(Dialler::default());
        }
        let pair = self.tls.client.as_ref().map(files).or(listening);
        let trust = (self.tls.server != Some(Presented::Generated)).then(|| trust(self.tls));
        // Servers are asked for the names that clients must have, too, where this side shows something (etcd's rule).
        let names = self.tls.server.as_ref().map_or(AllowedNames::Any, |_| names(self.tls));
        let rules = rules(self.config);
        let dialler = pair
            .map(Identity::read)
            .transpose()
            .and_then(|identity| Dialler::new(DiallerOptions { identity, trust, names, rules }));
        dialler.with_context(|| format!("setting up TLS of connections to {}s", self.name))
    }
}

/// What dials the client URLs of members, as a node that stands in for them does: with the settings of clients, or those of
/// peers where there are none (etcd's rule).
///
/// # Errors
/// Files that cannot be used.
pub(super) fn member_dialler(config: &Config, peers: &Dialler) -> Result<Dialler> {
    let side = Side { config, tls: &config.tls.client, name: "client", from: PeerNames::Any };
    if *side.tls == TlsSide::default() {
        return Ok(peers.clone());
    }
    let shown = match &side.tls.server {
        Some(Presented::Files(pair)) => Some(files(pair)),
        Some(Presented::Generated) | None => None,
    };
    side.dialler(shown)
}

/// As a certificate names it: the host of a socket file is this one.
fn host(url: &ListenUrl) -> String {
    if url.url.scheme().is_unix() { "localhost".to_owned() } else { url.url.host().to_owned() }
}

fn trust(side: &TlsSide) -> Trust {
    side.trusted_ca.clone().map_or(Trust::System, Trust::File)
}

fn names(side: &TlsSide) -> AllowedNames {
    match (side.allowed_cns.as_slice(), side.allowed_hostnames.as_slice()) {
        ([], []) => AllowedNames::Any,
        ([], hosts) => AllowedNames::Hosts(hosts.to_vec()),
        (names, _) => AllowedNames::Common(names.to_vec()),
    }
}

fn files(pair: &KeyPair) -> PairFiles {
    PairFiles { cert: pair.cert.clone(), key: pair.key.clone(), password: pair.password.clone() }
}

pub(crate) fn rules(config: &Config) -> Rules {
    let version = |version| match version {
        TlsVersion::V1_2 => Version::V1_2,
        TlsVersion::V1_3 => Version::V1_3,
    };
    Rules {
        min: version(config.tls.min_version),
        max: config.tls.max_version.map(version),
        suites: config.tls.cipher_suites.clone(),
    }
}
