//! What is shown, as text.

use std::{cmp::Ordering, time::Duration};

use super::{
    super::{
        super::{
            failure::{Exit, Failure},
            go_text,
        },
        metrics::Histogram,
    },
    asking::{Answer, Look},
    hot,
};
use crate::pb::etcdserverpb::{AlarmMember, AlarmType};

/// What rows are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Endpoint,
    Size,
    Index,
    Puts,
    Ranges,
    Requests,
}

impl Order {
    /// Their names, in the order in which a key goes through them.
    pub(super) const NAMES: [&'static str; 6] = ["endpoint", "size", "index", "puts", "ranges", "requests"];
    const ALL: [Self; 6] = [Self::Endpoint, Self::Size, Self::Index, Self::Puts, Self::Ranges, Self::Requests];

    /// Reads a name.
    ///
    /// # Errors
    /// A [`Failure`] for any other text.
    pub(super) fn named(name: &str) -> Result<Self, Failure> {
        let found = Self::NAMES.iter().zip(Self::ALL).find(|(known, _)| **known == name);
        let unknown = || {
            let text = format!("unknown order {name}: it is one of {}", Self::NAMES.join(", "));
            Failure::new(Exit::BadFeature, text)
        };
        found.map(|(_, order)| order).ok_or_else(unknown)
    }

    fn name(self) -> &'static str {
        Self::ALL.iter().zip(Self::NAMES).find(|(order, _)| **order == self).map_or("", |(_, name)| name)
    }

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|order| *order == self).unwrap_or(0);
        Self::ALL.get(at + 1).copied().unwrap_or(Self::Endpoint)
    }
}

/// How a line is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Heading,
    /// Something is not as it should be.
    Trouble,
}

/// A line of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) tone: Tone,
    pub(super) text: String,
}

/// All members, as far as they have answered.
#[derive(Debug)]
pub(super) struct View {
    seats: Vec<Seat>,
    order: Order,
    is_reversed: bool,
}

#[derive(Debug)]
struct Seat {
    endpoint: String,
    last: Option<Look>,
    before: Option<Look>,
    /// Why the newest look failed, if it did.
    trouble: Option<String>,
}

impl View {
    /// Begins without an answer.
    pub(super) fn new(endpoints: &[String], order: Order) -> Self {
        let seat = |endpoint: &String| Seat { endpoint: endpoint.clone(), last: None, before: None, trouble: None };
        Self { seats: endpoints.iter().map(seat).collect(), order, is_reversed: false }
    }

    /// Takes an answer of the endpoint at `place`.
    pub(super) fn take(&mut self, place: usize, answer: Answer) {
        let Some(seat) = self.seats.get_mut(place) else { return };
        match answer {
            Ok(look) => {
                seat.before = seat.last.replace(look);
                seat.trouble = None;
            }
            Err(why) => seat.trouble = Some(why),
        }
    }

    /// Whether every endpoint has answered twice, or does not answer.
    pub(super) fn is_whole(&self) -> bool {
        self.seats.iter().all(|seat| seat.trouble.is_some() || seat.before.is_some())
    }

    pub(super) fn order_by_next(&mut self) {
        self.order = self.order.next();
    }

    pub(super) fn reverse(&mut self) {
        self.is_reversed = !self.is_reversed;
    }

    /// The whole frame.
    pub(super) fn lines(&self) -> Vec<Line> {
        let mut lines = vec![self.summary()];
        lines.extend(self.alarms());
        let mut rows: Vec<Row> = self.seats.iter().map(|seat| seat.row(self.highest_index())).collect();
        // Stable: what is alike keeps the order of endpoints.
        rows.sort_by(|one, other| one.compare(other, self.order));
        if self.is_reversed {
            rows.reverse();
        }
        lines.extend(table(&rows));
        lines.extend(hot::lines(self.looks().map(|look| &look.hot)));
        lines
    }

    fn looks(&self) -> impl Iterator<Item = &Look> {
        self.seats.iter().filter(|seat| seat.trouble.is_none()).filter_map(|seat| seat.last.as_ref())
    }

    fn highest_index(&self) -> u64 {
        self.looks().map(|look| look.status.raft_index).max().unwrap_or(0)
    }

    fn summary(&self) -> Line {
        let (up, all) = (self.looks().count(), self.seats.len());
        let status = self.looks().map(|look| &look.status).max_by_key(|status| status.raft_term);
        let cluster = status.and_then(|status| status.header).map_or(0, |header| header.cluster_id);
        let (term, leader) = status.map_or((0, 0), |status| (status.raft_term, status.leader));
        let revision = self.looks().filter_map(|look| look.status.header).map(|header| header.revision).max();
        let order = self.order.name();
        let text = format!(
            "cluster {cluster:x}, {up} of {all} up, term {term}, leader {leader:x}, revision {}, by {order}",
            revision.unwrap_or(0)
        );
        Line { tone: if up == all && leader != 0 { Tone::Plain } else { Tone::Trouble }, text }
    }

    fn alarms(&self) -> Option<Line> {
        let mut raised: Vec<String> = self.looks().flat_map(|look| &look.alarms).map(alarm).collect();
        raised.sort();
        raised.dedup();
        (!raised.is_empty()).then(|| Line { tone: Tone::Trouble, text: format!("alarms: {}", raised.join(", ")) })
    }
}

fn alarm(alarm: &AlarmMember) -> String {
    let name = match alarm.alarm() {
        AlarmType::Nospace => "NOSPACE",
        AlarmType::Corrupt => "CORRUPT",
        AlarmType::None => "UNKNOWN",
    };
    format!("{name} at {:x}", alarm.member_id)
}

/// A member in cells, and in what it can be ordered by, if it answers.
struct Row {
    cells: Vec<String>,
    measures: Option<Measures>,
    tone: Tone,
}

#[derive(Clone, Copy, Debug)]
struct Measures {
    size: u64,
    index: u64,
    puts: f64,
    ranges: f64,
    requests: f64,
}

impl Row {
    /// A member that has nothing to show but why.
    fn without(endpoint: &str, why: String, tone: Tone) -> Self {
        Self { cells: vec![endpoint.to_owned(), why], measures: None, tone }
    }

    /// Which of two stands further down: the smaller one, and one that does not answer.
    fn compare(&self, other: &Self, order: Order) -> Ordering {
        if order == Order::Endpoint {
            return Ordering::Equal;
        }
        match (&self.measures, &other.measures) {
            (Some(own), Some(others)) => others.compare(own, order),
            (own, others) => others.is_some().cmp(&own.is_some()),
        }
    }
}

impl Measures {
    fn compare(&self, other: &Self, order: Order) -> Ordering {
        match order {
            Order::Endpoint => Ordering::Equal,
            Order::Size => self.size.cmp(&other.size),
            Order::Index => self.index.cmp(&other.index),
            Order::Puts => self.puts.total_cmp(&other.puts),
            Order::Ranges => self.ranges.total_cmp(&other.ranges),
            Order::Requests => self.requests.total_cmp(&other.requests),
        }
    }
}

const HEADINGS: [&str; 14] = [
    "ENDPOINT",
    "NAME",
    "ROLE",
    "VERSION",
    "SIZE",
    "IN USE",
    "INDEX",
    "LAG",
    "PUT/s",
    "RANGE/s",
    "TXN/s",
    "EVENT/s",
    "SYNC COMMIT 50/99%",
    "REQUEST 50/99%",
];

impl Seat {
    fn row(&self, highest_index: u64) -> Row {
        if let Some(why) = &self.trouble {
            let since = self.last.as_ref().map(seconds_since).unwrap_or_default();
            return Row::without(&self.endpoint, format!("does not answer{since}: {why}"), Tone::Trouble);
        }
        let Some(look) = &self.last else {
            return Row::without(&self.endpoint, "asked".to_owned(), Tone::Plain);
        };
        let (cells, [puts, ranges]) = self.cells(look, highest_index);
        let requests = self.since(look, "etcd_server_request_duration_seconds").quantile(0.99).unwrap_or(0.0);
        let size = u64::try_from(look.status.db_size).unwrap_or(0);
        let measures = Measures { size, index: look.status.raft_index, puts, ranges, requests };
        Row { cells, measures: Some(measures), tone: Tone::Plain }
    }

    fn cells(&self, look: &Look, highest_index: u64) -> (Vec<String>, [f64; 2]) {
        let status = &look.status;
        let size = |bytes: i64| go_text::size(u64::try_from(bytes).unwrap_or(0));
        let id = status.header.map_or(0, |header| header.member_id);
        let rates = RATES.map(|name| self.rate(look, name));
        let [puts, ranges, ..] = rates.map(|rate| rate.unwrap_or(0.0));
        let mut cells = vec![
            self.endpoint.clone(),
            if look.name.is_empty() { format!("{id:x}") } else { look.name.clone() },
            role(look).to_owned(),
            status.version.clone(),
            size(status.db_size),
            size(status.db_size_in_use),
            status.raft_index.to_string(),
            highest_index.saturating_sub(status.raft_index).to_string(),
        ];
        cells.extend(rates.map(|rate| rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"))));
        let [sync, commit, request] = LATENCIES.map(|name| self.latency(look, name));
        cells.extend([format!("{sync} {commit}"), request]);
        (cells, [puts, ranges])
    }

    /// By how much a counter grows each second; `None` without two looks that have it.
    fn rate(&self, look: &Look, name: &str) -> Option<f64> {
        let before = self.before.as_ref()?;
        let (now, then) = (look.samples.value(name)?, before.samples.value(name)?);
        let seconds = look.at.duration_since(before.at).as_secs_f64();
        // A process that has begun anew counts from nothing.
        let grown = if now < then { now } else { now - then };
        (seconds > 0.0).then(|| grown / seconds)
    }

    fn since(&self, look: &Look, name: &str) -> Histogram {
        let now = look.samples.histogram(name, "");
        self.before.as_ref().map_or_else(Default::default, |before| now.since(&before.samples.histogram(name, "")))
    }

    fn latency(&self, look: &Look, name: &str) -> String {
        let histogram = self.since(look, name);
        match (histogram.quantile(0.5), histogram.quantile(0.99)) {
            (Some(half), Some(most)) => format!("{}/{}", short(half), short(most)),
            _ => "-".to_owned(),
        }
    }
}

const RATES: [&str; 4] =
    ["etcd_mvcc_put_total", "etcd_mvcc_range_total", "etcd_mvcc_txn_total", "etcd_debugging_mvcc_events_total"];
const LATENCIES: [&str; 3] = [
    "etcd_disk_wal_fsync_duration_seconds",
    "etcd_disk_backend_commit_duration_seconds",
    "etcd_server_request_duration_seconds",
];

fn role(look: &Look) -> &'static str {
    let id = look.status.header.map_or(0, |header| header.member_id);
    match (look.status.is_learner, look.status.leader) {
        (true, _) => "learner",
        (false, 0) => "no leader",
        (false, leader) if leader == id => "leader",
        (false, _) => "follower",
    }
}

fn seconds_since(look: &Look) -> String {
    format!(" since {} s", look.at.elapsed().as_secs())
}

/// A time in a few letters.
fn short(seconds: f64) -> String {
    let micros = Duration::from_secs_f64(seconds.max(0.0)).as_micros();
    match micros {
        0..1_000 => format!("{micros}us"),
        1_000..10_000 => format!("{:.1}ms", seconds * 1e3),
        10_000..1_000_000 => format!("{:.0}ms", seconds * 1e3),
        _ => format!("{seconds:.1}s"),
    }
}

/// Rows below their headings, in columns.
fn table(rows: &[Row]) -> Vec<Line> {
    let whole = || rows.iter().map(|row| &row.cells).filter(|cells| cells.len() == HEADINGS.len());
    let endpoints = rows.iter().filter_map(|row| row.cells.first());
    let widest = endpoints.map(|endpoint| endpoint.chars().count()).max().unwrap_or(0);
    let width = |(column, heading): (usize, &&str)| {
        let cells = whole().filter_map(|cells| cells.get(column)).map(|cell| cell.chars().count());
        cells.chain([heading.len(), if column == 0 { widest } else { 0 }]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = HEADINGS.iter().enumerate().map(width).collect();
    let headings = HEADINGS.map(str::to_owned);
    let mut lines = vec![Line { tone: Tone::Heading, text: columns(&headings, &widths) }];
    lines.extend(rows.iter().map(|row| Line { tone: row.tone, text: columns(&row.cells, &widths) }));
    lines
}

/// Words stand left, numbers right.
fn columns(cells: &[String], widths: &[usize]) -> String {
    let aligned = cells.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
        if column < NAME_COLUMNS { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
    });
    aligned.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// Columns of words.
const NAME_COLUMNS: usize = 4;

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use tokio::time::Instant;

    use super::{
        super::{super::metrics::Samples, asking::METRICS},
        *,
    };
    use crate::pb::etcdserverpb::{ResponseHeader, StatusResponse};

    /// Looks are whole seconds apart.
    static BEGUN: OnceLock<Instant> = OnceLock::new();

    fn look(id: u64, seconds: u64, puts: u64) -> Look {
        let header = ResponseHeader { cluster_id: 0xc1, member_id: id, revision: 9, raft_term: 2 };
        let status = StatusResponse {
            header: Some(header),
            version: "3.7.1".to_owned(),
            db_size: 20_480,
            db_size_in_use: 16_384,
            leader: 1,
            raft_index: 100 - id,
            raft_term: 2,
            ..StatusResponse::default()
        };
        let name = "etcd_disk_wal_fsync_duration_seconds_bucket";
        let text = format!("etcd_mvcc_put_total {puts}\n{name}{{le=\"0.001\"}} {puts}\n{name}{{le=\"+Inf\"}} {puts}\n");
        let at = *BEGUN.get_or_init(Instant::now) + Duration::from_secs(seconds);
        Look {
            at,
            status,
            name: format!("m{id}"),
            alarms: Vec::new(),
            samples: Samples::read(&text, METRICS),
            hot: hot::Hot::Unknown,
        }
    }

    fn view() -> View {
        let endpoints = ["10.0.0.1:2379", "10.0.0.2:2379", "10.0.0.3:2379"].map(str::to_owned);
        let mut view = View::new(&endpoints, Order::Endpoint);
        for (place, rate) in [(0, 10), (1, 30)] {
            let id = u64::try_from(place).unwrap() + 1;
            view.take(place, Ok(look(id, 0, 100)));
            view.take(place, Ok(look(id, 2, 100 + 2 * rate)));
        }
        view.take(2, Err("connection refused".to_owned()));
        view
    }

    fn texts(view: &View) -> Vec<String> {
        view.lines().into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn a_frame_tells_rates_and_who_does_not_answer() {
        let view = view();
        let lines = texts(&view);
        assert!(view.is_whole());
        assert_eq!(lines[0], "cluster c1, 2 of 3 up, term 2, leader 1, revision 9, by endpoint");
        let words = |line: usize| lines[line].split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(words(2), "10.0.0.1:2379 m1 leader 3.7.1 20 kB 16 kB 99 0 10 - - - 500us/990us - -");
        assert_eq!(words(3), "10.0.0.2:2379 m2 follower 3.7.1 20 kB 16 kB 98 1 30 - - - 500us/990us - -");
        assert_eq!(lines[4], "10.0.0.3:2379  does not answer: connection refused");
        let tones: Vec<_> = view.lines().iter().map(|line| line.tone).collect();
        assert_eq!(tones, [Tone::Trouble, Tone::Heading, Tone::Plain, Tone::Plain, Tone::Trouble]);
    }

    #[test]
    fn keys_change_the_order() {
        let mut view = view();
        let first = |view: &View| texts(view)[2].split(':').next().unwrap().to_owned();
        let mut seen = vec![first(&view)];
        for _ in 1..Order::ALL.len() {
            view.order_by_next();
            seen.push(first(&view));
        }
        assert_eq!(seen, ["10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.1"]);
        view.order_by_next();
        view.reverse();
        assert_eq!(first(&view), "10.0.0.3", "the order of endpoints, turned around");
    }

    #[test]
    fn two_looks_are_kept_and_a_process_that_begins_anew_counts_from_nothing() {
        let mut view = view();
        view.take(0, Ok(look(1, 4, 6)));
        let seat = &view.seats[0];
        assert_eq!(seat.rate(seat.last.as_ref().unwrap(), "etcd_mvcc_put_total"), Some(3.0));
        view.take(9, Err("nobody asks there".to_owned()));
        assert_eq!(view.seats.len(), 3);
    }

    #[test]
    fn alarms_have_a_line_of_their_own() {
        let mut view = view();
        let raised = AlarmMember { member_id: 0xa, alarm: AlarmType::Nospace.into() };
        view.take(0, Ok(Look { alarms: vec![raised], ..look(1, 4, 6) }));
        view.take(1, Ok(Look { alarms: vec![raised], ..look(2, 4, 6) }));
        assert_eq!(texts(&view)[1], "alarms: NOSPACE at a");
    }

    #[test]
    fn orders_have_names() {
        for (name, order) in Order::NAMES.iter().zip(Order::ALL) {
            assert_eq!((Order::named(name), order.name()), (Ok(order), *name));
        }
        assert_eq!(Order::named("age").unwrap_err().exit, Exit::BadFeature);
    }

    #[test]
    fn times_are_short() {
        assert_eq!([0.000_012, 0.001_25, 0.025, 2.5].map(short), ["12us", "1.2ms", "25ms", "2.5s"]);
    }
}
