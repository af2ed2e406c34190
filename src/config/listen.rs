//! Where a listener binds: one rule for the daemon that listens and for the check that tries.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs as _},
};

use super::model::Bind;

impl Bind {
    /// The TCP addresses that may be meant, the best first; none for a socket file. Asks the system what `localhost` is.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            // Both families where the system has IPv6, else IPv4 alone.
            Self::Any(port) => {
                [IpAddr::from([0_u16; 8]), IpAddr::from([0_u8; 4])].map(|ip| (ip, *port).into()).to_vec()
            }
            Self::Address(ip, port) => vec![SocketAddr::new(*ip, *port)],
            Self::Localhost(port) => vec![localhost(*port)],
            Self::Unix(_) => Vec::new(),
        }
    }
}

/// What the system says `localhost` is, IPv4 before IPv6; 127.0.0.1 where it does not know, as in a container without
/// `/etc/hosts` (RFC 6761 reserves the name for loopback).
fn localhost(port: u16) -> SocketAddr {
    let known = loopback(("localhost", port).to_socket_addrs().into_iter().flatten());
    known.unwrap_or_else(|| SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port))
}

fn loopback(addresses: impl Iterator<Item = SocketAddr>) -> Option<SocketAddr> {
    addresses.filter(|address| address.ip().is_loopback()).min_by_key(SocketAddr::is_ipv6)
}

/// Listens at the first of `addresses` that the system has. One that is taken is no reason to try the next.
/// `std` sets `SO_REUSEADDR`, so that a killed daemon's port can be bound again at once.
///
/// # Errors
/// The address that was in the way, and why.
pub fn first_bound(addresses: &[SocketAddr]) -> Result<TcpListener, (SocketAddr, io::Error)> {
    let mut failure = None;
    for address in addresses {
        match TcpListener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(cause) if cause.kind() == io::ErrorKind::AddrInUse => return Err((*address, cause)),
            Err(cause) => failure = failure.or(Some((*address, cause))),
        }
    }
    let nowhere = || (SocketAddr::from(([0, 0, 0, 0], 0)), io::Error::from(io::ErrorKind::AddrNotAvailable));
    Err(failure.unwrap_or_else(nowhere))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_ipv4_whatever_the_system_names_first() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let known = ["[::1]:1", "127.0.0.1:1", "10.0.0.1:1"].map(address);
        assert_eq!(loopback(known.into_iter()), Some(address("127.0.0.1:1")));
        assert_eq!(loopback([address("[::1]:1")].into_iter()), Some(address("[::1]:1")));
        assert_eq!(loopback([address("10.0.0.1:1")].into_iter()), None);
    }

    #[test]
    fn an_address_that_is_taken_is_not_passed_over() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("bound");
        let (place, cause) = first_bound(&[address, SocketAddr::from(([127, 0, 0, 1], 0))]).expect_err("taken");
        assert_eq!((place, cause.kind()), (address, io::ErrorKind::AddrInUse));
    }
}
