//! Who may have how many of the file descriptors that the system grants this process.
//!
//! Nobody who connects may take those that the log and the state need: a member without a descriptor for its next file
//! stops. So what is left beside a reserve is shared out, and accepting waits for a place instead of failing.

use anyhow::{Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::api::Places;

/// Kept back for the log, journals, connections to peers, listeners and pipes. etcd keeps back as many.
const RESERVED: usize = 150;
/// What etcd recommends to whoever grants no more than the reserve.
const RECOMMENDED: usize = 10_000;
/// Most connections of peers: six of them have less than ten each, the rest is room for those that find and join.
const PEERS_MAX: usize = 1024;
/// Most connections to listeners of metrics alone: scrapers and probes are few.
const METRICS_MAX: usize = 64;
/// Most files of a state that are kept open, about what reads of a state of 100 GB touch.
const STATE_FILES_MAX: usize = 400;
/// States that are open at a time: the one that is served, and one that is received.
const STATES: usize = 2;

/// The shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptors {
    /// Connections.
    pub(super) places: Places,
    /// Files of one state that are kept open.
    pub(super) state_files: usize,
}

impl Descriptors {
    /// Raises the limit of this process as far as it may, as Go programs do, and shares it out.
    ///
    /// # Errors
    /// If it is too low to work with, in etcd's words.
    pub(super) fn of_process() -> Result<Self> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        // What cannot be raised is shared out as it is.
        let raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
        let limit = if raised { hard } else { soft };
        Self::share(usize::try_from(limit).unwrap_or(usize::MAX))
    }

    fn share(limit: usize) -> Result<Self> {
        if limit <= RESERVED {
            bail!(
                "file descriptor limit of etcd process is too low; please set higher (limit {limit}, recommended-limit \
                 {RECOMMENDED}): raise LimitNOFILE= in the unit, or ulimit -n in the shell"
            );
        }
        let spare = limit - RESERVED;
        let state_files = (spare / 8).clamp(1, STATE_FILES_MAX);
        let peers = (spare / 4).clamp(1, PEERS_MAX);
        let metrics = (spare / 8).clamp(1, METRICS_MAX);
        let clients = spare.saturating_sub(STATES * state_files + peers + metrics).max(1);
        Ok(Self { places: Places { clients, peers, metrics }, state_files })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_stay_within_the_limit() {
        for limit in [200, 256, 1024, 4096, 65_536, 1 << 30] {
            let Descriptors { places: Places { clients, peers, metrics }, state_files } =
                Descriptors::share(limit).unwrap();
            assert!(clients + peers + metrics + STATES * state_files <= limit - RESERVED, "{limit}");
            assert!(clients >= peers / 2 && peers > 0 && metrics > 0 && state_files > 0, "{limit}");
        }
        assert!(Descriptors::share(151).is_ok());
    }

    #[test]
    fn a_limit_of_the_reserve_alone_is_refused_in_etcds_words() {
        let text = Descriptors::share(RESERVED).unwrap_err().to_string();
        assert!(text.starts_with("file descriptor limit of etcd process is too low; please set higher"), "{text}");
    }
}
