//! Who has an address that is taken? Linux tells in `/proc`: which process locks a file, which sockets listen, and, to
//! root and to the same user, which sockets a process has.
//!
//! Only what is certain is told. What cannot be seen, from another namespace or as another user, is `None`.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use crate::disk::Locker;

/// The state of a socket that listens, in `/proc/net/tcp`.
const LISTENS: &str = "0A";

/// Whether everything that listens in the way of `address` belongs to the process that locks `file`.
pub(super) fn has_address(file: &Path, address: SocketAddr) -> Option<bool> {
    let sockets = sockets(Locker::of(file)?.process)?;
    let mut in_the_way = listening().into_iter().filter(|(taken, _)| clash(*taken, address)).peekable();
    in_the_way.peek()?;
    Some(in_the_way.all(|(_, inode)| sockets.contains(&inode)))
}

/// Whether one host cannot have listeners at both addresses.
pub(super) fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let (ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port() && (covers(ip, other_ip) || covers(other_ip, ip))
}

/// Whether who listens at `one` has the other address, too: all of IPv6 includes IPv4.
fn covers(one: IpAddr, other: IpAddr) -> bool {
    one == other || one.is_unspecified() && (one.is_ipv6() || other.is_ipv4())
}

/// The inodes of the sockets of a process.
fn sockets(pid: u32) -> Option<BTreeSet<u64>> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let links = files.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let inode = |link: &Path| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    Some(links.filter_map(|link| inode(&link)).collect())
}

/// Where somebody listens on this host, and the socket's inode.
fn listening() -> Vec<(SocketAddr, u64)> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().filter_map(|path| File::open(path).ok());
    let lines = tables.flat_map(|table| BufReader::new(table).lines().map_while(Result::ok));
    lines.filter_map(|line| listener(&line)).collect()
}

fn listener(line: &str) -> Option<(SocketAddr, u64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (address, state, inode) = (words.get(1)?, words.get(3)?, words.get(9)?);
    if *state != LISTENS {
        return None;
    }
    let (ip, port) = address.split_once(':')?;
    Some((SocketAddr::new(hex_address(ip)?, u16::from_str_radix(port, 16).ok()?), inode.parse().ok()?))
}

/// Words of the address as the kernel holds them, in the byte order of the machine.
fn hex_address(hex: &str) -> Option<IpAddr> {
    let words = hex.as_bytes().chunks(8).map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok());
    let bytes: Vec<u8> = words.collect::<Option<Vec<u32>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    let ipv4 = <[u8; 4]>::try_from(bytes.as_slice()).map(|bytes| Ipv4Addr::from(bytes).into());
    ipv4.or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(|bytes| Ipv6Addr::from(bytes).into())).ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_is_found_with_its_process() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("bound");
        assert_eq!(has_address(file.path(), address), None, "nobody locks the file");
        file.as_file().lock().expect("locked");
        assert_eq!(has_address(file.path(), address), Some(true));
        assert_eq!(has_address(file.path(), (Ipv6Addr::UNSPECIFIED, address.port()).into()), Some(true));
        assert_eq!(has_address(file.path(), ([127, 0, 0, 2], address.port()).into()), None, "nobody listens there");
    }

    #[test]
    fn addresses_clash_where_one_includes_the_other() {
        let clash = |one: &str, other: &str| {
            let (one, other) = (one.parse().expect("an address"), other.parse().expect("an address"));
            assert_eq!(clash(one, other), clash(other, one));
            clash(one, other)
        };
        assert!(
            clash("[::]:1", "10.0.0.1:1")
                && clash("0.0.0.0:1", "10.0.0.1:1")
                && clash("[::ffff:10.0.0.1]:1", "10.0.0.1:1")
        );
        assert!(!clash("[::]:1", "10.0.0.1:2") && !clash("0.0.0.0:1", "[::1]:1") && !clash("[::1]:1", "127.0.0.1:1"));
    }
}
