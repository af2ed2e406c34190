//! The listening side of a handshake.

use std::{
    io,
    net::IpAddr,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    pki_types::CertificateDer,
    server::{Acceptor as Hello, NoServerSessionStorage},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::lookup_host,
    time::timeout,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::{
    AllowedNames, Identity, Rules, TlsError, Trust,
    certificate::Certificate,
    kept::{Kept, Look, freshen},
    revoked::Revoked,
    trust::{OfClients, Trusted},
    turns::{Turn, Turns},
};

/// How long a handshake may take, from the first byte to the last (etcd's limit).
pub const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);

/// What a listener offers, in its order of preference.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Whether clients have to come from where their certificates say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerNames {
    /// From anywhere.
    Any,
    /// The alternative names of a certificate that has some have to name the address it is shown from (etcd's rule
    /// between members).
    OfSender,
}

/// Which clients are let in.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Whose certificates they must show.
    pub trust: Trust,
    /// Which names their certificates must have.
    pub names: AllowedNames,
    /// Where they may come from.
    pub from: PeerNames,
    /// The file with the serial numbers of certificates that count no more.
    pub revoked: Option<PathBuf>,
}

/// How a listener encrypts.
#[derive(Clone, Debug)]
pub struct AcceptorOptions {
    /// What it shows.
    pub identity: Identity,
    /// Who clients must be; `None` does not ask them.
    pub clients: Option<Clients>,
    /// Versions and suites.
    pub rules: Rules,
}

/// Makes accepted connections encrypted ones. Clones share the bound on handshakes, unless they are [`Acceptor::for_listener`].
///
/// Files are looked at before every handshake, so that new ones count from the next one on.
#[derive(Clone, Debug)]
pub struct Acceptor {
    shared: Arc<Shared>,
    turns: Arc<Turns>,
}

#[derive(Debug)]
struct Shared {
    identity: Identity,
    clients: Option<Known>,
    rules: Rules,
    built: ArcSwap<Built>,
}

/// What says which clients are let in.
#[derive(Debug)]
struct Known {
    trust: Arc<Kept<Trusted>>,
    names: AllowedNames,
    from: PeerNames,
    revoked: Option<Arc<Kept<Revoked>>>,
}

/// A configuration, and the authorities it was made for.
#[derive(Debug)]
struct Built {
    config: Arc<ServerConfig>,
    trusted: Option<Arc<Trusted>>,
}

/// A handshake that failed.
#[derive(Debug)]
pub struct Rejected {
    /// Whom the client asked for; empty if it did not say.
    pub server_name: String,
    /// Why it failed; [`super::words`] tells it.
    pub cause: io::Error,
}

impl Rejected {
    /// How it failed, for a count: `timed_out`, `cut_off` to make room for others, `broken_off` by the client, or `refused`.
    pub fn reason(&self) -> &'static str {
        match self.cause.kind() {
            io::ErrorKind::TimedOut => "timed_out",
            io::ErrorKind::ConnectionAborted => "cut_off",
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "broken_off",
            _ => "refused",
        }
    }
}

impl From<io::Error> for Rejected {
    fn from(cause: io::Error) -> Self {
        Self { server_name: String::new(), cause }
    }
}

impl Acceptor {
    /// Reads what `options` name.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(options: AcceptorOptions) -> Result<Self, TlsError> {
        let AcceptorOptions { identity, clients, rules } = options;
        let clients = clients.map(Known::read).transpose()?;
        let built = ArcSwap::from_pointee(build(&identity, clients.as_ref(), &rules)?);
        let shared = Arc::new(Shared { identity, clients, rules, built });
        Ok(Self { shared, turns: Turns::new() })
    }

    /// The same with a bound on handshakes of its own.
    #[must_use]
    pub fn for_listener(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), turns: Turns::new() }
    }

    /// A turn for a connection from there (`None` on a socket file), from its first byte on.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`], [`io::ErrorKind::ConnectionAborted`]: too many are under way.
    pub async fn turn(&self, remote: Option<IpAddr>) -> io::Result<Turn> {
        self.turns.take(remote).await
    }

    /// Takes a turn and shakes hands with a client at `remote`, as [`Acceptor::accept_with`].
    ///
    /// # Errors
    /// [`Rejected`].
    pub async fn accept<I>(&self, io: I, remote: Option<IpAddr>) -> Result<ServerStream<I>, Rejected>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        self.accept_with(self.turn(remote).await?, io, remote).await
    }

    /// Shakes hands with a client at `remote` (`None` on a socket file), within [`HANDSHAKE_PATIENCE`].
    ///
    /// # Errors
    /// [`Rejected`]; the client was told, as far as the protocol allows.
    pub async fn accept_with<I>(&self, turn: Turn, io: I, remote: Option<IpAddr>) -> Result<ServerStream<I>, Rejected>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let mut server_name = String::new();
        let shaken = async {
            let stream = turn.within(self.shake(io, &mut server_name)).await?;
            // Names are looked up in the client's own time.
            drop(turn);
            self.check(stream, remote).await
        };
        let done = timeout(HANDSHAKE_PATIENCE, shaken).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        done.map_err(|cause| Rejected { server_name, cause })
    }

    async fn shake<I>(&self, io: I, server_name: &mut String) -> io::Result<ServerStream<I>>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let hello = LazyConfigAcceptor::new(Hello::default(), io).await?;
        hello.client_hello().server_name().unwrap_or_default().clone_into(server_name);
        Ok(ServerStream(hello.into_stream(self.shared.config().await).await?))
    }

    async fn check<I>(&self, stream: ServerStream<I>, remote: Option<IpAddr>) -> io::Result<ServerStream<I>> {
        if let Some(clients) = &self.shared.clients {
            clients.check(stream.shown(), remote).await?;
        }
        Ok(stream)
    }
}

impl Shared {
    /// The configuration by what the files hold now.
    async fn config(&self) -> Arc<ServerConfig> {
        freshen(self.looked_at()).await;
        let built = self.built.load_full();
        let trusted = self.clients.as_ref().map(|clients| clients.trust.current());
        if trusted.as_ref().map(Arc::as_ptr) == built.trusted.as_ref().map(Arc::as_ptr) {
            return Arc::clone(&built.config);
        }
        match build(&self.identity, self.clients.as_ref(), &self.rules) {
            Ok(new) => {
                let config = Arc::clone(&new.config);
                self.built.store(Arc::new(new));
                config
            }
            Err(error) => {
                tracing::warn!(%error, "new authorities cannot be used; the last ones stay in force");
                Arc::clone(&built.config)
            }
        }
    }

    fn looked_at(&self) -> Vec<Arc<dyn Look>> {
        let mut all = vec![self.identity.looked_at()];
        if let Some(clients) = &self.clients {
            all.push(Arc::clone(&clients.trust) as _);
            all.extend(clients.revoked.iter().map(|revoked| Arc::clone(revoked) as _));
        }
        all
    }
}

impl Known {
    fn read(clients: Clients) -> Result<Self, TlsError> {
        let Clients { trust, names, from, revoked } = clients;
        let revoked = revoked.map(|path| Kept::read(vec![path])).transpose()?;
        Ok(Self { trust: trust.read()?, names, from, revoked })
    }

    /// What is asked of certificates that authorities stand for, after the handshake as in etcd: the other side is cut off.
    async fn check(&self, shown: Vec<CertificateDer<'static>>, remote: Option<IpAddr>) -> io::Result<()> {
        if let (PeerNames::OfSender, Some(remote), Some(first)) = (self.from, remote, shown.first()) {
            check_sender(Certificate::read(first).map_err(io::Error::other)?, remote).await?;
        }
        let Some(revoked) = &self.revoked else { return Ok(()) };
        // A client may have taken its time since the files were looked at.
        freshen(vec![Arc::clone(revoked) as _]).await;
        revoked.current().check(&shown).map_err(io::Error::other)
    }
}

fn build(identity: &Identity, clients: Option<&Known>, rules: &Rules) -> Result<Built, TlsError> {
    let builder = ServerConfig::builder_with_provider(rules.provider()?)
        .with_protocol_versions(&rules.versions())
        .map_err(|error| TlsError::Rules(error.to_string()))?;
    let trusted = clients.map(|clients| clients.trust.current());
    let builder = match clients.zip(trusted.clone()) {
        Some((Known { names, .. }, trusted)) => {
            builder.with_client_cert_verifier(Arc::new(OfClients { trusted, names: names.clone() }))
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(identity.clone()));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Built { config: Arc::new(config), trusted })
}

/// A certificate with alternative names has to name where it is shown from, by its addresses or by names that lead there.
async fn check_sender(shown: Certificate, remote: IpAddr) -> io::Result<()> {
    let Certificate { dns_names, addresses, .. } = shown;
    let remote = remote.to_canonical();
    if (dns_names.is_empty() && addresses.is_empty()) || addresses.contains(&remote) {
        return Ok(());
    }
    if dns_names.is_empty() {
        let listed: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        return Err(io::Error::other(format!("x509: certificate is valid for {}, not {remote}", listed.join(", "))));
    }
    for name in &dns_names {
        if leads_to(name, remote).await {
            return Ok(());
        }
    }
    let listed: Vec<String> = dns_names.iter().map(|name| format!("{name:?}")).collect();
    Err(io::Error::other(format!("tls: \"{remote}\" does not match any of DNSNames [{}]", listed.join(" "))))
}

/// A name with a wildcard leads nowhere: no system call tells the names of an address here.
async fn leads_to(name: &str, remote: IpAddr) -> bool {
    let found = lookup_host((name, 0)).await;
    found.is_ok_and(|mut addresses| addresses.any(|address| address.ip().to_canonical() == remote))
}

/// An encrypted connection, from the side that accepted it.
#[derive(Debug)]
pub struct ServerStream<I>(TlsStream<I>);

impl<I> ServerStream<I> {
    /// Whether HTTP/2 or HTTP/1 was agreed on; `None` if nothing was.
    pub fn http2(&self) -> Option<bool> {
        let (_, session) = self.0.get_ref();
        session.alpn_protocol().map(|protocol| protocol == b"h2")
    }

    /// The common name of the certificate that the client has shown and that was verified, empty if it has none; `None` if
    /// the client has shown no certificate.
    pub fn common_name(&self) -> Option<String> {
        let shown = self.shown();
        let certificate = Certificate::read(shown.first()?).ok();
        Some(certificate.map(|certificate| certificate.common_name).unwrap_or_default())
    }

    /// The certificates the client has shown, its own first; none if it was not asked.
    fn shown(&self) -> Vec<CertificateDer<'static>> {
        let (_, session) = self.0.get_ref();
        session.peer_certificates().unwrap_or_default().iter().map(|shown| shown.clone().into_owned()).collect()
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for ServerStream<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ServerStream<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
