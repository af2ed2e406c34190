//! Asking members again and again, each at its own pace.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::super::{
    global::Settings,
    metrics::{self, Samples},
    session,
};
use super::hot::Hot;
use crate::{
    client::Client,
    pb::{
        etcdserverpb::{AlarmMember, AlarmRequest, MemberListRequest, StatusRequest, StatusResponse},
        quorate::HotRequest,
    },
};

/// Metrics that a frame is made of.
pub(super) const METRICS: &[&str] = &[
    "etcd_mvcc_put_total",
    "etcd_mvcc_range_total",
    "etcd_mvcc_txn_total",
    "etcd_debugging_mvcc_events_total",
    "etcd_disk_wal_fsync_duration_seconds",
    "etcd_disk_backend_commit_duration_seconds",
    "etcd_server_request_duration_seconds",
];

/// What one look at a member brought.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) at: Instant,
    pub(super) status: StatusResponse,
    /// Its name, if it tells that.
    pub(super) name: String,
    pub(super) alarms: Vec<AlarmMember>,
    /// Empty if it does not show its metrics.
    pub(super) samples: Samples,
    pub(super) hot: Hot,
}

/// A look, or why there is none.
pub(super) type Answer = Result<Look, String>;

/// Answers of all members, as they come. Dropping it ends the asking.
pub(super) struct Answers {
    answers: mpsc::Receiver<(usize, Answer)>,
    _asking: JoinSet<()>,
}

impl Answers {
    /// The next answer, with the place of its endpoint.
    pub(super) async fn next(&mut self) -> Option<(usize, Answer)> {
        self.answers.recv().await
    }
}

/// Begins to ask every endpoint, each with `pause` between two looks.
pub(super) fn begin(settings: &Arc<Settings>, endpoints: &[String], pause: Duration) -> Answers {
    let (sender, answers) = mpsc::channel(ANSWERS_AHEAD);
    let mut asking = JoinSet::new();
    for (place, endpoint) in endpoints.iter().cloned().enumerate() {
        asking.spawn(ask_on(Arc::clone(settings), place, endpoint, pause, sender.clone()));
    }
    Answers { answers, _asking: asking }
}

async fn ask_on(
    settings: Arc<Settings>,
    place: usize,
    endpoint: String,
    pause: Duration,
    sender: mpsc::Sender<(usize, Answer)>,
) {
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let limit = settings.command_timeout.min(pause.max(ANSWER_LIMIT_MIN));
    let (mut client, mut hot) = (None, None);
    loop {
        ticks.tick().await;
        let late = || Err(format!("no answer within {limit:?}"));
        let answer = timeout(limit, look(&settings, &endpoint, &mut client, &mut hot)).await.unwrap_or_else(|_| late());
        if sender.send((place, answer)).await.is_err() {
            return;
        }
    }
}

async fn look(settings: &Settings, endpoint: &str, client: &mut Option<Client>, hot: &mut Option<Hot>) -> Answer {
    let connected = match client.take() {
        Some(client) => client,
        None => session::try_connect(settings, vec![endpoint.to_owned()]).await.map_err(|error| error.to_string())?,
    };
    let asked = ask(settings, endpoint, &connected).await;
    if asked.is_err() {
        // Whoever comes back may be another version, or may tell now.
        *hot = None;
    } else if !hot.as_ref().is_some_and(Hot::is_final) {
        *hot = Some(connected.call(HotRequest {}, Some(HOT_LIMIT)).await.into());
    }
    *client = Some(connected);
    asked.map(|look| Look { hot: hot.clone().unwrap_or_default(), ..look })
}

async fn ask(settings: &Settings, endpoint: &str, client: &Client) -> Answer {
    let limit = settings.command_timeout;
    let status = client.call(StatusRequest {}, Some(limit)).await.map_err(|error| error.to_string())?;
    let at = Instant::now();
    let page = metrics::page(endpoint, settings, limit).await.ok();
    let samples = page.map(|page| Samples::read(&String::from_utf8_lossy(&page.body), METRICS)).unwrap_or_default();
    let members = client.call(MemberListRequest { linearizable: false }, Some(limit)).await.ok();
    let id = status.header.map_or(0, |header| header.member_id);
    let own = members.and_then(|answer| answer.members.into_iter().find(|member| member.id == id));
    let alarms =
        client.call(AlarmRequest::default(), Some(limit)).await.map(|answer| answer.alarms).unwrap_or_default();
    let name = own.map(|member| member.name).unwrap_or_default();
    Ok(Look { at, status, name, alarms, samples, hot: Hot::default() })
}

/// What most requests are about is told at once, or left out of a look.
const HOT_LIMIT: Duration = Duration::from_millis(500);
/// Answers that wait to be shown; a member waits before it is asked again.
const ANSWERS_AHEAD: usize = 16;
/// A member may take this long, however often it is asked.
const ANSWER_LIMIT_MIN: Duration = Duration::from_secs(1);
