//! TLS for every listener and dialler: rustls with ring, set up as etcd's options say it.
//!
//! An [`Identity`] is a certificate with its key, [`Trust`] says whose certificates count, [`Rules`] which versions and
//! suites. From them come an [`Acceptor`] for listeners and a [`Dialler`] for connections this program makes. Left to
//! others: which options ask for what (`config`, `daemon`), sockets and deadlines of what follows the handshake (`api`,
//! `transport`, `client`).
//!
//! Invariants:
//! - A handshake that fails says why in the words of etcd's log ([`words`]), whatever the library calls it.
//! - Handshakes are bounded in time ([`HANDSHAKE_PATIENCE`]) and in number ([`HANDSHAKES_MAX`]); one that stalls keeps nobody
//!   else waiting for longer than a moment.
//! - Every handshake is a full one: nothing that was trusted once is trusted again without being looked at.
//! - Files count from the first handshake on after they have changed; those that cannot be used change nothing.

mod certificate;
mod dialler;
mod error;
mod expiry;
mod identity;
pub mod jws;
mod kept;
mod key;
mod names;
mod revoked;
mod rules;
mod selfsigned;
mod server;
mod signers;
mod timely;
mod trust;
mod turns;

pub use certificate::{Certificate, Uses, certificates};
pub use dialler::{ClientStream, Dialler, DiallerOptions, Protocol};
pub use error::{TlsError, words};
pub use expiry::{ENDS_SOON, keep_up};
pub use identity::{Identity, PairFiles};
pub use names::AllowedNames;
pub use revoked::revocation_list_due;
pub use rules::{Rules, Version, is_suite_available};
pub use selfsigned::{SelfSigned, self_signed};
pub use server::{Acceptor, AcceptorOptions, Clients, HANDSHAKE_PATIENCE, PeerNames, Rejected, ServerStream};
pub use trust::Trust;
pub use turns::{HANDSHAKES_MAX, Turn};

#[cfg(test)]
mod tests;
