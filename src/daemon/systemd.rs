//! What the daemon tells systemd, and the sockets it may be handed.
//!
//! A notification that cannot be delivered never stops the service. Without the `systemd` feature, or outside systemd,
//! every call does nothing.

use std::{io, net::TcpListener, time::Duration};

/// What the service manager shall know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The member has joined, published itself and answered a read index round.
    Ready,
    /// The configuration is being read again; sent with [`State::Monotonic`], and [`State::Ready`] ends it.
    Reloading,
    /// When this was sent, by the system's monotonic clock.
    Monotonic(Duration),
    /// Shutdown has begun.
    Stopping,
    /// One line for `systemctl status`.
    Status(String),
    /// Start or stop takes longer: the time-out counts anew from now.
    Extend(Duration),
    /// The threads of the member make progress.
    Watchdog,
}

impl State {
    fn assignment(&self) -> (&'static str, String) {
        match self {
            Self::Ready => ("READY", "1".to_owned()),
            Self::Reloading => ("RELOADING", "1".to_owned()),
            Self::Monotonic(time) => ("MONOTONIC_USEC", time.as_micros().to_string()),
            Self::Stopping => ("STOPPING", "1".to_owned()),
            Self::Status(text) => ("STATUS", text.replace('\n', " ")),
            Self::Extend(time) => ("EXTEND_TIMEOUT_USEC", time.as_micros().to_string()),
            Self::Watchdog => ("WATCHDOG", "1".to_owned()),
        }
    }
}

/// Sends all of `states` in one datagram; `true` if a service manager received it.
pub fn notify(states: &[State]) -> bool {
    let assignments: Vec<_> = states.iter().map(State::assignment).collect();
    #[cfg(feature = "systemd")]
    let sent = systemd::daemon::notify(assignments.iter()).unwrap_or(false);
    #[cfg(not(feature = "systemd"))]
    let sent = assignments.is_empty();
    sent
}

/// The time within which the service manager wants to hear [`State::Watchdog`], if it watches this process.
pub fn watchdog_period() -> Option<Duration> {
    #[cfg(feature = "systemd")]
    let period = systemd::daemon::watchdog_enabled().unwrap_or(0);
    #[cfg(not(feature = "systemd"))]
    let period = 0;
    (period > 0).then(|| Duration::from_micros(period))
}

/// Writes one record to the journal.
///
/// # Errors
/// A journal that is not there or does not take the record.
pub fn journal(priority: u8, record: &str) -> io::Result<()> {
    #[cfg(feature = "systemd")]
    {
        let fields = [format!("PRIORITY={priority}"), format!("MESSAGE={record}"), "SYSLOG_IDENTIFIER=etcd".to_owned()];
        systemd::journal::send(&fields.each_ref().map(String::as_str)).map_err(io::Error::other)
    }
    #[cfg(not(feature = "systemd"))]
    Err(io::Error::other(format!("built without systemd: {priority} {record}")))
}

/// The listening TCP sockets passed by socket activation, in order. Sockets of other kinds are left alone.
pub fn inherited_listeners() -> Vec<TcpListener> {
    #[cfg(feature = "systemd")]
    let listeners = systemd::daemon::listen_fds()
        .map(|fds| fds.iter().filter_map(|fd| systemd::daemon::tcp_listener(fd).ok()).collect())
        .unwrap_or_default();
    #[cfg(not(feature = "systemd"))]
    let listeners = Vec::new();
    listeners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_stays_one_line() {
        assert_eq!(State::Status("a\nREADY=1".into()).assignment(), ("STATUS", "a READY=1".into()));
    }

    #[test]
    fn extension_is_in_microseconds() {
        assert_eq!(State::Extend(Duration::from_secs(2)).assignment().1, "2000000");
    }
}
