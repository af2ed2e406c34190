//! When an append that tells nothing but a commit index may wait for the next append, which tells it too.
//!
//! A leader tells every commit at once. While appends follow each other closely, the next one leaves a moment later with
//! the same news: the one between them costs both sides a system call, a wake-up and a step of raft for nothing. It waits
//! only then, never for long, and not for a peer whose own clients wait for what is committed.

use std::time::Duration;

use tokio::time::Instant;

use crate::pb::raftpb::{Message, MessageType};

/// Longest wait of news, and the time within which the next append is expected.
pub(super) const NEWS_WAIT_MAX: Duration = Duration::from_millis(2);
/// Appends that follow each other within this make a row.
const CLOSE: Duration = Duration::from_millis(1);
/// So many in a row, and another one is expected.
const ROW_MIN: u32 = 8;
/// A peer that has asked for something is told everything at once for so long.
const ASKED_RECENTLY: Duration = Duration::from_millis(100);

/// Whether a message of a peer asks for something that it can give its clients only when it knows what is committed.
pub(super) fn asks(message: &Message) -> bool {
    matches!(message.r#type(), MessageType::MsgProp | MessageType::MsgReadIndex)
}

/// How closely the appends to one peer follow each other, and what they have told.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When entries were last sent.
    last: Option<Instant>,
    /// How many appends came close behind the one before, without a break.
    row: u32,
    /// Term and index at the end of the last append.
    end: (u64, u64),
    /// The commit index of the last append.
    told: u64,
    /// When the peer last asked for something.
    asked: Option<Instant>,
}

impl Pace {
    /// Takes note of the next append. Returns whether it may wait.
    pub(super) fn note(&mut self, append: &Message, now: Instant) -> bool {
        let is_news = append.entries.is_empty() && (append.term, append.index) == self.end && append.commit > self.told;
        if let Some(last) = append.entries.last() {
            let is_close = self.last.is_some_and(|before| now.duration_since(before) <= CLOSE);
            self.row = if is_close { self.row.saturating_add(1) } else { 0 };
            self.last = Some(now);
            self.end = (append.term, last.index);
        } else {
            self.end = (append.term, append.index);
        }
        self.told = append.commit;
        is_news && self.expects_more(now) && self.asked.is_none_or(|asked| now.duration_since(asked) > ASKED_RECENTLY)
    }

    /// Whether another append will probably come at once.
    pub(super) fn expects_more(&self, now: Instant) -> bool {
        self.row >= ROW_MIN && self.last.is_some_and(|last| now.duration_since(last) <= NEWS_WAIT_MAX)
    }

    /// The peer has asked for something.
    pub(super) fn asked(&mut self, now: Instant) {
        self.asked = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::raftpb::Entry;

    fn entries(index: u64, commit: u64) -> Message {
        let entry = Entry { index, ..Default::default() };
        Message { entries: vec![entry], ..news(index - 1, commit) }
    }

    fn news(index: u64, commit: u64) -> Message {
        Message { r#type: MessageType::MsgApp.into(), term: 3, index, commit, ..Default::default() }
    }

    /// Nine appends, one every `gap`; the moment of the last.
    fn row(pace: &mut Pace, gap: Duration) -> Instant {
        let mut now = Instant::now();
        for index in 1..=9 {
            now += gap;
            assert!(!pace.note(&entries(index, index - 1), now), "entries never wait");
        }
        now
    }

    #[test]
    fn news_waits_while_appends_follow_each_other_closely() {
        let mut pace = Pace::default();
        let now = row(&mut pace, CLOSE);
        assert!(pace.note(&news(9, 9), now));
        assert!(!pace.note(&news(9, 9), now), "what was told is no news but a question");
        assert!(!pace.note(&news(8, 10), now), "what does not continue the last append is a probe");
    }

    #[test]
    fn news_leaves_at_once_when_no_append_is_expected() {
        let (mut slow, mut ended) = (Pace::default(), Pace::default());
        let now = row(&mut slow, CLOSE + Duration::from_micros(1));
        assert!(!slow.note(&news(9, 9), now), "appends far between");
        let now = row(&mut ended, CLOSE) + NEWS_WAIT_MAX + Duration::from_micros(1);
        assert!(!ended.note(&news(9, 9), now), "the row has ended");
    }

    #[test]
    fn peer_that_asked_lately_is_told_at_once() {
        let mut pace = Pace::default();
        let now = row(&mut pace, CLOSE);
        pace.asked(now);
        assert!(!pace.note(&news(9, 9), now));
        assert!(asks(&Message { r#type: MessageType::MsgProp.into(), ..Default::default() }));
        assert!(!asks(&news(1, 1)));
    }
}
