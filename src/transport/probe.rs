//! Small requests that measure the way to each peer.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use super::{
    connect::{Connection, full},
    incoming::{READ_PATIENCE, REFUSAL_BYTES_MAX},
    peer::Peer,
    reports::Topic,
};
use crate::{
    clock::{self, Clock as _},
    metrics,
};

pub(super) const PATH: &str = "/raft/probing";
/// As in etcd; below the five seconds after which a peer closes an idle connection.
const INTERVAL: Duration = Duration::from_secs(4);
/// Weight of the newest round trip in the smoothed one, as in etcd and TCP.
const SMOOTHING: f64 = 0.125;
/// A difference between two clocks that etcd warns about.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct Health {
    #[serde(rename = "OK")]
    ok: bool,
    #[serde(rename = "Now")]
    now: String,
}

/// The answer to a probe.
pub(super) fn answer() -> String {
    let now = SystemTime::UNIX_EPOCH + clock::system().wall();
    format!("{{\"OK\":true,\"Now\":\"{}\"}}\n", humantime::format_rfc3339_nanos(now))
}

/// Probes `peer` until it is gone.
pub(super) async fn run(peer: Arc<Peer>) {
    let round_trip = metrics::PEER_ROUND_TRIP.with([&peer.id.to_string()]);
    let mut prober = Prober::default();
    let probing = async {
        loop {
            sleep(INTERVAL).await;
            match prober.probe(&peer).await {
                Ok(smoothed) => round_trip.observe(smoothed),
                Err(error) => tracing::debug!(peer = %peer.id, %error, "a probe of a peer failed"),
            }
        }
    };
    tokio::select! {
        () = probing => {}
        () = peer.stop.cancelled() => {}
    }
}

#[derive(Debug, Default)]
struct Prober {
    connection: Option<(String, Connection)>,
    smoothed: Option<Duration>,
    clock_differs: bool,
}

impl Prober {
    /// One probe; the smoothed round trip.
    async fn probe(&mut self, peer: &Peer) -> io::Result<Duration> {
        let url = peer.url();
        let mut connection = match self.connection.take() {
            Some((dialled, connection)) if dialled == url => connection,
            _ => peer.dial(&url).await?,
        };
        let begun = Instant::now();
        let health = timeout(READ_PATIENCE, ask(&mut connection)).await.map_err(io::Error::other)??;
        let took = begun.elapsed();
        self.connection = Some((url, connection));
        self.compare_clocks(peer, &health.now, took);
        if !health.ok {
            return Err(io::Error::other("the peer says that it is not well"));
        }
        let smoothed = self.smoothed.map_or(took, |old| old.mul_f64(1.0 - SMOOTHING) + took.mul_f64(SMOOTHING));
        self.smoothed = Some(smoothed);
        Ok(smoothed)
    }

    /// Warns when the clocks begin to differ: leases and log lines are read with clocks in mind.
    fn compare_clocks(&mut self, peer: &Peer, now: &str, took: Duration) {
        let Some(theirs) = unix_time(now) else { return };
        let ours = clock::system().wall().saturating_sub(took / 2);
        let difference = ours.abs_diff(theirs);
        let differs = difference > CLOCK_DIFFERENCE_MAX;
        if differs && !self.clock_differs && peer.tell(Topic::Clock, None).is_some() {
            let difference = humantime::format_duration(Duration::from_millis(
                u64::try_from(difference.as_millis()).unwrap_or(u64::MAX),
            ));
            tracing::warn!(peer = %peer.id, %difference, "the clocks of two members differ; synchronise them");
        }
        self.clock_differs = differs;
    }
}

async fn ask(connection: &mut Connection) -> io::Result<Health> {
    let answer = connection.send(Method::GET, PATH, HeaderMap::new(), full("")).await?;
    let status = answer.status();
    let body = connection.whole(answer.into_body(), REFUSAL_BYTES_MAX, READ_PATIENCE).await?;
    if status != StatusCode::OK {
        return Err(io::Error::other(format!("answered {status}")));
    }
    serde_json::from_slice(&body).map_err(io::Error::other)
}

/// Time since the epoch of an RFC 3339 text, with whatever offset Go writes.
fn unix_time(text: &str) -> Option<Duration> {
    let (date, zone) = text.split_at_checked(text.find('T')?).and_then(|(_, time)| {
        let zone = text.len() - time.len() + time.find(['Z', '+', '-'])?;
        text.split_at_checked(zone)
    })?;
    let local = humantime::parse_rfc3339(&format!("{date}Z")).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    if zone == "Z" {
        return Some(local);
    }
    let (sign, offset) = zone.split_at_checked(1)?;
    let (hours, minutes) = offset.split_once(':')?;
    let offset = Duration::from_secs(hours.parse::<u64>().ok()? * 3600 + minutes.parse::<u64>().ok()? * 60);
    if sign == "+" { local.checked_sub(offset) } else { local.checked_add(offset) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_any_offset() {
        let zulu = unix_time("2026-01-02T03:04:05.5Z").unwrap();
        assert_eq!(zulu.subsec_millis(), 500);
        assert_eq!(unix_time("2026-01-02T05:34:05.5+02:30"), Some(zulu));
        assert_eq!(unix_time("2026-01-01T22:04:05.5-05:00"), Some(zulu));
        for text in ["", "T", "2026-01-02", "2026-01-02T03:04:05", "2026-01-02T03:04:05+x:y", "é+T"] {
            assert_eq!(unix_time(text), None, "{text}");
        }
    }

    #[test]
    fn our_own_answer_is_understood() {
        let health: Health = serde_json::from_str(&answer()).unwrap();
        assert!(health.ok);
        assert!(clock::system().wall().abs_diff(unix_time(&health.now).unwrap()) < Duration::from_mins(1));
    }
}
