//! Looking at a cluster: every endpoint by itself and all of them at once, each within its time.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::{
    super::{
        global::Settings,
        metrics::{self, Samples},
        session,
    },
    facts::{Cluster, LOGIN_ERRORS, Seat, Trouble, same_place},
};
use crate::{
    client::{
        Client, ClientError, Credentials, Endpoint, Security,
        web::{self, PageError},
    },
    clock::{self, Clock as _},
    pb::etcdserverpb::{
        AlarmRequest, HashKvRequest, Member, MemberListRequest, RangeRequest, StatusRequest, StatusResponse,
    },
    tls::{Certificate, Dialler, DiallerOptions},
};

/// Endpoints that are looked at; what a cluster lists beyond is not.
const SEATS_MAX: usize = 64;
/// The pages of a member that tell who it is are short.
const SMALL_PAGE_BYTES_MAX: usize = 1 << 20;
/// Metrics that rules look at.
pub(super) const METRICS: &[&str] = &[
    "etcd_disk_wal_fsync_duration_seconds",
    "etcd_disk_backend_commit_duration_seconds",
    "etcd_network_peer_round_trip_time_seconds",
    "etcd_server_slow_apply_total",
    "etcd_server_proposals_applied_total",
    "etcd_server_quota_backend_bytes",
    "process_open_fds",
    "process_max_fds",
];

/// Looks at the endpoints that were given and at all that members advertise.
pub(super) async fn at(settings: &Settings, with_hashes: bool) -> Cluster {
    let given = settings.client.endpoints.clone();
    let mut seats = look_at_all(settings, without_repetition(&given), true).await;
    let members = seats.iter().map(|seat| &seat.members).find(|members| !members.is_empty()).cloned();
    let members: Vec<Member> = members.unwrap_or_default();
    let advertised: Vec<String> = members.iter().flat_map(|member| member.client_ur_ls.clone()).collect();
    let more: Vec<String> = without_repetition(&advertised)
        .into_iter()
        .filter(|url| !seats.iter().any(|seat| seat.is_at(url)))
        .take(SEATS_MAX.saturating_sub(seats.len()))
        .collect();
    seats.extend(look_at_all(settings, more, false).await);
    if with_hashes {
        hash(settings, &mut seats).await;
    }
    let has_credentials = settings.client.credentials != Credentials::Nobody;
    Cluster { now: clock::system().wall(), given, seats, members, has_credentials }
}

fn without_repetition(endpoints: &[String]) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for endpoint in endpoints.iter().take(SEATS_MAX) {
        if !kept.iter().any(|known| same_place(known, endpoint)) {
            kept.push(endpoint.clone());
        }
    }
    kept
}

async fn look_at_all(settings: &Settings, endpoints: Vec<String>, is_given: bool) -> Vec<Seat> {
    join_all(endpoints.into_iter().map(|endpoint| look(settings, endpoint, is_given))).await
}

async fn look(settings: &Settings, endpoint: String, is_given: bool) -> Seat {
    let mut seat = Seat { endpoint, is_given, ..Seat::default() };
    let begun = Instant::now();
    match status(settings, &seat.endpoint).await {
        Ok((client, status)) => {
            seat.took = begun.elapsed();
            seat.status = Some(status);
            ask(&client, settings.command_timeout, &mut seat).await;
            read_page(settings, &mut seat).await;
        }
        Err(error) if LOGIN_ERRORS.iter().any(|text| error.is_refusal(text)) => {
            seat.read_error = Some(error.to_string());
        }
        Err(error) => seat.trouble = Some(trouble(settings, &seat.endpoint, &error).await),
    }
    seat.certificate = certificate(settings, &seat.endpoint).await;
    seat
}

async fn status(settings: &Settings, endpoint: &str) -> Result<(Client, StatusResponse), ClientError> {
    let client = session::try_connect(settings, vec![endpoint.to_owned()]).await?;
    let status = client.call(StatusRequest {}, Some(settings.command_timeout)).await?;
    Ok((client, status))
}

/// Asks a member that answers what else there is to ask. What it refuses stays empty.
async fn ask(client: &Client, limit: Duration, seat: &mut Seat) {
    let list = MemberListRequest { linearizable: false };
    if let Ok(answer) = client.call(list, Some(limit)).await {
        seat.members = answer.members;
    }
    if let Ok(answer) = client.call(AlarmRequest::default(), Some(limit)).await {
        seat.alarms = answer.alarms;
    }
    // Learners serve no such read, which is as it should be.
    if seat.status.as_ref().is_some_and(|status| !status.is_learner) {
        let read = RangeRequest { key: "health".into(), ..RangeRequest::default() };
        seat.read_error = client.call(read, Some(limit)).await.err().map(|error| error.to_string());
    }
}

/// Reads its metrics, and by the way what time it is there.
async fn read_page(settings: &Settings, seat: &mut Seat) {
    let begun = clock::system().wall();
    let Ok(page) = metrics::page(&seat.endpoint, settings, settings.command_timeout).await else { return };
    let ended = clock::system().wall();
    seat.samples = Samples::read(&String::from_utf8_lossy(&page.body), METRICS);
    let there = page.date.as_deref().and_then(moment);
    seat.clock_ahead_seconds = there.map(|there| ahead(there, begun, ended));
}

/// By how many seconds a clock is ahead that showed `there`, in whole seconds, at some time between the two others.
fn ahead(there: Duration, begun: Duration, ended: Duration) -> f64 {
    let [first, last, begun, ended] = [there, there + Duration::from_secs(1), begun, ended].map(|at| at.as_secs_f64());
    if first > ended {
        first - ended
    } else if last < begun {
        last - begun
    } else {
        0.0
    }
}

/// A date of HTTP, such as `Sun, 06 Nov 1994 08:49:37 GMT`, since the Unix epoch.
fn moment(date: &str) -> Option<Duration> {
    let words: Vec<&str> = date.split_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = words.as_slice() else { return None };
    let month = MONTHS.iter().position(|name| name == month)? + 1;
    let text = format!("{year}-{month:02}-{day}T{time}Z");
    humantime::parse_rfc3339(&text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Finds out why nobody answers at an endpoint.
async fn trouble(settings: &Settings, endpoint: &str, error: &ClientError) -> Trouble {
    let place = Endpoint::parse(endpoint);
    let limit = settings.client.dial_timeout;
    let tls = settings.client.tls.as_ref();
    let page = async |path| web::page(&place, path, tls, limit, SMALL_PAGE_BYTES_MAX).await;
    match page("/members").await {
        Ok(answer) if answer.status.is_success() => return Trouble::PeerPort,
        Ok(answer) if answer.status == 404 => {}
        Ok(_) | Err(PageError::Exchange(_)) if wants_tls(&place, tls, limit).await => return Trouble::WantsTls,
        Err(PageError::Handshake(why)) if why.contains(NO_TLS) || speaks_plain(&place, limit).await => {
            return Trouble::WantsPlain;
        }
        Err(PageError::Handshake(why)) => return Trouble::Handshake(why),
        Err(why @ (PageError::Dial(_) | PageError::Late(_))) => return Trouble::Silent(why.to_string()),
        Ok(_) | Err(_) => {}
    }
    Trouble::Other(error.to_string())
}

/// How a handshake fails where no TLS is spoken.
const NO_TLS: &str = "first record does not look like a TLS handshake";

/// Whether a server that was spoken to without TLS speaks it.
async fn wants_tls(place: &Endpoint, tls: Option<&Dialler>, limit: Duration) -> bool {
    let is_plain = match place.security {
        Security::Clear => true,
        Security::AsConfigured => tls.is_none(),
        Security::Required => false,
    };
    let encrypted = Endpoint { security: Security::Required, ..place.clone() };
    is_plain && matches!(shown(&encrypted, limit).await, Some(Ok(_) | Err(PageError::Handshake(_))))
}

/// Whether a server with which no handshake succeeds speaks without TLS.
async fn speaks_plain(place: &Endpoint, limit: Duration) -> bool {
    let plain = Endpoint { security: Security::Clear, ..place.clone() };
    let asked = web::page(&plain, "/version", None, limit, SMALL_PAGE_BYTES_MAX).await;
    asked.is_ok_and(|answer| answer.status.is_success())
}

/// The certificate of a server, whoever signed it.
async fn certificate(settings: &Settings, endpoint: &str) -> Option<Certificate> {
    let mut place = Endpoint::parse(endpoint);
    let is_encrypted = match place.security {
        Security::Clear => false,
        Security::AsConfigured => settings.client.tls.is_some(),
        Security::Required => true,
    };
    if !is_encrypted {
        return None;
    }
    place.security = Security::Required;
    let der = shown(&place, settings.client.dial_timeout).await?.ok().flatten()?;
    Certificate::read(&der).ok()
}

async fn shown(place: &Endpoint, limit: Duration) -> Option<Result<Option<Vec<u8>>, PageError>> {
    let anybody = Dialler::new(DiallerOptions::default()).ok()?;
    Some(web::certificate(place, Some(&anybody), limit).await)
}

/// Has every member that answers hash its history up to a revision that all of them have.
async fn hash(settings: &Settings, seats: &mut [Seat]) {
    let revisions = seats.iter().filter_map(|seat| Some(seat.status.as_ref()?.header?.revision));
    let Some(revision) = revisions.min() else { return };
    join_all(seats.iter_mut().filter(|seat| seat.status.is_some()).map(async |seat| {
        let client = session::try_connect(settings, vec![seat.endpoint.clone()]).await.ok();
        if let Some(client) = client {
            seat.hash = client.call(HashKvRequest { revision }, Some(HASH_LIMIT)).await.ok();
        }
    }))
    .await;
}

/// Time for a member to hash all of a large database.
const HASH_LIMIT: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_http_are_moments() {
        assert_eq!(moment("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(784_111_777)));
        assert_eq!(moment("Sun, 06 Nov 1994 08:49:37 CET"), None);
        assert_eq!(moment("yesterday"), None);
    }

    #[test]
    fn a_clock_is_off_by_what_its_whole_seconds_leave_no_doubt_of() {
        let ahead = |there, begun, ended| {
            ahead(Duration::from_secs(there), Duration::from_millis(begun), Duration::from_millis(ended)).to_string()
        };
        assert_eq!(ahead(10, 10_000, 10_100), "0");
        assert_eq!(ahead(10, 10_900, 11_100), "0");
        assert_eq!(ahead(15, 9_900, 10_000), "5");
        assert_eq!(ahead(5, 10_000, 10_100), "-4");
    }
}
