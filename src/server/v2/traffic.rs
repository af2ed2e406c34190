//! Appends between members, as `/v2/stats/self` and `/v2/stats/leader` tell of them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    pb::raftpb::{Message, MessageType},
    types::MemberId,
};

/// Messages that a rate is made of (etcd's number).
const SAMPLES_MAX: usize = 200;
/// After so long without a message there is no rate.
const SILENCE: Duration = Duration::from_secs(1);
/// What the least latency stands at before there was any (etcd's number).
const NO_MINIMUM: f64 = 9_223_372_036_854_775_808.0;

/// What this member sends and receives.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    sent: Flow,
    received: Flow,
    followers: BTreeMap<MemberId, Follower>,
}

/// Messages in one direction.
#[derive(Debug, Default)]
struct Flow {
    messages: u64,
    /// When the last ones came, and how many bytes of entries they had.
    samples: VecDeque<(Duration, usize)>,
}

/// A number of messages, and how fast they come; zero if they do not at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FlowStats {
    /// Since the start.
    pub messages: u64,
    /// In a second.
    pub messages_rate: f64,
    /// In a second.
    pub bytes_rate: f64,
}

/// How a follower answers appends. Latencies are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FollowerStats {
    /// The newest.
    pub current: f64,
    /// Of all.
    pub average: f64,
    /// Of all.
    pub standard_deviation: f64,
    /// The shortest.
    pub minimum: f64,
    /// The longest.
    pub maximum: f64,
    /// Appends that did not arrive.
    pub failed: u64,
    /// Appends that were answered.
    pub succeeded: u64,
}

#[derive(Debug)]
struct Follower {
    stats: FollowerStats,
    average_square: f64,
    /// When the oldest append was sent that is not answered.
    waiting: Option<Duration>,
}

impl Traffic {
    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn on_sent(&self, messages: &[Message], now: Duration) {
        let mut appends = messages.iter().filter(|message| message.r#type() == MessageType::MsgApp).peekable();
        if appends.peek().is_none() {
            return;
        }
        let mut counted = self.counted();
        for message in appends {
            counted.sent.note(message, now);
            counted.followers.entry(MemberId(message.to)).or_default().waiting.get_or_insert(now);
        }
    }

    pub(super) fn on_received(&self, message: &Message, now: Duration) {
        match message.r#type() {
            MessageType::MsgApp => self.counted().received.note(message, now),
            MessageType::MsgAppResp => {
                // Whom nothing was sent has nothing to answer.
                if let Some(follower) = self.counted().followers.get_mut(&MemberId(message.from)) {
                    follower.answered(now);
                }
            }
            _ => {}
        }
    }

    pub(super) fn on_lost(&self, peer: MemberId) {
        if let Some(follower) = self.counted().followers.get_mut(&peer) {
            follower.stats.failed += 1;
            follower.waiting = None;
        }
    }

    /// Appends that were sent, and received.
    pub(super) fn flows(&self, now: Duration) -> (FlowStats, FlowStats) {
        let mut counted = self.counted();
        (counted.sent.stats(now), counted.received.stats(now))
    }

    /// Those of `members` that were ever sent anything.
    pub(super) fn followers(&self, members: impl Iterator<Item = MemberId>) -> BTreeMap<MemberId, FollowerStats> {
        let mut counted = self.counted();
        let known: Vec<MemberId> = members.collect();
        counted.followers.retain(|id, _| known.contains(id));
        counted.followers.iter().map(|(id, follower)| (*id, follower.stats)).collect()
    }
}

impl Flow {
    fn note(&mut self, message: &Message, now: Duration) {
        self.messages += 1;
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((now, message.entries.iter().map(|entry| entry.data.len()).sum()));
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate is told, not counted on")]
    fn stats(&mut self, now: Duration) -> FlowStats {
        let quiet = FlowStats { messages: self.messages, ..FlowStats::default() };
        let (Some((first, _)), Some((last, _))) = (self.samples.front(), self.samples.back()) else { return quiet };
        let (took, silent) = (last.saturating_sub(*first).as_secs_f64(), now.saturating_sub(*last));
        if silent > SILENCE {
            self.samples.clear();
        }
        if took <= 0.0 || self.samples.is_empty() {
            return quiet;
        }
        let bytes: usize = self.samples.iter().map(|(_, bytes)| bytes).sum();
        FlowStats { messages_rate: self.samples.len() as f64 / took, bytes_rate: bytes as f64 / took, ..quiet }
    }
}

impl Default for Follower {
    fn default() -> Self {
        let stats = FollowerStats {
            current: 0.0,
            average: 0.0,
            standard_deviation: 0.0,
            minimum: NO_MINIMUM,
            maximum: 0.0,
            failed: 0,
            succeeded: 0,
        };
        Self { stats, average_square: 0.0, waiting: None }
    }
}

impl Follower {
    #[expect(clippy::cast_precision_loss, reason = "an average is told, not counted on")]
    fn answered(&mut self, now: Duration) {
        let Some(sent) = self.waiting.take() else { return };
        let took = now.saturating_sub(sent).as_secs_f64() * 1_000.0;
        let stats = &mut self.stats;
        let before = stats.succeeded as f64;
        stats.succeeded += 1;
        (stats.current, stats.maximum, stats.minimum) = (took, stats.maximum.max(took), stats.minimum.min(took));
        stats.average = (stats.average * before + took) / (before + 1.0);
        self.average_square = (self.average_square * before + took * took) / (before + 1.0);
        stats.standard_deviation = (self.average_square - stats.average * stats.average).max(0.0).sqrt();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::raftpb::Entry;

    const PEER: MemberId = MemberId(2);

    fn message(kind: MessageType) -> Message {
        let entries = vec![Entry { data: vec![0; 10].into(), ..Entry::default() }];
        Message { r#type: kind.into(), to: PEER.0, from: PEER.0, entries, ..Message::default() }
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn rates_are_those_of_the_last_messages_and_end_with_silence() {
        let traffic = Traffic::default();
        assert_eq!(traffic.flows(at(0)).0, FlowStats::default());
        for ms in (0..=1_000).step_by(100) {
            traffic.on_sent(&[message(MessageType::MsgApp), message(MessageType::MsgHeartbeat)], at(ms));
        }
        let (sent, received) = traffic.flows(at(1_500));
        assert_eq!((sent.messages, sent.messages_rate, sent.bytes_rate), (11, 11.0, 110.0));
        assert_eq!(received, FlowStats::default());
        assert_eq!(traffic.flows(at(2_001)).0, FlowStats { messages: 11, ..FlowStats::default() });
    }

    #[test]
    fn latency_is_the_time_to_the_answer() {
        let traffic = Traffic::default();
        for (sent, answered) in [(0, 10), (20, 40)] {
            traffic.on_sent(&[message(MessageType::MsgApp)], at(sent));
            traffic.on_received(&message(MessageType::MsgAppResp), at(answered));
        }
        traffic.on_lost(PEER);
        traffic.on_lost(MemberId(9));
        let followers = traffic.followers([PEER].into_iter());
        let stats = followers[&PEER];
        assert_eq!((stats.current, stats.average, stats.minimum, stats.maximum), (20.0, 15.0, 10.0, 20.0));
        assert_eq!((stats.standard_deviation, stats.failed, stats.succeeded), (5.0, 1, 2));
        assert!(traffic.followers(std::iter::empty()).is_empty(), "removed members are forgotten");
    }
}
