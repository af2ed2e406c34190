//! Connections that end badly, and whose fault that was.

use std::{error::Error as _, io};

use crate::metrics;

/// How a connection ended that was not closed by its client in good order.
#[derive(Debug)]
pub(super) struct Cut {
    error: String,
    /// What the client did wrong; nothing where it has only gone.
    reason: Option<&'static str>,
}

/// It took too long over a head.
const SLOW: &str = "slow";
/// It spoke no protocol that is spoken here.
const MALFORMED: &str = "malformed";
/// It did too often what is allowed: pings, resets.
const FLOOD: &str = "flood";

/// It had not asked for anything when others needed its place.
const CROWDED: &str = "crowded";

impl Cut {
    /// A connection that gives way to others.
    pub(super) fn for_room() -> Self {
        Self { error: "all places are taken, and it was silent for longest".to_owned(), reason: Some(CROWDED) }
    }

    /// Counts it, and tells whoever looks for it.
    pub(super) fn tell(self, endpoint: &'static str) {
        if let Some(reason) = self.reason {
            metrics::CONNECTIONS_CUT.with([endpoint, reason]).inc();
        }
        tracing::debug!(endpoint, reason = self.reason, error = self.error, "a client connection broke");
    }
}

/// What a client did wrong for reading or writing to fail like this.
fn fault(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::TimedOut => Some(SLOW),
        io::ErrorKind::InvalidData => Some(MALFORMED),
        io::ErrorKind::QuotaExceeded => Some(FLOOD),
        _ => None,
    }
}

impl From<io::Error> for Cut {
    fn from(error: io::Error) -> Self {
        Self { reason: fault(&error), error: error.to_string() }
    }
}

impl From<hyper::Error> for Cut {
    fn from(error: hyper::Error) -> Self {
        let io = error.source().and_then(|source| source.downcast_ref()).and_then(fault);
        let reason = if error.is_timeout() { Some(SLOW) } else { io.or(error.is_parse().then_some(MALFORMED)) };
        Self { error: error.to_string(), reason }
    }
}

impl From<h2::Error> for Cut {
    fn from(error: h2::Error) -> Self {
        let is_flood = error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
        // What breaks the protocol is found by the library; what the client says of itself comes from afar.
        let reason = match error.get_io() {
            Some(io) => fault(io),
            None if error.is_remote() => None,
            None => Some(if is_flood { FLOOD } else { MALFORMED }),
        };
        Self { error: error.to_string(), reason }
    }
}
