//! The sockets the daemon listens on: bound by itself, or inherited from systemd.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::{fs::FileTypeExt as _, net::UnixListener},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::socket::{Backlog, listen};

use crate::config::{Bind, ListenUrl, first_bound};

/// Connections that wait in the system's queue until there is a place for them, as many as Go programs let wait; `std` asks
/// for 128.
const WAITING_MAX: i32 = 4096;

/// One listening socket, not yet served.
#[derive(Debug)]
pub(super) enum Socket {
    /// TCP.
    Tcp(TcpListener),
    /// A socket file.
    Unix(UnixListener),
}

/// Sockets passed by socket activation, each taken at most once.
#[derive(Debug, Default)]
pub(super) struct Inherited(Vec<TcpListener>);

impl Inherited {
    /// What systemd passed to this process.
    pub(super) fn of_process() -> Self {
        Self(super::systemd::inherited_listeners())
    }

    /// The inherited socket that listens on one of `addresses`, or on all addresses with the same port.
    fn take(&mut self, addresses: &[SocketAddr]) -> Option<TcpListener> {
        let matches = |listener: &TcpListener| {
            listener.local_addr().is_ok_and(|local| {
                addresses
                    .iter()
                    .any(|wanted| *wanted == local || (wanted.port() == local.port() && local.ip().is_unspecified()))
            })
        };
        let place = self.0.iter().position(matches)?;
        Some(self.0.swap_remove(place))
    }

    /// Sockets nobody asked for; the unit and the options disagree.
    pub(super) fn unused(&self) -> Vec<SocketAddr> {
        self.0.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }
}

/// Binds `url`, unless systemd has done so already.
///
/// # Errors
/// In etcd's words, with the address.
pub(super) fn bind(url: &ListenUrl, inherited: &mut Inherited) -> Result<Socket> {
    match &url.bind {
        Bind::Unix(path) => Ok(Socket::Unix(bind_file(path)?)),
        bind => bind_tcp(url.url.as_str(), &bind.addresses(), inherited).map(Socket::Tcp),
    }
}

/// Binds `address`, unless systemd has done so already.
///
/// # Errors
/// As [`bind`].
pub(super) fn bind_address(address: SocketAddr) -> Result<TcpListener> {
    bind_tcp("--listen-addr", &[address], &mut Inherited::of_process())
}

fn bind_tcp(name: &str, addresses: &[SocketAddr], inherited: &mut Inherited) -> Result<TcpListener> {
    let listener = match inherited.take(addresses) {
        Some(listener) => listener,
        None => first_bound(addresses).map_err(|(address, cause)| {
            let (reason, remedy) = unbound(&cause);
            anyhow::anyhow!("listen tcp {address}: bind: {reason} ({name}): {remedy}")
        })?,
    };
    // The system takes no more than it is configured for; a shorter queue still works.
    if let Err(error) = Backlog::new(WAITING_MAX).and_then(|waiting| listen(&listener, waiting)) {
        tracing::debug!(%error, name, "cannot lengthen the queue of a listener");
    }
    listener.set_nonblocking(true).context("setting a listener to non-blocking")?;
    Ok(listener)
}

/// Why an address was not bound, in Go's words, and what to do.
fn unbound(cause: &io::Error) -> (String, &'static str) {
    let (reason, remedy) = match cause.kind() {
        io::ErrorKind::AddrInUse => ("address already in use", "stop what listens there, or choose another address"),
        io::ErrorKind::AddrNotAvailable => ("cannot assign requested address", "choose an address of this machine"),
        io::ErrorKind::PermissionDenied => {
            ("permission denied", "choose a port this user may bind, or have systemd pass the socket")
        }
        _ => return (cause.to_string(), "choose another address"),
    };
    (reason.to_owned(), remedy)
}

/// A socket file left by a killed daemon must not prevent the start; any other file is not ours to remove.
fn bind_file(path: &Path) -> Result<UnixListener> {
    if let Ok(metadata) = fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            bail!(
                "listen unix {}: there is a file that is not a socket: remove it, or choose another path",
                path.display()
            );
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            bail!("listen unix {}: bind: address already in use", path.display());
        }
        fs::remove_file(path).with_context(|| format!("removing the stale socket {}", path.display()))?;
    }
    let listener = UnixListener::bind(path).with_context(|| format!("listen unix {}", path.display()))?;
    listener.set_nonblocking(true).context("setting a listener to non-blocking")?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_socket_file_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etcd.sock");
        drop(bind_file(&path).unwrap());
        let live = bind_file(&path).unwrap();
        assert!(bind_file(&path).unwrap_err().to_string().contains("address already in use"));
        drop(live);
    }

    #[test]
    fn a_port_that_is_forbidden_is_not_called_taken() {
        let (reason, remedy) = unbound(&io::ErrorKind::PermissionDenied.into());
        assert_eq!(reason, "permission denied");
        assert!(!remedy.contains("stop what listens"), "{remedy}");
        assert!(unbound(&io::ErrorKind::AddrInUse.into()).1.contains("stop what listens"));
    }

    #[test]
    fn other_files_are_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        fs::write(&path, "precious").unwrap();
        bind_file(&path).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn inherited_socket_is_taken_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut inherited = Inherited(vec![listener]);
        assert_eq!(inherited.take(&[address]).unwrap().local_addr().unwrap(), address);
        assert!(inherited.take(&[address]).is_none());
    }
}
