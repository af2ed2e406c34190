//! What waits to be sent to one peer, in three lanes.
//!
//! *Control* (heartbeats, votes, acknowledgements, reads) goes first, on the message stream. *Appends* have the append
//! stream to themselves. *Proposals*, which can be long, follow behind control in small batches. Where a stream is not
//! up its lanes move to the other stream, or to single requests. A lane that is full takes nothing more; a lane
//! whose stream breaks is emptied, because raft sends again what still matters. An append that only tells a commit index
//! may wait a moment for the next one and be replaced by it (`pace`), if its stream has promised to come back.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::pace::Pace;
use crate::pb::raftpb::{Message, MessageType};

/// Most messages of a lane, as in etcd.
pub(super) const LANE_MESSAGES_MAX: usize = 4096;
/// Most messages of a lane whose stream is not up, as in etcd.
pub(super) const PIPELINE_MESSAGES_MAX: usize = 64;
/// Most bytes of appends waiting: raft keeps 512 appends of 1 MiB under way, of which the system's buffers and this
/// lane take what a slow peer leaves.
const APPEND_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most bytes of proposals waiting, the limit of all proposals of one member.
const PROPOSAL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most bytes of everything else waiting.
const CONTROL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes after which a batch for the append stream is closed.
const APPEND_BATCH_BYTES: usize = 1024 * 1024;
/// Bytes after which a batch for the message stream is closed: a heartbeat waits behind no more than this.
const MESSAGE_BATCH_BYTES: usize = 128 * 1024;
/// A stream that has taken nothing for so long while something waited is given up, as by etcd's write deadline.
const STALLED_AFTER: Duration = Duration::from_secs(5);
/// What a message and an entry weigh beside their data.
const MESSAGE_WEIGHT: usize = 64;
const ENTRY_WEIGHT: usize = 32;

/// The two streams of each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamKind {
    /// Appends.
    MsgApp,
    /// Everything else.
    Message,
}

impl StreamKind {
    /// The path a stream is asked for under, without the asker.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::MsgApp => "/raft/stream/msgapp/",
            Self::Message => "/raft/stream/message/",
        }
    }
}

/// What [`Outbox::take`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// At least one message.
    Messages,
    /// Nothing; the waker is called when something arrives.
    Nothing,
    /// As [`Taken::Nothing`], but something may come that is not worth a call: the stream comes back by itself after
    /// [`NEWS_WAIT_MAX`](super::pace::NEWS_WAIT_MAX), and says so.
    NothingYet,
    /// This stream has been replaced or given up, or the outbox is closed and empty.
    End,
}

/// Waiting messages for one peer.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    /// Tells single requests that there is something for them.
    pipeline: Notify,
}

#[derive(Debug, Default)]
struct State {
    control: Lane,
    appends: Lane,
    proposals: Lane,
    msgapp: Attachment,
    message: Attachment,
    pace: Pace,
    /// An append that waits for the next one.
    news: Option<Message>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Lane {
    messages: VecDeque<Message>,
    bytes: usize,
}

/// The stream a lane goes out on, if it is up.
#[derive(Debug, Default)]
struct Attachment {
    /// Tells this stream from those before it.
    serial: u64,
    up: bool,
    /// Set while the stream waits for messages.
    waker: Option<Waker>,
    /// Set while messages wait for the stream.
    behind_since: Option<Instant>,
    /// Whether the stream comes back by itself.
    comes_back: bool,
}

/// The lanes, by what is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Control,
    Append,
    Proposal,
}

impl Class {
    fn of(message: &Message) -> Self {
        match message.r#type() {
            MessageType::MsgApp => Self::Append,
            MessageType::MsgProp => Self::Proposal,
            _ => Self::Control,
        }
    }

    fn bytes_max(self) -> usize {
        match self {
            Self::Control => CONTROL_BYTES_MAX,
            Self::Append => APPEND_BYTES_MAX,
            Self::Proposal => PROPOSAL_BYTES_MAX,
        }
    }
}

impl Outbox {
    /// Queues messages behind those of their lanes. Returns whether all found room, and no stream had to be given up.
    pub(super) fn push(&self, messages: impl Iterator<Item = Message>) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        let mut delivered = state.give_up_stalled(now);
        for message in messages {
            delivered &= state.push(message, now);
        }
        let (msgapp, message) = state.wakers();
        let pipeline = state.has_unattached();
        drop(state);
        msgapp.into_iter().chain(message).for_each(Waker::wake);
        if pipeline {
            self.pipeline.notify_one();
        }
        delivered
    }

    /// Makes a new stream the one this kind goes out on and returns its serial number. One before it ends.
    pub(super) fn attach(&self, kind: StreamKind) -> u64 {
        let mut state = self.lock();
        let stream = state.stream(kind);
        let replaced = stream.waker.take();
        let serial = stream.serial + 1;
        *stream = Attachment { serial, up: true, ..Attachment::default() };
        state.hurry_news();
        drop(state);
        replaced.into_iter().for_each(Waker::wake);
        serial
    }

    /// A stream has ended. Returns whether it was still in use: what was on its way may then be lost.
    pub(super) fn detach(&self, kind: StreamKind, serial: u64) -> bool {
        let mut state = self.lock();
        let current = state.stream(kind);
        let was_up = current.up && current.serial == serial;
        if was_up {
            state.drop_stream(kind);
        }
        was_up && !state.closed
    }

    /// Moves the next batch for a stream to `batch`. `as_promised` if the stream comes back after
    /// [`Taken::NothingYet`] without having been called.
    pub(super) fn take(
        &self,
        kind: StreamKind,
        serial: u64,
        as_promised: bool,
        batch: &mut Vec<Message>,
        waker: &Waker,
    ) -> Taken {
        let mut state = self.lock();
        let stream = state.stream(kind);
        if !stream.up || stream.serial != serial {
            return Taken::End;
        }
        stream.behind_since = None;
        if as_promised {
            stream.comes_back = false;
            state.hurry_news();
        }
        state.fill(kind, batch);
        if !batch.is_empty() {
            return Taken::Messages;
        }
        if state.closed {
            return Taken::End;
        }
        state.await_call(kind, waker, Instant::now())
    }

    /// The peer has asked for something, and its clients wait for what is committed.
    pub(super) fn asked(&self) {
        let mut state = self.lock();
        state.pace.asked(Instant::now());
        state.hurry_news();
        let (msgapp, message) = state.wakers();
        drop(state);
        msgapp.into_iter().chain(message).for_each(Waker::wake);
    }

    /// The next message that no stream can carry.
    pub(super) async fn next_unattached(&self) -> Message {
        loop {
            let arrived = self.pipeline.notified();
            if let Some((message, more)) = self.take_unattached() {
                if more {
                    self.pipeline.notify_one();
                }
                return message;
            }
            arrived.await;
        }
    }

    fn take_unattached(&self) -> Option<(Message, bool)> {
        let mut state = self.lock();
        let message = state.next_unattached()?;
        Some((message, state.has_unattached()))
    }

    /// Takes nothing more; streams end when they have sent what waits.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.hurry_news();
        let wakers = [state.msgapp.waker.take(), state.message.waker.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn stream(&mut self, kind: StreamKind) -> &mut Attachment {
        match kind {
            StreamKind::MsgApp => &mut self.msgapp,
            StreamKind::Message => &mut self.message,
        }
    }

    /// Queues one message, or replaces one that it makes needless.
    fn push(&mut self, message: Message, now: Instant) -> bool {
        let class = Class::of(&message);
        if class == Class::Append && self.wait_for_next(&message, now) {
            return !self.closed;
        }
        let up = self.message.up || (class == Class::Append && self.msgapp.up);
        let messages_max = if up { LANE_MESSAGES_MAX } else { PIPELINE_MESSAGES_MAX };
        let lane = match class {
            Class::Control => &mut self.control,
            Class::Append => &mut self.appends,
            Class::Proposal => &mut self.proposals,
        };
        let Some(message) = lane.supersede(message) else { return true };
        !self.closed && lane.push(message, messages_max, class.bytes_max())
    }

    /// Keeps `append` back if it may wait. What was kept back is told by any append that comes after it.
    fn wait_for_next(&mut self, append: &Message, now: Instant) -> bool {
        let may_wait = self.pace.note(append, now) && self.msgapp.comes_back;
        self.news = may_wait.then(|| append.clone());
        may_wait
    }

    /// What was kept back waits no longer.
    fn hurry_news(&mut self) {
        if let Some(news) = self.news.take() {
            // Where it finds no room, entries wait that tell it.
            self.appends.push(news, LANE_MESSAGES_MAX, APPEND_BYTES_MAX);
        }
    }

    /// A stream has nothing to do. It promises to come back while news may be kept from it.
    fn await_call(&mut self, kind: StreamKind, waker: &Waker, now: Instant) -> Taken {
        let expects_more = kind == StreamKind::MsgApp && self.pace.expects_more(now);
        let stream = self.stream(kind);
        stream.waker = Some(waker.clone());
        stream.comes_back |= expects_more;
        if stream.comes_back { Taken::NothingYet } else { Taken::Nothing }
    }

    /// Whether appends, and whether anything else, wait for a stream that waits for them.
    fn wakers(&mut self) -> (Option<Waker>, Option<Waker>) {
        let appends = !self.appends.messages.is_empty();
        let others = !self.control.messages.is_empty() || !self.proposals.messages.is_empty();
        let msgapp = if appends { self.msgapp.waker.take() } else { None };
        let by_message = others || (appends && !self.msgapp.up);
        let message = if by_message { self.message.waker.take() } else { None };
        (msgapp, message)
    }

    fn fill(&mut self, kind: StreamKind, batch: &mut Vec<Message>) {
        let mut room = match kind {
            StreamKind::MsgApp => APPEND_BATCH_BYTES,
            StreamKind::Message => MESSAGE_BATCH_BYTES,
        };
        if kind == StreamKind::Message {
            self.control.fill(batch, &mut room);
        }
        if kind == StreamKind::MsgApp || !self.msgapp.up {
            self.appends.fill(batch, &mut room);
        }
        if kind == StreamKind::Message {
            self.proposals.fill(batch, &mut room);
        }
    }

    fn has_unattached(&self) -> bool {
        let lanes = [&self.control, &self.proposals];
        !self.message.up
            && (lanes.iter().any(|lane| !lane.messages.is_empty())
                || (!self.msgapp.up && !self.appends.messages.is_empty()))
    }

    fn next_unattached(&mut self) -> Option<Message> {
        if self.message.up || self.closed {
            return None;
        }
        let append = |state: &mut Self| if state.msgapp.up { None } else { state.appends.pop() };
        self.control.pop().or_else(|| append(self)).or_else(|| self.proposals.pop())
    }

    /// Gives up streams that took nothing for too long. Returns whether there was none.
    fn give_up_stalled(&mut self, now: Instant) -> bool {
        let mut none = true;
        for kind in [StreamKind::MsgApp, StreamKind::Message] {
            let waiting = match kind {
                StreamKind::MsgApp => !self.appends.messages.is_empty(),
                StreamKind::Message => !self.control.messages.is_empty() || !self.proposals.messages.is_empty(),
            };
            let stream = self.stream(kind);
            if !stream.up || stream.waker.is_some() || !waiting {
                continue;
            }
            if now.duration_since(*stream.behind_since.get_or_insert(now)) > STALLED_AFTER {
                self.drop_stream(kind);
                none = false;
            }
        }
        none
    }

    fn drop_stream(&mut self, kind: StreamKind) {
        let stream = self.stream(kind);
        *stream = Attachment { serial: stream.serial, ..Attachment::default() };
        match kind {
            StreamKind::MsgApp => (self.appends, self.news) = (Lane::default(), None),
            StreamKind::Message => (self.control, self.proposals) = (Lane::default(), Lane::default()),
        }
    }
}

impl Lane {
    fn push(&mut self, message: Message, messages_max: usize, bytes_max: usize) -> bool {
        let weight = weight(&message);
        // A message longer than the limit would never travel; alone it may.
        let fits = self.bytes == 0 || self.bytes.saturating_add(weight) <= bytes_max;
        if !fits || self.messages.len() >= messages_max {
            return false;
        }
        self.bytes += weight;
        self.messages.push_back(message);
        true
    }

    fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.bytes = self.bytes.saturating_sub(weight(&message));
        Some(message)
    }

    /// Moves messages until `room` is used up; the last may exceed it.
    fn fill(&mut self, batch: &mut Vec<Message>, room: &mut usize) {
        while *room > 0 {
            let Some(message) = self.pop() else { return };
            *room = room.saturating_sub(weight(&message));
            batch.push(message);
        }
    }

    /// Puts `message` in the place of one that says less; hands it back if there is none.
    fn supersede(&mut self, message: Message) -> Option<Message> {
        let place = match message.r#type() {
            MessageType::MsgHeartbeat => self.messages.iter_mut().find(|old| newer_heartbeat(old, &message)),
            MessageType::MsgAppResp => self.messages.back_mut().filter(|old| newer_acknowledgement(old, &message)),
            _ => None,
        };
        let Some(place) = place else { return Some(message) };
        let (old, new) = (weight(place), weight(&message));
        self.bytes = (self.bytes + new).saturating_sub(old);
        *place = message;
        None
    }
}

/// A later heartbeat carries a commit index and a read context that cover those before it (an answer to a later
/// context confirms all reads before it); only one without context must not replace one with.
fn newer_heartbeat(old: &Message, new: &Message) -> bool {
    old.r#type() == MessageType::MsgHeartbeat
        && old.term <= new.term
        && (old.context.is_empty() || !new.context.is_empty())
}

/// Acknowledging an index acknowledges all before it.
fn newer_acknowledgement(old: &Message, new: &Message) -> bool {
    old.r#type() == MessageType::MsgAppResp
        && !old.reject
        && !new.reject
        && old.term == new.term
        && old.index <= new.index
}

/// About the bytes a message occupies.
fn weight(message: &Message) -> usize {
    let entries: usize = message.entries.iter().map(|entry| entry.data.len() + ENTRY_WEIGHT).sum();
    MESSAGE_WEIGHT + message.context.len() + entries
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::Bytes;

    use super::*;
    use crate::pb::raftpb::Entry;

    fn message(kind: MessageType, index: u64) -> Message {
        Message { r#type: kind.into(), from: 1, to: 2, term: 5, index, ..Default::default() }
    }

    fn long(kind: MessageType, bytes: usize) -> Message {
        let entry = Entry { data: Bytes::from(vec![0; bytes]), ..Default::default() };
        Message { entries: vec![entry], ..message(kind, 1) }
    }

    fn push(outbox: &Outbox, messages: Vec<Message>) -> bool {
        outbox.push(messages.into_iter())
    }

    fn take(outbox: &Outbox, kind: StreamKind, serial: u64) -> Option<Vec<(MessageType, u64)>> {
        let mut batch = Vec::new();
        let taken = outbox.take(kind, serial, false, &mut batch, Waker::noop());
        assert_eq!(taken == Taken::Messages, !batch.is_empty());
        (taken != Taken::End).then(|| batch.iter().map(|message| (message.r#type(), message.index)).collect())
    }

    use MessageType::{MsgApp, MsgAppResp, MsgHeartbeat, MsgProp, MsgVote};
    use StreamKind::{Message as Others, MsgApp as Appends};

    #[test]
    fn each_stream_has_its_lanes_and_control_goes_first() {
        let outbox = Outbox::default();
        let (appends, others) = (outbox.attach(Appends), outbox.attach(Others));
        assert!(push(&outbox, vec![message(MsgProp, 1), message(MsgApp, 2), message(MsgVote, 3), message(MsgApp, 4)]));
        assert_eq!(take(&outbox, Others, others).unwrap(), [(MsgVote, 3), (MsgProp, 1)]);
        assert_eq!(take(&outbox, Appends, appends).unwrap(), [(MsgApp, 2), (MsgApp, 4)]);
        assert_eq!(take(&outbox, Appends, appends).unwrap(), []);
    }

    #[test]
    fn full_lanes_drop_and_leave_room_for_heartbeats() {
        let outbox = Outbox::default();
        let (appends, others) = (outbox.attach(Appends), outbox.attach(Others));
        assert!(push(&outbox, (1..=4096).map(|index| message(MsgApp, index)).collect()));
        assert!(!push(&outbox, vec![message(MsgApp, 5000)]), "one too many");
        assert!(push(&outbox, vec![message(MsgHeartbeat, 9)]));
        assert_eq!(take(&outbox, Others, others).unwrap(), [(MsgHeartbeat, 9)]);
        let taken: Vec<u64> = std::iter::from_fn(|| take(&outbox, Appends, appends).filter(|batch| !batch.is_empty()))
            .flatten()
            .map(|(_, index)| index)
            .collect();
        assert_eq!(taken, (1..=4096).collect::<Vec<_>>());
    }

    #[test]
    fn bytes_are_bounded_too_and_one_long_message_passes_alone() {
        let outbox = Outbox::default();
        let serial = outbox.attach(Appends);
        assert!(push(&outbox, vec![long(MsgApp, APPEND_BYTES_MAX + 1)]));
        assert!(!push(&outbox, vec![message(MsgApp, 2)]));
        assert_eq!(take(&outbox, Appends, serial).unwrap().len(), 1);
        assert!(push(&outbox, vec![message(MsgApp, 2)]), "its bytes are given back");
    }

    #[test]
    fn proposals_go_out_in_small_batches_so_that_a_heartbeat_overtakes_them() {
        let outbox = Outbox::default();
        let serial = outbox.attach(Others);
        push(&outbox, (0..4).map(|_| long(MsgProp, MESSAGE_BATCH_BYTES)).collect());
        assert_eq!(take(&outbox, Others, serial).unwrap().len(), 1);
        push(&outbox, vec![message(MsgHeartbeat, 7)]);
        assert_eq!(take(&outbox, Others, serial).unwrap()[0], (MsgHeartbeat, 7));
    }

    #[test]
    fn superseded_messages_are_replaced() {
        let outbox = Outbox::default();
        let serial = outbox.attach(Others);
        let read = Message { context: Bytes::from_static(b"read"), ..message(MsgHeartbeat, 2) };
        push(&outbox, vec![message(MsgHeartbeat, 1), read, message(MsgHeartbeat, 3), message(MsgHeartbeat, 4)]);
        push(
            &outbox,
            vec![message(MsgAppResp, 5), message(MsgAppResp, 6), message(MsgVote, 0), message(MsgAppResp, 7)],
        );
        let rejected = Message { reject: true, ..message(MsgAppResp, 8) };
        push(&outbox, vec![rejected.clone(), rejected]);
        let expected = [
            (MsgHeartbeat, 2),
            (MsgHeartbeat, 4),
            (MsgAppResp, 6),
            (MsgVote, 0),
            (MsgAppResp, 7),
            (MsgAppResp, 8),
            (MsgAppResp, 8),
        ];
        assert_eq!(take(&outbox, Others, serial).unwrap(), expected);
    }

    #[test]
    fn a_second_stream_replaces_the_first_and_keeps_what_waits() {
        let outbox = Outbox::default();
        let first = outbox.attach(Appends);
        push(&outbox, vec![message(MsgApp, 1)]);
        let second = outbox.attach(Appends);
        assert_eq!(take(&outbox, Appends, first), None);
        assert!(!outbox.detach(Appends, first));
        assert_eq!(take(&outbox, Appends, second).unwrap(), [(MsgApp, 1)]);
        assert!(outbox.detach(Appends, second));
        assert_eq!(take(&outbox, Appends, second), None);
    }

    #[tokio::test]
    async fn without_streams_single_requests_carry_a_few_messages() {
        let outbox = Outbox::default();
        assert!(!push(&outbox, (0..=64).map(|index| message(MsgVote, index)).collect()));
        assert_eq!(outbox.next_unattached().await.index, 0);
        let serial = outbox.attach(Others);
        assert!(outbox.take_unattached().is_none());
        assert_eq!(take(&outbox, Others, serial).unwrap().len(), 63);
        push(&outbox, vec![message(MsgApp, 1)]);
        assert_eq!(take(&outbox, Others, serial).unwrap(), [(MsgApp, 1)], "appends move to the stream that is up");
    }

    #[test]
    fn a_stream_that_takes_nothing_is_given_up() {
        let outbox = Outbox::default();
        let serial = outbox.attach(Others);
        push(&outbox, vec![message(MsgVote, 1)]);
        assert!(push(&outbox, vec![message(MsgHeartbeat, 1)]));
        let later = Instant::now() + STALLED_AFTER;
        assert!(outbox.lock().give_up_stalled(later - Duration::from_secs(1)));
        assert!(!outbox.lock().give_up_stalled(later));
        assert_eq!(take(&outbox, Others, serial), None);
        assert!(!outbox.detach(Others, serial), "its end was reported already");
    }

    /// An append of one entry, and the news that it is committed.
    fn append(index: u64) -> [Message; 2] {
        let entry = Entry { index, ..Default::default() };
        let append = Message { entries: vec![entry], commit: index - 1, ..message(MsgApp, index - 1) };
        [append, Message { commit: index, ..message(MsgApp, index) }]
    }

    /// What is sent when the stream comes back: the entries and the commit index of every message.
    fn come_back(outbox: &Outbox, serial: u64) -> Vec<(usize, u64)> {
        let mut batch = Vec::new();
        outbox.take(Appends, serial, true, &mut batch, Waker::noop());
        batch.iter().map(|message| (message.entries.len(), message.commit)).collect()
    }

    /// A stream that has taken a row of appends in no time, at the moment that is returned, and will come back.
    fn in_a_row(outbox: &Outbox) -> (u64, Instant) {
        let (serial, now) = (outbox.attach(Appends), Instant::now());
        for message in (1..=20).flat_map(append) {
            outbox.lock().push(message, now);
        }
        take(outbox, Appends, serial);
        assert_eq!(outbox.lock().await_call(Appends, Waker::noop(), now), Taken::NothingYet);
        (serial, now)
    }

    fn push_at(outbox: &Outbox, now: Instant, messages: impl IntoIterator<Item = Message>) {
        messages.into_iter().for_each(|message| assert!(outbox.lock().push(message, now)));
    }

    #[test]
    fn news_of_a_commit_travels_with_the_next_append() {
        let outbox = Outbox::default();
        let (serial, now) = in_a_row(&outbox);
        let [entry, news] = append(21);
        push_at(&outbox, now, [entry]);
        take(&outbox, Appends, serial);
        push_at(&outbox, now, [news]);
        assert!(outbox.lock().wakers().0.is_none(), "nobody is called for it");
        let [next, _] = append(22);
        push_at(&outbox, now, [next]);
        assert!(outbox.lock().wakers().0.is_some());
        assert_eq!(come_back(&outbox, serial), [(1, 21)], "one message tells both");
    }

    #[test]
    fn news_that_waited_is_sent_when_the_stream_comes_back_or_the_peer_asks() {
        let outbox = Outbox::default();
        let (serial, now) = in_a_row(&outbox);
        push_at(&outbox, now, append(21));
        assert_eq!(take(&outbox, Appends, serial).unwrap(), [(MsgApp, 20)]);
        assert_eq!(come_back(&outbox, serial), [(0, 21)]);

        let (serial, now) = in_a_row(&outbox);
        push_at(&outbox, now, append(21));
        outbox.asked();
        assert_eq!(take(&outbox, Appends, serial).unwrap(), [(MsgApp, 20), (MsgApp, 21)]);
    }

    #[test]
    fn nothing_is_kept_from_a_stream_that_does_not_come_back() {
        let outbox = Outbox::default();
        let (serial, now) = in_a_row(&outbox);
        assert_eq!(come_back(&outbox, serial), []);
        outbox.lock().msgapp.comes_back = false;
        push_at(&outbox, now, append(21));
        assert_eq!(take(&outbox, Appends, serial).unwrap(), [(MsgApp, 20), (MsgApp, 21)]);
    }

    #[test]
    fn a_closed_outbox_sends_what_it_holds_and_takes_nothing() {
        let outbox = Outbox::default();
        let serial = outbox.attach(Appends);
        push(&outbox, vec![message(MsgApp, 1)]);
        outbox.close();
        assert!(!push(&outbox, vec![message(MsgApp, 2)]));
        assert_eq!(take(&outbox, Appends, serial).unwrap(), [(MsgApp, 1)]);
        assert_eq!(take(&outbox, Appends, serial), None);
    }
}
