//! What the log is told about one peer, and how often.
//!
//! A peer can come and go, answer nonsense, and refuse in ever new words many times a second, for as long as it likes.
//! The log is told of each kind of event at once, and while it goes on once in [`TOLD_AGAIN_AFTER`], with the number that
//! was suppressed. Only a peer that has stayed connected for [`STEADY_AFTER`] counts as well again. None of this delays a
//! metric or what the member knows.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use tokio::time::Instant;

/// Between two records of one kind about one peer.
pub(super) const TOLD_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// A peer that has been connected for so long is well: the next that happens to it is told at once.
pub(super) const STEADY_AFTER: Duration = Duration::from_secs(10);

/// What is told of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// Both streams are up.
    Connected,
    /// They are not any more.
    Lost,
    /// A stream could not be dialled, or broke.
    Broken,
    /// A stream was refused.
    Refused,
    /// A stream carried what cannot be decoded.
    Nonsense,
    /// A stream was closed.
    Closed,
    /// Two processes use the peer's identifier, or this member's.
    Contested,
    /// The peer's version is known to fall short.
    Outdated,
    /// The clocks differ.
    Clock,
}

/// The records about one peer.
#[derive(Debug, Default)]
pub(super) struct Reports(BTreeMap<Topic, Told>);

#[derive(Debug)]
struct Told {
    at: Instant,
    /// What was told, if it may last: the same is no news.
    condition: Option<String>,
    suppressed: u64,
}

impl Reports {
    /// Something happened. Returns whether the log is to be told now, with how many of the kind were suppressed before.
    ///
    /// A `condition` lasts, and is told once until it changes or a stream was up. Everything else is an event.
    pub(super) fn note(&mut self, topic: Topic, condition: Option<&str>, now: Instant) -> Option<Suppressed> {
        let new = || Told { at: now, condition: condition.map(str::to_owned), suppressed: 0 };
        let mut entry = match self.0.entry(topic) {
            Entry::Vacant(entry) => {
                entry.insert(new());
                return Some(Suppressed(0));
            }
            Entry::Occupied(entry) => entry,
        };
        let told = entry.get_mut();
        if condition.is_some() && told.condition.as_deref() == condition {
            return None;
        }
        if now.duration_since(told.at) < TOLD_AGAIN_AFTER {
            told.suppressed = told.suppressed.saturating_add(1);
            return None;
        }
        Some(Suppressed(entry.insert(new()).suppressed))
    }

    /// A stream is up: what ends it is news, be it the same as before.
    pub(super) fn stream_is_up(&mut self) {
        self.0.values_mut().for_each(|told| told.condition = None);
    }

    /// The peer is well. Returns whether the log is to be told that it is connected, because that was suppressed.
    pub(super) fn settle(&mut self) -> Option<Suppressed> {
        let connected = self.0.remove(&Topic::Connected);
        self.0.clear();
        connected.filter(|told| told.suppressed > 0).map(|told| Suppressed(told.suppressed))
    }
}

/// How many records of a kind were suppressed before one that is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suppressed(u64);

impl Suppressed {
    /// As a field of a record, which has none where nothing was suppressed.
    pub(super) fn field(self) -> Option<u64> {
        (self.0 > 0).then_some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many records a peer causes that flaps ten times a second for `time`, on each of these topics.
    fn flap(reports: &mut Reports, topics: &[Topic], from: Instant, time: Duration) -> usize {
        let times = u32::try_from(time.as_millis() / 100).unwrap();
        (0..times)
            .map(|at| {
                reports.stream_is_up();
                let now = from + Duration::from_millis(100) * at;
                topics.iter().filter(|topic| reports.note(**topic, None, now).is_some()).count()
            })
            .sum()
    }

    #[test]
    fn each_kind_is_told_at_once_and_then_rarely_with_what_was_suppressed() {
        let (mut reports, start) = (Reports::default(), Instant::now());
        let topics = [Topic::Connected, Topic::Lost, Topic::Closed];
        assert_eq!(flap(&mut reports, &topics, start, Duration::from_secs(30)), 3);
        assert_eq!(reports.note(Topic::Lost, None, start + TOLD_AGAIN_AFTER), Some(Suppressed(299)));
        assert_eq!(flap(&mut reports, &topics, start + TOLD_AGAIN_AFTER, Duration::from_secs(30)), 2);
    }

    #[test]
    fn conditions_are_told_once_until_they_change_or_a_stream_was_up() {
        let (mut reports, start) = (Reports::default(), Instant::now());
        let mut at = |seconds, text| reports.note(Topic::Broken, Some(text), start + Duration::from_secs(seconds));
        assert_eq!(at(0, "refused"), Some(Suppressed(0)));
        assert_eq!(at(600, "refused"), None);
        assert_eq!(at(601, "timed out"), Some(Suppressed(0)));
        assert_eq!((at(602, "refused"), at(630, "refused")), (None, None), "too early");
        assert_eq!(at(631, "refused"), Some(Suppressed(2)), "but it is told in the end");
        reports.stream_is_up();
        assert_eq!(reports.note(Topic::Broken, Some("refused"), start + Duration::from_secs(700)), Some(Suppressed(0)));
    }

    #[test]
    fn a_peer_that_is_well_starts_anew_and_is_said_to_be_connected() {
        let (mut reports, start) = (Reports::default(), Instant::now());
        reports.note(Topic::Connected, None, start);
        assert_eq!(reports.settle(), None, "the log says so already");
        flap(&mut reports, &[Topic::Connected, Topic::Lost], start, Duration::from_secs(1));
        assert_eq!(reports.settle(), Some(Suppressed(9)));
        assert_eq!(reports.note(Topic::Lost, None, start + Duration::from_secs(2)), Some(Suppressed(0)));
    }
}
